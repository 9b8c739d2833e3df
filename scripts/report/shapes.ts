/**
 * What a cell or curve file must hold to be shown, as zod schemas: a results folder comes from other machines, other
 * versions, and editors. Everything that a chapter reads is checked here; what else a file holds goes into its manifest as it is.
 */
import { z } from "zod";
import { SCHEMA_VERSION } from "../../experiments/cell-file.ts";
import { setNames } from "../../experiments/recipes/table5.ts";
import { methodNames } from "../../src/adapters/adapter.ts";
import { mmluSplits } from "../../src/data/mmlu.ts";
import { InputError } from "../../src/errors.ts";
import { measures } from "../../src/evaluation/score.ts";
import { recipeHash } from "../../src/training/recipe.ts";

const preset = z.enum(["tiny", "small", "paper"]);
const count = z.int().min(0);
const hashes = z.record(z.string(), z.string());

const training = z.looseObject({
  method: z.enum(methodNames),
  rank: count,
  alpha: z.number(),
  seed: count,
  learningRate: z.number(),
  warmup: z.number(),
  steps: z.number().nullable(),
  compute: z.string(),
});

const manifest = z.looseObject({
  sbora: z.string(),
  commit: z.string().nullable(),
  bun: z.string(),
  platform: z.string(),
  processor: z.string(),
  isa: z.string(),
  data: hashes,
  model: z.looseObject({ name: z.string(), fingerprint: z.string() }),
});

const trained = z.looseObject({
  parameters: count,
  steps: count,
  bestStep: count,
  bestValidationLoss: z.number().nullable(),
  planned: z.looseObject({ weights: count, trainable: count, kept: count, scratch: count }),
});

const score = z.looseObject({
  correct: count,
  accuracy: z.number().min(0).max(100),
  standardError: z.number(),
});

const taskResult = z.looseObject({
  records: count,
  scores: z.partialRecord(z.enum(measures), score),
  parsed: z.number().nullable(),
  majority: z.looseObject({ label: z.string(), accuracy: z.number() }),
});

const heldOutLoss = z.looseObject({ unmerged: z.number(), merged: z.number() });

/** experiments/cell-file.ts */
export const cellShape = z.looseObject({
  recipe: z.looseObject({
    table: z.string(),
    preset,
    training: training.nullable(),
    evaluation: z.looseObject({ tasks: z.array(z.string()).min(1), limit: count.nullable(), beams: count }),
    heldOut: z.looseObject({ seed: count }),
  }),
  manifest: manifest.extend({ trained: trained.nullable() }),
  tasks: z.looseObject({
    sets: z.record(z.string(), taskResult.nullable()),
    heldOut: heldOutLoss.nullable(),
  }),
  timing: z.looseObject({
    command: z.string(),
    threads: count,
    trainSeconds: z.number(),
    stepSeconds: z.number(),
    tokensPerSecond: z.number(),
    evaluateSeconds: z.number(),
    finished: z.string(),
  }),
});

/** experiments/mmlu-cell-file.ts */
export const mmluShape = cellShape.extend({
  recipe: z.looseObject({
    preset,
    set: z.enum(setNames),
    training: training.nullable(),
    evaluation: z.looseObject({
      splits: z.array(z.enum(mmluSplits)),
      shots: count,
      limit: count.nullable(),
      maxTokens: count,
    }),
    heldOut: z.looseObject({ seed: count }),
    inputs: z.looseObject({ mmlu: z.record(z.string(), z.string().nullable()) }),
  }),
  tasks: z.looseObject({
    sets: z.record(
      z.string(),
      taskResult.extend({ labelNats: z.number(), spacedNats: z.number().nullable(), shortened: count }),
    ),
    heldOut: heldOutLoss.nullable(),
  }),
});

/** experiments/memory-study.ts */
export const curveShape = z.looseObject({
  recipe: z.looseObject({ figure: z.string(), preset, training, inputs: hashes }),
  manifest: manifest.extend({ parameters: count, steps: count }),
  timing: z.looseObject({
    command: z.string(),
    threads: count,
    seconds: z.number(),
    steps: z.array(z.number()).min(1),
    samples: z.array(z.tuple([z.number(), z.number()])),
    peak: z.number(),
    foreseen: z.number(),
    processorSeconds: z.number(),
    othersShare: z.number(),
    finished: z.string(),
  }),
});

/** How any file says that it was made; all that a page without a chapter of its own can show. */
export const madeShape = z.looseObject({ manifest });

export const predictionShape = z.looseObject({
  task: z.string(),
  record: count,
  label: z.string(),
});

export const lossShape = z.looseObject({
  step: count,
  loss: z.number(),
  validationLoss: z.number().optional(),
});

/** The part of an InputError that says what was found where; the first few are enough to see what a file is. */
const MOST_ISSUES = 3;

/** @throws InputError naming the file and the fields that are not as they should be */
export function checked<S extends z.ZodType>(shape: S, value: unknown, path: string): z.infer<S> {
  const { success, data, error } = shape.safeParse(value);
  if (success) return data;
  const found = error.issues.map(
    ({ path: at, message }) => `${at.join(".") || "the file"}: ${lower(message)}`,
  );
  const more = found.length > MOST_ISSUES ? `; and ${found.length - MOST_ISSUES} more` : "";
  throw new InputError(
    `${path}: not a whole result (${found.slice(0, MOST_ISSUES).join("; ")}${more}). ` +
      "Delete it and run its table again: finished cells are skipped, this one is made anew.",
  );
}

function lower(message: string): string {
  return message.slice(0, 1).toLowerCase() + message.slice(1);
}

/** @throws InputError where the recipe is not the one that the hash was taken of */
export function checkHash(
  file: { readonly schemaVersion?: unknown; readonly recipe: unknown; readonly recipeHash?: unknown },
  path: string,
): void {
  if (file.schemaVersion === SCHEMA_VERSION && recipeHash(file.recipe) === file.recipeHash) return;
  throw new InputError(
    `${path}: its recipe is not the one its hash was taken of; it was changed by hand or written by another version. ` +
      "Move it away, or make it again.",
  );
}
