/** Merges an adapter into its base and evaluates it on the tasks' test sets, as the paper does, and by finer rulers. */
import { existsSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { ParsedArgs } from "citty";
import { readAdapter } from "../src/adapters/storage.ts";
import { promptFormats, promptNamed } from "../src/data/prompts/registry.ts";
import type { InstructionRecord } from "../src/data/records.ts";
import { InputError } from "../src/errors.ts";
import { evaluateTask, type Ruler, rulers } from "../src/evaluation/run.ts";
import { measures, summarize, type TaskSummary } from "../src/evaluation/score.ts";
import { readTaskRecords, type Task, taskFile } from "../src/evaluation/task.ts";
import { tasks, tasksNamed } from "../src/evaluation/tasks/registry.ts";
import { writeTextFile } from "../src/formats/files.ts";
import { fingerprintModel } from "../src/formats/fingerprint.ts";
import { readLlamaConfig } from "../src/formats/hf-config.ts";
import {
  adapterOptionsOf,
  baseMismatch,
  mergeFolder,
  quantizationMismatch,
} from "../src/model/load-adapter.ts";
import { freeLlama, loadLlama } from "../src/model/model.ts";
import { closeDevice, type Device } from "../src/native/device.ts";
import { fileHash, makeManifest } from "../src/reporting/manifest.ts";
import { startProgress } from "../src/reporting/progress.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";
import { positionsFor } from "../src/training/prepare.ts";
import {
  COMPUTE_TYPES,
  choiceFlag,
  deviceFlags,
  listFlag,
  oneAdapter,
  openCommandDevice,
  quantizeFlag,
  quantizeFlags,
  required,
  runCommand,
  wholeFlag,
} from "./arguments.ts";

const EXAMPLES = `Tasks
  ${tasks.map((task) => task.name).join(", ")};
  commonsense and arithmetic stand for their whole suite. A test set that is not there is said to be missing.

Rulers
  generation  the paper's: beam search behind its prompt, the answer read by its expression
  options     log-likelihood of each option's text behind the question, whole and per character
  labels      log-likelihood of each answer's label behind the paper's prompt

Examples
  bun run scripts/evaluate.ts --model models/smollm2-135m --adapter runs/first --data data/llm-adapters --tasks commonsense --limit 200
  bun run scripts/evaluate.ts --model models/smollm2-135m --data data/llm-adapters --tasks piqa,ARC-Easy --rulers options --json`;

const ARGS = {
  model: { type: "string", valueHint: "DIR", description: "Hugging Face model folder (LLaMA family)" },
  adapter: { type: "string", valueHint: "DIR", description: "Adapter folder, merged into the weights first" },
  data: {
    type: "string",
    valueHint: "DIR",
    description: "Folder with <task>/test.json, or LLM-Adapters' checkout",
  },
  tasks: {
    type: "string",
    default: "commonsense",
    valueHint: "a,b",
    description: "Names of tasks, or of a suite",
  },
  limit: { type: "string", valueHint: "N", description: "Only the first N records of every task" },
  beams: { type: "string", default: "4", valueHint: "N", description: "Beams of the search; 1 is greedy" },
  "max-new-tokens": {
    type: "string",
    valueHint: "N",
    description: "Longest answer. Default: the task's own, 32 or 256",
  },
  rulers: {
    type: "string",
    default: "generation",
    valueHint: "a,b",
    description: `Out of ${rulers.join(", ")}`,
  },
  prompt: {
    type: "string",
    default: "llm-adapters",
    valueHint: promptFormats.map((f) => f.name).join("|"),
    description: "Prompt format",
  },
  out: {
    type: "string",
    default: "predictions.jsonl",
    valueHint: "FILE",
    description: "One line a prediction: record, text, parsed answer, label, correct",
  },
  json: { type: "boolean", default: false, description: "Print one JSON object" },
  ...quantizeFlags,
  ...deviceFlags,
} as const;

type Args = ParsedArgs<typeof ARGS>;

interface Settings {
  readonly modelDir: string;
  readonly dataDir: string;
  readonly rulers: readonly Ruler[];
  readonly beams: number;
  readonly maxNewTokens: number | undefined;
  readonly out: string;
  readonly found: readonly { readonly task: Task; readonly records: readonly InstructionRecord[] }[];
  readonly missing: readonly Task[];
}

function settingsFrom(args: Args): Settings {
  const modelDir = required(args, "model", "a Hugging Face model folder");
  const dataDir = required(args, "data", "a folder that holds the tasks' test sets");
  const chosen = listFlag(args, "rulers")!.map((name) => choiceFlag({ rulers: name }, "rulers", rulers)!);
  const limit = wholeFlag(args, "limit", 1);
  const wanted = tasksNamed(args.tasks);
  const read = wanted.map((task) => ({ task, records: readTaskRecords(dataDir, task, limit) }));
  const found = read.flatMap(({ task, records }) => (records ? [{ task, records }] : []));
  const missing = read.flatMap(({ task, records }) => (records ? [] : [task]));
  if (found.length === 0) {
    throw new InputError(
      `${dataDir}: none of the test sets ${wanted.map((t) => t.name).join(", ")} is there; expected ` +
        `${dataDir}/dataset/${wanted[0]!.name}/test.json or ${dataDir}/${wanted[0]!.name}/test.json. Download LLM-Adapters' ` +
        `data, or point --data at the folder that holds them.`,
    );
  }
  const folder = dirname(resolve(args.out));
  if (!existsSync(folder))
    throw new InputError(`--out is "${args.out}", but the folder ${folder} does not exist.`);
  if (existsSync(args.out) && statSync(args.out).isDirectory())
    throw new InputError(`--out is "${args.out}", which is a folder; expected a file for the predictions.`);
  oneAdapter();
  const beams = wholeFlag(args, "beams", 1)!;
  return {
    modelDir,
    dataDir,
    rulers: chosen,
    beams,
    maxNewTokens: wholeFlag(args, "max-new-tokens", 1),
    out: args.out,
    found,
    missing,
  };
}

async function main(args: Args): Promise<void> {
  const settings = settingsFrom(args);
  const prompt = promptNamed(args.prompt);
  const compute = choiceFlag(args, "compute", COMPUTE_TYPES)!;
  const { modelDir } = settings;
  const quantize = quantizeFlag(args);
  const config = readLlamaConfig(modelDir);
  const tokenizer = loadTokenizer(modelDir);
  const folder = args.adapter ? readAdapter(args.adapter) : null;
  if (folder) adapterOptionsOf(folder);
  const fingerprint = fingerprintModel(modelDir);
  const mismatch = folder && baseMismatch(folder, fingerprint);
  if (mismatch) console.error(`note: ${mismatch}`);
  const otherBits = folder && quantizationMismatch(folder, quantize);
  if (otherBits) console.error(`note: ${otherBits}`);
  for (const task of settings.missing)
    console.error(`note: no test set of ${task.name} under ${settings.dataDir}; left out`);

  const device = await openCommandDevice(args);
  try {
    const model = loadLlama(device, modelDir, {
      ...{ compute, positions: positionsFor(config) },
      ...(quantize ? { quantize } : {}),
    });
    if (folder) mergeFolder(model, folder);
    const summaries: [Task, TaskSummary][] = [];
    const lines: string[] = [];
    for (const { task, records } of settings.found) {
      const progress = startProgress(task.name, records.length * settings.rulers.length, "records");
      const predictions = await evaluateTask(model, tokenizer, task, records, {
        beams: settings.beams,
        ...(settings.maxNewTokens ? { maxNewTokens: settings.maxNewTokens } : {}),
        prompt: prompt.test,
        rulers: settings.rulers,
        onProgress: (done) => progress.update(done),
      });
      progress.end();
      lines.push(...predictions.map((prediction) => JSON.stringify({ task: task.name, ...prediction })));
      // After every task: a long evaluation that is stopped keeps what it has.
      writeTextFile(settings.out, `${lines.join("\n")}\n`);
      summaries.push([task, summarize(predictions)]);
      if (!args.json) console.log(rowOf(task, summarize(predictions), settings.rulers));
    }
    if (args.json) console.log(JSON.stringify(jsonOf(args, settings, device, fingerprint, summaries)));
    else console.log(`predictions are in ${settings.out}`);
    freeLlama(model);
  } finally {
    closeDevice(device);
  }
}

/** "ARC-e      200 records  generation 31.0 ± 3.3 (parsed 98 %)  majority answer2 27.0" */
function rowOf(task: Task, summary: TaskSummary, asked: readonly Ruler[]): string {
  const { n, majority, parsed, scores } = summary;
  const cells = measures.flatMap((measure) => {
    const score = scores[measure];
    if (!score) return [];
    const found = measure === "generation" && parsed !== null ? ` (parsed ${parsed.toFixed(0)} %)` : "";
    return [`${measure} ${score.accuracy.toFixed(1)} ± ${score.standardError.toFixed(1)}${found}`];
  });
  if (cells.length === 0) cells.push(`no options to score by ${asked.join(", ")}`);
  const most =
    task.suite === "commonsense" || task.name === "AQuA"
      ? `majority ${majority.label} ${majority.accuracy.toFixed(1)}`
      : "";
  return [task.title.padEnd(11), `${n} records`.padStart(13), ...cells, most].join("  ").trimEnd();
}

function jsonOf(
  args: Args,
  settings: Settings,
  device: Device,
  fingerprint: string,
  summaries: readonly (readonly [Task, TaskSummary])[],
): object {
  const { modelDir, dataDir, beams, missing, found, out } = settings;
  const hashes = found.map(({ task }) => [task.name, fileHash(taskFile(dataDir, task)!)] as const);
  const averages = measures.flatMap((measure) => {
    const values = summaries.flatMap(([, { scores }]) => scores[measure]?.accuracy ?? []);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    return values.length === summaries.length ? [[measure, mean] as const] : [];
  });
  return {
    schemaVersion: 1,
    adapter: args.adapter ?? null,
    prompt: args.prompt,
    beams,
    compute: args.compute,
    quantize: quantizeFlag(args) ?? null,
    limit: wholeFlag(args, "limit", 1) ?? null,
    tasks: Object.fromEntries(summaries.map(([task, summary]) => [task.name, summary])),
    /** Plain mean over the tasks that are there. */
    average: Object.fromEntries(averages),
    missing: missing.map((task) => task.name),
    predictions: out,
    manifest: makeManifest(device, { name: modelDir, fingerprint }, Object.fromEntries(hashes)),
  };
}

await runCommand({
  name: "bun run scripts/evaluate.ts",
  description: "Evaluate a model, with or without an adapter, on the tasks of the paper's tables.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
