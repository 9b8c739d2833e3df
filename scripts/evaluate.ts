/** Evaluates a model, an adapter merged into it or beside it, on the tasks' test sets as the paper does, and by finer rulers. */
import type { ParsedArgs } from "citty";
import { readAdapter } from "../src/adapters/storage.ts";
import type { PromptFormat } from "../src/data/prompts/prompt.ts";
import { promptFormats, promptNamed } from "../src/data/prompts/registry.ts";
import type { InstructionRecord } from "../src/data/records.ts";
import { InputError } from "../src/errors.ts";
import { type LetterIds, letterIds } from "../src/evaluation/mmlu.ts";
import { evaluateTask, type Ruler, rulers } from "../src/evaluation/run.ts";
import { measures, summarize, type TaskSummary } from "../src/evaluation/score.ts";
import { readTaskRecords, type Task, taskFile } from "../src/evaluation/task.ts";
import { tasks, tasksNamed } from "../src/evaluation/tasks/registry.ts";
import { fingerprintModel } from "../src/formats/fingerprint.ts";
import { type LlamaConfig, readLlamaConfig } from "../src/formats/hf-config.ts";
import {
  adapterOptionsOf,
  attachFolder,
  baseMismatch,
  mergeFolder,
  quantizationMismatch,
} from "../src/model/load-adapter.ts";
import { freeLlama, type Llama, loadLlama } from "../src/model/model.ts";
import { closeDevice, type Device } from "../src/native/device.ts";
import { fileHash, makeManifest } from "../src/reporting/manifest.ts";
import { startProgress } from "../src/reporting/progress.ts";
import { mean } from "../src/reporting/statistics.ts";
import { loadTokenizer, type Tokenizer } from "../src/text/tokenizer.ts";
import { positionsFor } from "../src/training/prepare.ts";
import {
  COMPUTE_TYPES,
  choiceFlag,
  choicesFlag,
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
import {
  type AskedMmlu,
  askMmlu,
  MMLU,
  MMLU_FLAGS,
  type MmluSettings,
  mmluHashes,
  mmluRows,
  mmluSettings,
  refuseMmluFlags,
} from "./evaluate-mmlu.ts";
import { type PredictionFile, predictionFile } from "./predictions.ts";

const EXAMPLES = `Tasks
  ${tasks.map((task) => task.name).join(", ")};
  commonsense and arithmetic stand for their whole suite. A test set that is not there is said to be missing.
  mmlu is asked with shots, as Table 5 does: the likeliest of the four letters behind "Answer:". --data then holds mmlu/, in
  Hendrycks' form (test/<subject>_test.csv, dev/<subject>_dev.csv) or as five_shot_mmlu_test.json; rulers, beams and prompt are not for it.

Rulers
  generation  the paper's: beam search behind its prompt, the answer read by its expression
  options     log-likelihood of each option's text behind the question, whole and per character
  labels      log-likelihood of each answer's label behind the paper's prompt

Examples
  bun run scripts/evaluate.ts --model models/smollm2-135m --adapter runs/first --data data/llm-adapters --tasks commonsense --limit 200
  bun run scripts/evaluate.ts --model models/smollm2-135m --data data/llm-adapters --tasks piqa,ARC-Easy --rulers options --json
  bun run scripts/evaluate.ts --model models/smollm2-135m --adapter runs/qdora/last --unmerged --quantize nf4 --double-quant --data data \\
      --tasks mmlu --splits val,test

Predictions go to --out, one line each, after every task (subject): what a stopped evaluation has is kept. No file is written over.`;

const ARGS = {
  model: { type: "string", valueHint: "DIR", description: "Hugging Face model folder (LLaMA family)" },
  adapter: { type: "string", valueHint: "DIR", description: "Adapter folder, merged into the weights first" },
  unmerged: {
    type: "boolean",
    default: false,
    description: "With --adapter: leave the weights as they are, the adapter beside them",
  },
  data: {
    type: "string",
    valueHint: "DIR",
    description: "Folder with <task>/test.json, or LLM-Adapters' checkout; with mmlu/",
  },
  tasks: {
    type: "string",
    default: "commonsense",
    valueHint: "a,b",
    description: "Names of tasks, or of a suite",
  },
  limit: { type: "string", valueHint: "N", description: "Only the first N records of every task or subject" },
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
  ...MMLU_FLAGS,
  out: {
    type: "string",
    valueHint: "FILE",
    description:
      "New file, one line a prediction: record, text, parsed answer, label, correct. Default: predictions.jsonl, or the first of predictions-2.jsonl, … that is not there",
  },
  json: { type: "boolean", default: false, description: "Print one JSON object" },
  ...quantizeFlags,
  ...deviceFlags,
} as const;

type Args = ParsedArgs<typeof ARGS>;

interface Settings {
  readonly modelDir: string;
  readonly dataDir: string;
  readonly config: LlamaConfig;
  readonly prompt: PromptFormat;
  readonly rulers: readonly Ruler[];
  readonly beams: number;
  readonly maxNewTokens: number | undefined;
  readonly found: readonly { readonly task: Task; readonly records: readonly InstructionRecord[] }[];
  readonly missing: readonly Task[];
  readonly mmlu: MmluSettings | null;
}

function settingsFrom(args: Args): Settings {
  const modelDir = required(args, "model", "a Hugging Face model folder");
  const dataDir = required(args, "data", "a folder that holds the tasks' test sets");
  oneAdapter();
  if (args.unmerged && !args.adapter)
    throw new InputError("--unmerged is about an adapter; add --adapter, or leave it out.");
  const chosen = choicesFlag(args, "rulers", rulers)!;
  const limit = wholeFlag(args, "limit", 1);
  const names = listFlag(args, "tasks")!;
  const config = readLlamaConfig(modelDir);
  const asksMmlu = names.includes(MMLU);
  if (!asksMmlu) refuseMmluFlags(args);
  const mmlu = asksMmlu ? mmluSettings(args, dataDir, config, limit) : null;
  const others = names.filter((name) => name !== MMLU);
  const wanted = others.length > 0 ? tasksNamed(others.join(",")) : [];
  const read = wanted.map((task) => ({ task, records: readTaskRecords(dataDir, task, limit) }));
  const found = read.flatMap(({ task, records }) => (records ? [{ task, records }] : []));
  const missing = read.flatMap(({ task, records }) => (records ? [] : [task]));
  if (found.length === 0 && !mmlu) {
    throw new InputError(
      `${dataDir}: none of the test sets ${wanted.map((t) => t.name).join(", ")} is there; expected ` +
        `${dataDir}/dataset/${wanted[0]!.name}/test.json or ${dataDir}/${wanted[0]!.name}/test.json. Download LLM-Adapters' ` +
        `data, or point --data at the folder that holds them.`,
    );
  }
  const beams = wholeFlag(args, "beams", 1)!;
  const maxNewTokens = wholeFlag(args, "max-new-tokens", 1);
  const prompt = promptNamed(args.prompt);
  return { modelDir, dataDir, config, prompt, rulers: chosen, beams, maxNewTokens, found, missing, mmlu };
}

async function main(args: Args): Promise<void> {
  const settings = settingsFrom(args);
  const file = predictionFile(args.out);
  const compute = choiceFlag(args, "compute", COMPUTE_TYPES)!;
  const { modelDir, config, mmlu } = settings;
  const quantize = quantizeFlag(args);
  const tokenizer = loadTokenizer(modelDir);
  const letters = mmlu && letterIds(tokenizer, modelDir);
  const folder = args.adapter ? readAdapter(args.adapter) : null;
  if (folder) adapterOptionsOf(folder);
  const fingerprint = fingerprintModel(modelDir);
  const mismatch = folder && baseMismatch(folder, fingerprint);
  if (mismatch) console.error(`note: ${mismatch}`);
  const otherBits = folder && quantizationMismatch(folder, quantize);
  if (otherBits) console.error(`note: ${otherBits}`);
  for (const { name } of settings.missing)
    console.error(`note: no test set of ${name} under ${settings.dataDir}; left out`);
  for (const split of mmlu?.missing ?? [])
    console.error(`note: MMLU's ${split} is not under ${settings.dataDir}; left out`);

  const device = await openCommandDevice(args);
  try {
    const model = loadLlama(device, modelDir, {
      ...{ compute, positions: Math.max(positionsFor(config), mmlu?.options.maxTokens ?? 0) },
      ...(quantize ? { quantize } : {}),
    });
    let detach = (): void => {};
    if (folder && args.unmerged) detach = attachFolder(model, folder);
    else if (folder) mergeFolder(model, folder);
    const summaries = await askTasks(args, settings, model, tokenizer, file);
    const asked = mmlu && letters ? await askSubjects(args, mmlu, model, tokenizer, letters, file) : [];
    const result = { ...settings, device, fingerprint, summaries, asked, predictions: file.path() };
    if (args.json) console.log(JSON.stringify(jsonOf(args, result)));
    else console.log(`predictions are in ${file.path()}`);
    detach();
    freeLlama(model);
  } finally {
    closeDevice(device);
  }
}

/** What was asked and found, for --json. */
interface Evaluated extends Settings {
  readonly device: Device;
  readonly fingerprint: string;
  readonly summaries: readonly (readonly [Task, TaskSummary])[];
  readonly asked: readonly AskedMmlu[];
  readonly predictions: string | null;
}

async function askTasks(
  args: Args,
  { found, prompt, rulers: chosen, beams, maxNewTokens }: Settings,
  model: Llama,
  tokenizer: Tokenizer,
  file: PredictionFile,
): Promise<[Task, TaskSummary][]> {
  const summaries: [Task, TaskSummary][] = [];
  for (const { task, records } of found) {
    const progress = startProgress(task.name, records.length * chosen.length, "records");
    const predictions = await evaluateTask(model, tokenizer, task, records, {
      beams,
      ...(maxNewTokens ? { maxNewTokens } : {}),
      prompt: prompt.test,
      rulers: chosen,
      onProgress: (done) => progress.update(done),
    });
    progress.end();
    file.add(predictions.map((prediction) => ({ task: task.name, ...prediction })));
    const summary = summarize(predictions);
    summaries.push([task, summary]);
    if (!args.json) console.log(rowOf(task, summary, chosen));
  }
  return summaries;
}

async function askSubjects(
  args: Args,
  settings: MmluSettings,
  model: Llama,
  tokenizer: Tokenizer,
  letters: LetterIds,
  file: PredictionFile,
): Promise<AskedMmlu[]> {
  const asked = await askMmlu(model, tokenizer, letters, settings, (name, predictions) =>
    file.add(predictions.map((prediction) => ({ task: `${MMLU}/${name}`, ...prediction }))),
  );
  if (!args.json) for (const one of asked) console.log(mmluRows(one));
  return asked;
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
  { modelDir, dataDir, device, fingerprint, beams, found, missing, mmlu, ...result }: Evaluated,
): object {
  const { summaries, asked, predictions } = result;
  const hashes = found.map(({ task }) => [task.name, fileHash(taskFile(dataDir, task)!)] as const);
  const data = { ...Object.fromEntries(hashes), ...(mmlu ? mmluHashes(mmlu) : {}) };
  const averages = measures.flatMap((measure) => {
    const values = summaries.flatMap(([, { scores }]) => scores[measure]?.accuracy ?? []);
    return values.length > 0 && values.length === summaries.length ? [[measure, mean(values)] as const] : [];
  });
  return {
    schemaVersion: 1,
    adapter: args.adapter ?? null,
    unmerged: args.unmerged,
    prompt: args.prompt,
    beams,
    compute: args.compute,
    quantize: quantizeFlag(args) ?? null,
    limit: wholeFlag(args, "limit", 1) ?? null,
    tasks: Object.fromEntries(summaries.map(([task, summary]) => [task.name, summary])),
    /** Plain mean over the tasks that are there. */
    average: Object.fromEntries(averages),
    mmlu: mmlu && {
      ...mmlu.options,
      splits: Object.fromEntries(asked.map(({ split, ...summary }) => [split, summary])),
    },
    missing: [
      ...missing.map(({ name }) => name),
      ...(mmlu?.missing ?? []).map((split) => `${MMLU}/${split}`),
    ],
    predictions,
    manifest: makeManifest(device, { name: modelDir, fingerprint }, data),
  };
}

await runCommand({
  name: "bun run scripts/evaluate.ts",
  description: "Evaluate a model, with or without an adapter, on the tasks of the paper's tables.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
