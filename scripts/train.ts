/** Fine-tunes a model on an instruction file: every method, every switch of the protocol. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { type MethodName, methodNames } from "../src/adapters/adapter.ts";
import { type AvoidedIndices, hashIndices, indicesOf } from "../src/adapters/avoid.ts";
import { methodNamed, methods } from "../src/adapters/registry.ts";
import { readAdapter } from "../src/adapters/storage.ts";
import { promptFormats } from "../src/data/prompts/registry.ts";
import { type InstructionRecord, readInstructionRecords } from "../src/data/records.ts";
import { InputError } from "../src/errors.ts";
import { adapterOptionsOf } from "../src/model/load-adapter.ts";
import { linearNames } from "../src/model/shapes.ts";
import { closeDevice } from "../src/native/device.ts";
import { commandLine } from "../src/reporting/manifest.ts";
import { mostResidentBytes } from "../src/reporting/memory.ts";
import { formatSeconds, type Progress, startProgress } from "../src/reporting/progress.ts";
import { checkOut, type FineTuned, fineTune } from "../src/training/fine-tune.ts";
import { forecastRun, type MemoryForecast } from "../src/training/forecast.ts";
import { measureTraining } from "../src/training/measure.ts";
import { type PreparedRun, prepareRun, type RunInput } from "../src/training/prepare.ts";
import { paperRecipe, type TrainRecipe } from "../src/training/recipe.ts";
import { scheduleNames } from "../src/training/schedule.ts";
import {
  COMPUTE_TYPES,
  choiceFlag,
  deviceFlags,
  formatSize,
  listFlag,
  numberFlag,
  openCommandDevice,
  quantizeFlag,
  quantizeFlags,
  repeatedFlag,
  required,
  runCommand,
  wholeFlag,
} from "./arguments.ts";

const { optimizer, ...paper } = paperRecipe;

const EXAMPLES = `Methods
${methodNames.map((name) => `  ${name.padEnd(10)} ${methods[name].summary}`).join("\n")}

Examples
  bun run scripts/train.ts --model models/smollm2-135m --data data.json --out runs/first --rank 64
  bun run scripts/train.ts --model models/smollm2-135m --data data.json --out runs/lora --method lora --lr 1e-3 --steps 300 --loss-on response
  bun run scripts/train.ts --model models/smollm2-135m --data data.json --out runs/first --rank 64 --dry-run
                                        memory, steps and expected time; nothing is trained or written
  bun run scripts/train.ts ... --resume goes on after Ctrl-C, SIGTERM or a crash; the bytes are those of an uninterrupted run

--data is a JSON array or JSON Lines of {"instruction", "input", "output"}. --out gets the adapter with the best validation loss,
last/ (the last step's), checkpoint/, metrics.jsonl and manifest.json.`;

const ARGS = {
  model: { type: "string", valueHint: "DIR", description: "Hugging Face model folder (LLaMA family)" },
  data: { type: "string", valueHint: "FILE", description: "Instruction records, .json or .jsonl" },
  out: {
    type: "string",
    valueHint: "DIR",
    description: "Folder for the adapter and everything about the run",
  },
  method: { type: "string", valueHint: methodNames.join("|"), description: `Default: ${paper.method}` },
  rank: { type: "string", valueHint: "R", description: `Default: ${paper.rank}` },
  alpha: { type: "string", valueHint: "A", description: "Scaling is alpha / rank. Default: 2 × rank" },
  dropout: {
    type: "string",
    valueHint: "P",
    description: `Adapter dropout. Default: ${paper.dropout}; full: 0`,
  },
  targets: {
    type: "string",
    valueHint: "a,b",
    description: `all-linear, or names out of ${linearNames.join(", ")}. Default: ${paper.targets.join(",")}`,
  },
  lr: {
    type: "string",
    valueHint: "RATE",
    description: `Peak learning rate. Default: ${paper.learningRate}`,
  },
  schedule: { type: "string", valueHint: scheduleNames.join("|"), description: `Default: ${paper.schedule}` },
  warmup: {
    type: "string",
    valueHint: "N",
    description: "Warm-up steps (schedule constant: none). Default: 100, at most a tenth of the run",
  },
  "schedule-steps": {
    type: "string",
    valueHint: "N",
    description: "Length of the schedule when the run stops earlier. Default: the run's length",
  },
  epochs: { type: "string", valueHint: "E", description: `Default: ${paper.epochs}` },
  steps: { type: "string", valueHint: "N", description: "Optimizer steps, in place of epochs" },
  batch: {
    type: "string",
    valueHint: "N",
    description: `Records an optimizer step. Default: ${paper.batch}`,
  },
  "micro-batch": {
    type: "string",
    valueHint: "N",
    description: "Records a micro-batch (loss mean micro), a divisor of the batch. Default: 2, odd batches 1",
  },
  "loss-mean": {
    type: "string",
    default: "token",
    valueHint: "token|micro",
    description: "token: mean over the step's label tokens; micro: the paper's mean of micro-batch means",
  },
  "loss-on": {
    type: "string",
    default: paper.lossOn,
    valueHint: "all|response",
    description: "Tokens that are learned",
  },
  cutoff: {
    type: "string",
    valueHint: "N",
    description: `Longest record in tokens. Default: ${paper.cutoff}`,
  },
  "val-size": {
    type: "string",
    valueHint: "N",
    description: `Records held out for validation. Default: ${paper.valSize}, at most a tenth`,
  },
  "eval-every": {
    type: "string",
    valueHint: "N",
    description: `Steps between validations. Default: ${paper.evalEvery}`,
  },
  seed: { type: "string", valueHint: "N", description: `Default: ${paper.seed}` },
  shuffle: {
    type: "boolean",
    default: true,
    description: "Shuffle every epoch",
    negativeDescription: "Keep the file's order",
  },
  prompt: {
    type: "string",
    valueHint: promptFormats.map((f) => f.name).join("|"),
    description: `Prompt format. Default: ${paper.prompt}`,
  },
  "max-tokens": {
    type: "string",
    valueHint: "N",
    description: "Most tokens of one packed pass: memory against speed. Default: 1024, at least the cutoff",
  },
  "checkpoint-activations": {
    type: "boolean",
    default: false,
    description:
      "Keep each block's input alone and run the block again for its gradient: less memory, same bytes",
  },
  ...quantizeFlags,
  ...deviceFlags,
  "save-as": {
    type: "string",
    default: "native",
    valueHint: "native|peft",
    description: "Layout of the adapter folder",
  },
  "init-adapter": {
    type: "string",
    valueHint: "DIR",
    description:
      "Start from this adapter (PEFT's layout too); method, rank, alpha and targets default to its own",
  },
  "avoid-indices-of": {
    type: "string",
    valueHint: "DIR",
    description: "Draw no index of this SBoRA adapter, so that both merge apart; may be given several times",
  },
  resume: {
    type: "boolean",
    default: false,
    description: "Go on from the checkpoint in --out; start from the beginning where there is none",
  },
  "dry-run": { type: "boolean", default: false, description: "Print the plan; train and write nothing" },
} as const;

type Args = ParsedArgs<typeof ARGS>;

function recipeFrom(args: Args, records: number): TrainRecipe {
  const init = args["init-adapter"] ? adapterOptionsOf(readAdapter(args["init-adapter"])) : null;
  const method = methodNamed(args.method ?? init?.method.name ?? paper.method).name;
  refuseFactorFlags(args, method);
  const rank = wholeFlag(args, "rank", 1) ?? init?.rank ?? paper.rank;
  const batch = wholeFlag(args, "batch", 1) ?? paper.batch;
  const steps = wholeFlag(args, "steps", 1) ?? null;
  const quantize = quantizeFlag(args);
  const epochs = numberFlag(args, "epochs", { min: 0 }) ?? paper.epochs;
  const length = steps ?? Math.max(1, Math.floor((epochs * records) / batch));
  return {
    method,
    rank,
    alpha: numberFlag(args, "alpha", { min: 0 }) ?? init?.alpha ?? 2 * rank,
    dropout: numberFlag(args, "dropout", { min: 0, max: 0.99 }) ?? (method === "full" ? 0 : paper.dropout),
    targets: listFlag(args, "targets") ?? init?.targets ?? paper.targets,
    learningRate: numberFlag(args, "lr", { min: 0 }) ?? paper.learningRate,
    schedule: choiceFlag(args, "schedule", scheduleNames) ?? paper.schedule,
    warmup: wholeFlag(args, "warmup", 0) ?? Math.min(paper.warmup, Math.floor(length / 10)),
    scheduleSteps: wholeFlag(args, "schedule-steps", 1) ?? null,
    optimizer,
    batch,
    microBatch: wholeFlag(args, "micro-batch", 1) ?? (batch % paper.microBatch === 0 ? paper.microBatch : 1),
    lossMean: choiceFlag(args, "loss-mean", ["token", "micro"])!,
    lossOn: choiceFlag(args, "loss-on", ["all", "response"])!,
    cutoff: wholeFlag(args, "cutoff", 2) ?? paper.cutoff,
    epochs,
    steps,
    evalEvery: wholeFlag(args, "eval-every", 1) ?? paper.evalEvery,
    valSize: wholeFlag(args, "val-size", 0) ?? Math.min(paper.valSize, Math.floor(records / 10)),
    seed: wholeFlag(args, "seed", 0) ?? paper.seed,
    shuffle: args.shuffle,
    prompt: args.prompt ?? paper.prompt,
    compute: choiceFlag(args, "compute", COMPUTE_TYPES)!,
    ...(quantize ? { quantize } : {}),
  };
}

/** Full fine-tuning has no factors: a flag about them would be obeyed by nothing. */
function refuseFactorFlags(args: Args, method: MethodName): void {
  const given = (["rank", "alpha", "targets"] as const).filter((name) => args[name] !== undefined);
  if (method === "full" && given.length > 0) {
    throw new InputError(
      `${given.map((name) => `--${name}`).join(", ")}: method full trains every weight and has none of these; leave them out, or choose another --method.`,
    );
  }
}

function avoidedIndices(method: MethodName): AvoidedIndices | null {
  const folders = repeatedFlag("avoid-indices-of");
  return folders.length > 0 ? indicesOf(folders.map(readAdapter), method) : null;
}

async function main(args: Args): Promise<void> {
  const modelDir = required(args, "model", "a Hugging Face model folder");
  const dataFile = required(args, "data", "a file of instruction records");
  const out = args["dry-run"] ? "" : required(args, "out", "a folder for the adapter");
  const saveAs = choiceFlag(args, "save-as", ["native", "peft"])!;
  const records = readInstructionRecords(dataFile);
  const chosen = recipeFrom(args, records.length);
  const avoid = avoidedIndices(chosen.method);
  const recipe = avoid ? { ...chosen, avoidIndices: hashIndices(avoid) } : chosen;
  const maxTokens = wholeFlag(args, "max-tokens", recipe.cutoff);
  const onNote = (text: string): void => console.error(`note: ${text}`);
  const input: RunInput = {
    modelDir,
    dataFile,
    records,
    recipe,
    recompute: args["checkpoint-activations"],
    onNote,
    ...(avoid ? { avoid } : {}),
    ...(maxTokens ? { maxTokens } : {}),
  };
  if (args["dry-run"]) return dryRun(args, input);

  // Everything that can be refused is, before the kernels are compiled or a weight is loaded.
  checkOut({ out, resume: args.resume, modelDir });
  if (args.resume && !existsSync(join(out, "checkpoint", "state.safetensors")))
    onNote(`${out} holds no checkpoint to resume; training starts from the beginning.`);
  const prepared = prepareRun(input);
  const stop = stopOnSignals();
  const device = await openCommandDevice(args);
  const line: { progress: Progress | null } = { progress: null };
  let foreseen = 0;
  try {
    const tuned = await fineTune({
      ...input,
      prepared,
      device,
      out,
      saveAs,
      resume: args.resume,
      ...(args["init-adapter"] ? { initAdapter: args["init-adapter"] } : {}),
      shouldStop: () => stop.signal !== null,
      onStart: (run, memory) => {
        describeRun(run, recipe, memory);
        foreseen = memory.total;
        showSamples(run, records);
      },
      onStep: (metrics, steps) => {
        const { step, loss, tokensPerSecond, validationLoss } = metrics;
        line.progress ??= startProgress("training", steps, "steps", step - 1);
        line.progress.update(step, `loss ${loss.toFixed(4)}, ${Math.round(tokensPerSecond)} tok/s`);
        if (validationLoss !== undefined) {
          line.progress.end(
            `step ${step}: loss ${loss.toFixed(4)}, validation loss ${validationLoss.toFixed(4)}`,
          );
        }
      },
    });
    line.progress?.end();
    report(tuned, recipe, out, foreseen);
    tuned.close();
  } finally {
    closeDevice(device);
  }
  if (stop.signal) process.exit(stop.signal === "SIGINT" ? 130 : 143);
}

/** The first signal asks for a stop between two steps, the second ends the process. */
function stopOnSignals(): { signal: "SIGINT" | "SIGTERM" | null } {
  const state: { signal: "SIGINT" | "SIGTERM" | null } = { signal: null };
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (state.signal) process.exit(name === "SIGINT" ? 130 : 143);
      state.signal = name;
      console.error(`\n${name}: saving after this step; once more to stop at once`);
    });
  }
  return state;
}

function report({ result, steps }: FineTuned, { method }: TrainRecipe, out: string, foreseen: number): void {
  const { finished, bestLoss, bestStep } = result;
  const best = bestLoss === null ? "last step" : `step ${bestStep}, validation loss ${bestLoss.toFixed(4)}`;
  console.log(`${method === "full" ? "model  " : "adapter"}  ${out} (${best})`);
  const most = mostResidentBytes();
  if (most !== null)
    say("memory", `${formatSize(most, "B")} at most, foreseen were ${formatSize(foreseen, "B")}`);
  if (finished) return;
  const command = commandLine();
  console.log(
    `stopped after step ${result.steps} of ${steps}; go on with\n  ${command.includes("--resume") ? command : `${command} --resume`}`,
  );
}

/** A line about the run, on stderr. */
function say(name: string, text: string): void {
  console.error(`${name.padEnd(9)} ${text}`);
}

function describeRun(run: PreparedRun, recipe: TrainRecipe, memory: MemoryForecast): void {
  const { config, plan, steps, train, validation, maxTokens } = run;
  const {
    method,
    rank,
    alpha,
    dropout,
    learningRate,
    schedule,
    warmup,
    batch,
    microBatch,
    lossMean,
    lossOn,
  } = recipe;
  say(
    "model",
    `${config.nameOrPath}, ${config.layers} layers${run.load.quantize ? " in 4 bits" : ""}, ${formatSize(plan.parameters)} parameters trained`,
  );
  say(
    "method",
    method === "full"
      ? "full, every weight"
      : `${method}, rank ${rank}, alpha ${alpha}, dropout ${dropout}, targets ${recipe.targets.join(",")}`,
  );
  say(
    "recipe",
    `lr ${learningRate} ${schedule}, warm-up ${warmup}, batch ${batch} (micro ${microBatch}), seed ${recipe.seed}`,
  );
  say(
    "loss",
    `on ${lossOn} tokens, mean by ${lossMean}, prompt ${recipe.prompt}, cutoff ${recipe.cutoff}, compute ${recipe.compute}`,
  );
  say(
    "data",
    `${train.length} records for training, ${validation.length} for validation, ${steps} steps, passes of ${maxTokens} tokens${
      plan.recompute ? ", activations made again block by block" : ""
    }`,
  );
  say("memory", memoryText(memory));
}

function memoryText({ weights, fixed, trainable, copies, total, ...rest }: MemoryForecast): string {
  const parts = {
    weights: weights + fixed,
    trained: trainable + copies,
    activations: rest.kept,
    scratch: rest.scratch + rest.workspace,
    "Bun and data": rest.process,
  };
  const text = Object.entries(parts).map(([name, bytes]) => `${name} ${formatSize(bytes, "B")}`);
  return `${formatSize(total, "B")} = ${text.join(" + ")}`;
}

/** Three records as the model sees them: the surest way to notice a wrong prompt or a doubled BOS. */
function showSamples({ train, tokenizer, prompt }: PreparedRun, records: readonly InstructionRecord[]): void {
  for (const { id, tokens, labelFrom } of train.slice(0, 3)) {
    const record = records[id]!;
    const text = JSON.stringify(prompt.train(record) + record.output);
    const short = text.length > 460 ? `${text.slice(0, 290)} … ${text.slice(-150)}` : text;
    const ids = [...tokens];
    const shown =
      ids.length > 16 ? `${ids.slice(0, 8).join(" ")} … ${ids.slice(-6).join(" ")}` : ids.join(" ");
    const last = tokenizer.token(ids.at(-1)!) ?? "?";
    console.error(
      `record ${id + 1}: ${short}\n  ${ids.length} tokens, learned from token ${labelFrom}: ${shown} (last: ${last})`,
    );
  }
}

async function dryRun(args: Args, input: RunInput): Promise<void> {
  const run = prepareRun(input);
  const device = await openCommandDevice(args);
  try {
    const memory = await forecastRun(device, run, input.recipe);
    describeRun(run, input.recipe, memory);
    showSamples(run, input.records);
    const secondsPerToken = measureTraining(device, input.modelDir, run, input.recipe);
    const { steps, tokensPerStep, validation, plan } = run;
    const held = validation.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const evaluations = Math.floor(steps / input.recipe.evalEvery);
    // A validation pass has no backward: about a third of the work.
    const tokens = steps * tokensPerStep + (evaluations * held) / 3;
    console.log(`steps     ${steps}`);
    console.log(`tokens    ${formatSize(steps * tokensPerStep)} (${Math.round(tokensPerStep)} a step)`);
    console.log(`trained   ${plan.parameters} parameters`);
    console.log(`memory    ${memoryText(memory)}`);
    console.log(`speed     ${Math.round(1 / secondsPerToken)} tokens/s, measured on one pass`);
    console.log(`expected  ${formatSeconds(secondsPerToken * tokens)} (${evaluations} validations included)`);
  } finally {
    closeDevice(device);
  }
}

await runCommand({
  name: "bun run scripts/train.ts",
  description: "Fine-tune a LLaMA-family model on instruction records.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
