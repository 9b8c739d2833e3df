/**
 * Everything about a run that can be known and refused before a weight is loaded: recipe against model, records as
 * token ids, split, number of steps, memory plan. `--dry-run` prints it, `fineTune` goes on from it.
 */
import { type AvoidedIndices, hashIndices } from "../adapters/avoid.ts";
import { methodInNorm } from "../adapters/registry.ts";
import type { TrainingExample } from "../data/batches.ts";
import { type EncodedRecords, encodeRecords, truncationWarning } from "../data/examples.ts";
import type { PromptFormat } from "../data/prompts/prompt.ts";
import { promptNamed } from "../data/prompts/registry.ts";
import type { InstructionRecord } from "../data/records.ts";
import { splitValidation } from "../data/split.ts";
import { InputError } from "../errors.ts";
import { type LlamaConfig, readLlamaConfig } from "../formats/hf-config.ts";
import { openModelTensors } from "../formats/safetensors.ts";
import type { LoadOptions } from "../model/model.ts";
import { isNf4Folder } from "../model/nf4.ts";
import type { AdapterOptions } from "../model/trainables.ts";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { runLength } from "./loop.ts";
import { type MemoryPlan, planTraining } from "./plan.ts";
import { checkRecipe, type TrainRecipe } from "./recipe.ts";

export interface RunInput {
  readonly modelDir: string;
  /** For messages. */
  readonly dataFile: string;
  /** All records of the file; one array a file, so that several runs of one process tokenize it once. */
  readonly records: readonly InstructionRecord[];
  readonly recipe: TrainRecipe;
  /** Most tokens of one packed pass; at least the cutoff. Part of what decides a run's bytes. */
  readonly maxTokens?: number;
  /** Activation checkpointing: less memory, more time, the same bytes; so it is no part of the recipe. */
  readonly recompute?: boolean;
  /** Indices that SBoRA must not draw; the recipe names their hash. */
  readonly avoid?: AvoidedIndices;
  /** Remarks for the user, one paragraph each. */
  readonly onNote?: (text: string) => void;
}

export interface PreparedRun {
  readonly config: LlamaConfig;
  readonly tokenizer: Tokenizer;
  readonly prompt: PromptFormat;
  readonly adapter: AdapterOptions;
  readonly load: LoadOptions;
  /** The base's linears are 4-bit, in its folder or by the recipe. */
  readonly fourBit: boolean;
  readonly train: readonly TrainingExample[];
  readonly validation: readonly TrainingExample[];
  /** Optimizer steps. */
  readonly steps: number;
  readonly maxTokens: number;
  /** Mean tokens of one optimizer step. */
  readonly tokensPerStep: number;
  readonly plan: MemoryPlan;
}

/** Enough rows to keep the products busy; more only costs memory. */
const PASS_TOKENS = 1024;
/** Positions for evaluation prompts with their answers: beyond the cutoff, and altogether where the model allows it. */
const GENERATED_POSITIONS = 512;
const USUAL_POSITIONS = 4096;
/** A checkpoint is read and written by whole tensors, and one array in JavaScript holds 4 GiB. */
const MOST_PARAMETERS = 2 ** 30;
const BYTES = { F32: 4, F16: 2, BF16: 2 } as const;

/** @throws InputError for whatever of recipe, model folder and records do not fit together. */
export function prepareRun(input: RunInput): PreparedRun {
  const { modelDir, recipe } = input;
  checkRecipe(recipe);
  const config = readLlamaConfig(modelDir);
  const stored4bit = isNf4Folder(modelDir);
  if (stored4bit && recipe.method === "full") {
    throw new InputError(
      `${modelDir}: its weights are 4-bit, and method full trains every weight; take the model it was quantized from, or another method.`,
    );
  }
  const prompt = promptNamed(recipe.prompt);
  const { rank, alpha, targets, seed, compute, cutoff } = recipe;
  const { avoid } = input;
  if ((avoid && hashIndices(avoid)) !== recipe.avoidIndices)
    throw new Error("the indices to avoid are not those that the recipe names");
  const method = methodInNorm(recipe.method, recipe.doraNorm);
  const adapter: AdapterOptions = { method, rank, alpha, targets, seed, ...(avoid ? { avoid } : {}) };
  const { quantize } = recipe;
  const load: LoadOptions = {
    ...{ compute, positions: positionsFor(config, cutoff) },
    ...(quantize ? { quantize } : {}),
  };
  const maxTokens = Math.max(cutoff, input.maxTokens ?? Math.min(PASS_TOKENS, recipe.batch * cutoff));
  const plan = planTraining(
    config,
    // Only planned so: the folder may have left linears in 16 bits (llm_int8_skip_modules), and they stay so.
    stored4bit && !quantize ? { ...load, quantize: "nf4" } : load,
    adapter,
    recipe.dropout,
    maxTokens,
    bytesPerWeight(modelDir, compute),
    input.recompute,
  );
  if (plan.parameters > MOST_PARAMETERS) {
    throw new InputError(
      `${modelDir}: method ${recipe.method} would train ${plan.parameters} parameters, at most ${MOST_PARAMETERS} fit a ` +
        `checkpoint; take a smaller model or rank, or another method.`,
    );
  }
  const tokenizer = loadTokenizer(modelDir);
  const { train, validation } = examplesOf(input, prompt, tokenizer, config);
  const steps = runLength(recipe, train.length);
  if (steps < 1) {
    throw new InputError(
      `${input.dataFile}: ${train.length} records for training and ${recipe.epochs} epochs give no optimizer step of ` +
        `${recipe.batch} records; give --steps, more epochs or more data.`,
    );
  }
  for (const note of remarks(recipe, steps, config, [...train, ...validation])) input.onNote?.(note);
  const tokens = train.reduce((sum, example) => sum + example.tokens.length, 0);
  const tokensPerStep = (tokens / train.length) * Math.min(recipe.batch, train.length);
  return {
    config,
    tokenizer,
    prompt,
    adapter,
    load,
    fourBit: stored4bit || quantize !== undefined,
    train,
    validation,
    steps,
    maxTokens,
    tokensPerStep,
    plan,
  };
}

/** What is allowed and hardly meant. */
function remarks(
  { schedule, warmup, scheduleSteps }: TrainRecipe,
  steps: number,
  config: LlamaConfig,
  examples: readonly TrainingExample[],
): string[] {
  const moving = schedule !== "constant";
  const long = examples.filter(({ tokens }) => tokens.length > config.maxPositions).length;
  return [
    ...(moving && warmup >= steps
      ? [
          `--warmup ${warmup} is as long as the run of ${steps} steps: the learning rate never reaches its peak.`,
        ]
      : []),
    ...(moving && scheduleSteps !== null && scheduleSteps < steps
      ? [
          `--schedule-steps ${scheduleSteps} ends before the run of ${steps} steps: the learning rate is 0 behind it.`,
        ]
      : []),
    ...(long > 0
      ? [`${long} records are longer than the ${config.maxPositions} positions the model was made for.`]
      : []),
  ];
}

/** Rows of the rotary table: what training needs, and room for evaluation prompts with their answers. */
export function positionsFor(config: LlamaConfig, cutoff = 0): number {
  return Math.max(cutoff + GENERATED_POSITIONS, Math.min(config.maxPositions, USUAL_POSITIONS));
}

/** @throws InputError for f16 weights under bf16 compute, which would drop three bits of them (settled 8) */
function bytesPerWeight(modelDir: string, compute: "f32" | "bf16"): number {
  const matrix = openModelTensors(modelDir).get("model.embed_tokens.weight");
  if (matrix?.dtype === "F16" && compute === "bf16") {
    throw new InputError(
      `${matrix.file}: the weights are F16 and --compute is bf16, which keeps three bits less of every weight; use ` +
        "--compute f32, or a bf16 copy of the model.",
    );
  }
  const stored = matrix ? BYTES[matrix.dtype as keyof typeof BYTES] : undefined;
  return compute === "bf16" ? 2 : (stored ?? 4);
}

function examplesOf(
  input: RunInput,
  prompt: PromptFormat,
  tokenizer: Tokenizer,
  config: LlamaConfig,
): { train: TrainingExample[]; validation: TrainingExample[] } {
  const { recipe, records, dataFile } = input;
  const { cutoff, lossOn, lengths } = recipe;
  if (records.length === 0) throw new InputError(`${dataFile}: holds no records.`);
  const split = splitValidation(records.length, recipe.valSize, recipe.seed);
  const eosId = tokenizer.eosId ?? config.eosTokenIds[0];
  if (eosId === undefined) {
    throw new InputError(
      `${input.modelDir}: neither tokenizer_config.json nor config.json names an end-of-text token (eos_token), which every ` +
        `training record ends with. Add eos_token to tokenizer_config.json.`,
    );
  }
  const limits = lengths ? [lengths.source, lengths.target] : [cutoff];
  const key = [tokenizer.sha256, tokenizer.bosId, eosId, prompt.name, ...limits, lossOn].join(" ");
  const encoded = encodedOnce(records, key, () =>
    encodeRecords(records, {
      encode: tokenizer.encode,
      prompt,
      bosId: tokenizer.bosId,
      eosId,
      cutoff,
      lossOn,
      lengths,
    }),
  );
  const foreign = encoded.examples.find(({ tokens }) => tokens.some((token) => token >= config.vocabSize));
  if (foreign) {
    throw new InputError(
      `${input.modelDir}: the tokenizer gives record ${foreign.id + 1} ids up to ${Math.max(...foreign.tokens)}, but config.json ` +
        `says vocab_size ${config.vocabSize}; tokenizer and weights do not belong together.`,
    );
  }
  const warning = truncationWarning(encoded, recipe);
  if (warning) input.onNote?.(`${dataFile}: ${warning}`);
  const pick = (ids: readonly number[]): TrainingExample[] => ids.map((id) => encoded.examples[id]!);
  const [train, validation] = [pick(split.train), pick(split.validation)];
  for (const [name, part] of Object.entries({ training: train, validation })) {
    if (part.length > 0 && part.every(({ tokens, labelFrom }) => labelFrom >= tokens.length)) {
      throw new InputError(
        `${dataFile}: all ${part.length} ${name} records are cut before their reply at ${cutoff} tokens, so there is nothing ` +
          `to learn from; use a larger --cutoff.`,
      );
    }
  }
  return { train, validation };
}

/** The last encoding of a file's records: runs of one process over the same file differ in method, rank and seed only. */
const encodings = new WeakMap<readonly InstructionRecord[], { key: string; encoded: EncodedRecords }>();

function encodedOnce(
  records: readonly InstructionRecord[],
  key: string,
  encode: () => EncodedRecords,
): EncodedRecords {
  const known = encodings.get(records);
  if (known?.key === key) return known.encoded;
  const encoded = encode();
  encodings.set(records, { key, encoded });
  return encoded;
}
