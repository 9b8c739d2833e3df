/** The flags of train.ts, and the recipe that they ask for. */
import type { ParsedArgs } from "citty";
import { type MethodName, methodNames } from "../src/adapters/adapter.ts";
import { doraNorms } from "../src/adapters/dora.ts";
import { methodNamed } from "../src/adapters/registry.ts";
import { readAdapter } from "../src/adapters/storage.ts";
import type { PieceLengths } from "../src/data/examples.ts";
import { promptFormats } from "../src/data/prompts/registry.ts";
import { InputError } from "../src/errors.ts";
import { adapterOptionsOf } from "../src/model/load-adapter.ts";
import { linearNames } from "../src/model/shapes.ts";
import { paperRecipe as paper, type TrainRecipe } from "../src/training/recipe.ts";
import { scheduleNames } from "../src/training/schedule.ts";
import {
  COMPUTE_TYPES,
  choiceFlag,
  deviceFlags,
  listFlag,
  numberFlag,
  quantizeFlag,
  quantizeFlags,
  wholeFlag,
} from "./arguments.ts";

export const TRAIN_ARGS = {
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
  "dora-norm": {
    type: "string",
    valueHint: doraNorms.join("|"),
    description:
      "DoRA divides by the norm of W + s·B·A, or of W + B·A as the official 4-bit code. Default: scaled",
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
  clip: {
    type: "string",
    valueHint: "NORM",
    description: `Longest gradient of a step; 0: as long as it is. Default: ${paper.optimizer.clip}`,
  },
  schedule: { type: "string", valueHint: scheduleNames.join("|"), description: `Default: ${paper.schedule}` },
  warmup: {
    type: "string",
    valueHint: "N",
    description: "Warm-up steps; schedule constant has none. Default: 100, at most a tenth of the run",
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
  "source-length": {
    type: "string",
    valueHint: "N",
    description:
      "With --target-length: prompt and reply are tokenized apart, and a prompt loses what is beyond N tokens",
  },
  "target-length": {
    type: "string",
    valueHint: "N",
    description: "Longest reply in tokens, its end included; the cutoff is the sum of both",
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
      "Start from this adapter (PEFT's layout too); method, rank, alpha, targets and DoRA's norm default to its own",
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

export type TrainArgs = ParsedArgs<typeof TRAIN_ARGS>;

/** What the flags ask for of a file of so many records; an adapter to start from decides what they leave open. */
export function recipeFrom(args: TrainArgs, records: number): TrainRecipe {
  const init = args["init-adapter"] ? adapterOptionsOf(readAdapter(args["init-adapter"])) : null;
  const method = methodNamed(args.method ?? init?.method.name ?? paper.method).name;
  const schedule = choiceFlag(args, "schedule", scheduleNames) ?? paper.schedule;
  refuseFactorFlags(args, method);
  refuseScheduleFlags(args, schedule);
  const rank = wholeFlag(args, "rank", 1) ?? init?.rank ?? paper.rank;
  const batch = wholeFlag(args, "batch", 1) ?? paper.batch;
  const steps = wholeFlag(args, "steps", 1) ?? null;
  const quantize = quantizeFlag(args);
  const lengths = lengthsFrom(args);
  const doraNorm = doraNormFrom(args, method, init?.method.norm);
  const epochs = numberFlag(args, "epochs", { min: 0 }) ?? paper.epochs;
  const length = steps ?? Math.max(1, Math.floor((epochs * records) / batch));
  return {
    method,
    rank,
    alpha: numberFlag(args, "alpha", { min: 0 }) ?? init?.alpha ?? 2 * rank,
    dropout: numberFlag(args, "dropout", { min: 0, max: 0.99 }) ?? (method === "full" ? 0 : paper.dropout),
    targets: listFlag(args, "targets") ?? init?.targets ?? paper.targets,
    learningRate: numberFlag(args, "lr", { min: 0 }) ?? paper.learningRate,
    schedule,
    warmup:
      wholeFlag(args, "warmup", 0) ??
      (schedule === "constant" ? 0 : Math.min(paper.warmup, Math.floor(length / 10))),
    scheduleSteps: wholeFlag(args, "schedule-steps", 1) ?? null,
    optimizer: { ...paper.optimizer, clip: numberFlag(args, "clip", { min: 0 }) ?? paper.optimizer.clip },
    batch,
    microBatch: wholeFlag(args, "micro-batch", 1) ?? (batch % paper.microBatch === 0 ? paper.microBatch : 1),
    lossMean: choiceFlag(args, "loss-mean", ["token", "micro"])!,
    lossOn: choiceFlag(args, "loss-on", ["all", "response"])!,
    cutoff: lengths ? lengths.source + lengths.target : (wholeFlag(args, "cutoff", 2) ?? paper.cutoff),
    epochs,
    steps,
    evalEvery: wholeFlag(args, "eval-every", 1) ?? paper.evalEvery,
    valSize: wholeFlag(args, "val-size", 0) ?? Math.min(paper.valSize, Math.floor(records / 10)),
    seed: wholeFlag(args, "seed", 0) ?? paper.seed,
    shuffle: args.shuffle,
    prompt: args.prompt ?? paper.prompt,
    compute: choiceFlag(args, "compute", COMPUTE_TYPES)!,
    ...(lengths ? { lengths } : {}),
    ...(doraNorm ? { doraNorm } : {}),
    ...(quantize ? { quantize } : {}),
  };
}

/** Full fine-tuning has no factors: a flag about them would be obeyed by nothing. */
function refuseFactorFlags(args: TrainArgs, method: MethodName): void {
  const given = (["rank", "alpha", "targets"] as const).filter((name) => args[name] !== undefined);
  if (method === "full" && given.length > 0) {
    throw new InputError(
      `${given.map((name) => `--${name}`).join(", ")}: method full trains every weight and has none of these; leave them out, or choose another --method.`,
    );
  }
}

/** A constant rate has neither a warm-up nor an end. */
function refuseScheduleFlags(args: TrainArgs, schedule: TrainRecipe["schedule"]): void {
  const given = (["warmup", "schedule-steps"] as const).filter((name) => args[name] !== undefined);
  if (schedule === "constant" && given.length > 0) {
    throw new InputError(
      `${given.map((name) => `--${name}`).join(", ")}: schedule constant has none; leave it out, or choose another --schedule.`,
    );
  }
}

/** Prompt and reply with a limit each (Table 5), or one for both together. */
function lengthsFrom(args: TrainArgs): PieceLengths | null {
  const [source, target] = [wholeFlag(args, "source-length", 1), wholeFlag(args, "target-length", 1)];
  if (source === undefined && target === undefined) return null;
  if (source === undefined || target === undefined) {
    const [given, missing] = source === undefined ? ["target", "source"] : ["source", "target"];
    throw new InputError(
      `--${given}-length is given without --${missing}-length; prompt and reply each need a limit, or both together --cutoff.`,
    );
  }
  if (args.cutoff !== undefined) {
    throw new InputError(
      `--cutoff: with --source-length ${source} and --target-length ${target} the longest record is their sum; leave it out.`,
    );
  }
  return { source, target };
}

/** A recipe names the norm where it is not the usual one. `init`: that of the adapter the run begins with. */
function doraNormFrom(
  args: TrainArgs,
  method: MethodName,
  init: TrainRecipe["doraNorm"],
): TrainRecipe["doraNorm"] {
  const norm = choiceFlag(args, "dora-norm", doraNorms);
  if (norm !== undefined && method !== "dora")
    throw new InputError(
      `--dora-norm: method ${method} has no such norm; leave it out, or add --method dora.`,
    );
  return (norm ?? init) === "unscaled" ? "unscaled" : undefined;
}
