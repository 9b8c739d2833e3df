/**
 * Table 5, QSBoRA on MMLU, as typed objects: the protocol's recipe (§4) and what has to differ from it on a workstation
 * (`small`) and on a laptop (`tiny`). `differs` is printed under the table.
 */
import type { DoraNorm } from "../../src/adapters/dora.ts";
import type { MmluSplit } from "../../src/data/mmlu.ts";
import type { Overlong } from "../../src/evaluation/mmlu.ts";
import type { Quantization } from "../../src/model/nf4.ts";
import { adamwDefaults } from "../../src/training/optimizer.ts";
import type { TrainRecipe } from "../../src/training/recipe.ts";
import { type Group, type PresetName, tableMethods } from "./table3.ts";

/** What is trained on; the paper's columns in their order. */
export const setNames = ["alpaca", "flan-v2"] as const;
export type SetName = (typeof setNames)[number];

/** Alpha for every rank (protocol §4.2): s = 0.25 at rank 64, 0.125 at 128. */
export const ALPHA = 16;

export interface TrainingSet {
  readonly name: SetName;
  /** Where it may lie below the data folder; the first that is there. */
  readonly places: readonly string[];
  /** Rows that are drawn of a collection in FLAN's layout; null: a file of instruction records, all of them. */
  readonly sample: number | null;
  /** Method, rank, alpha and DoRA's norm are set by the cell. */
  readonly training: Omit<TrainRecipe, "method" | "rank" | "alpha" | "doraNorm" | "quantize"> &
    Required<Pick<TrainRecipe, "lengths">>;
}

/** Of the rows that are drawn of a collection, whatever seed trains on them. */
export const SAMPLE_SEED = 42;

export interface MmluEvaluation {
  readonly splits: readonly MmluSplit[];
  readonly shots: number;
  /** Questions a subject, from the file's beginning; null: all of them. */
  readonly limit: number | null;
  /** Longest prompt; a model of fewer positions has as many. */
  readonly maxTokens: number;
  readonly overlong: Overlong;
  /** null: all that are there. */
  readonly subjects: readonly string[] | null;
}

export interface MmluPreset {
  readonly name: PresetName;
  /** Name of the model in file names and titles. */
  readonly model: string;
  readonly quantize: Quantization;
  readonly sets: readonly TrainingSet[];
  readonly groups: readonly Group[];
  readonly seeds: readonly number[];
  /** The official 4-bit code's is unscaled (protocol §1.9). */
  readonly doraNorm: DoraNorm;
  /** Activations are made again block by block (protocol §4.1): less memory, more time, the same bytes. */
  readonly recompute: boolean;
  readonly evaluation: MmluEvaluation;
  /** What is not as in the protocol. */
  readonly differs: readonly string[];
  /** What of the paper this table can test, and what it cannot. */
  readonly tells: readonly string[];
}

/** The paper's rows: all six methods at 64, its own at 128. */
const groups: readonly Group[] = [
  { methods: tableMethods, ranks: [64] },
  { methods: ["sbora-fa", "sbora-fb"], ranks: [128] },
];

/** Protocol §4.2, the batch sizes of the paper. */
const protocol: TrainingSet["training"] = {
  dropout: 0,
  targets: ["all-linear"],
  learningRate: 2e-4,
  schedule: "constant",
  warmup: 0,
  scheduleSteps: null,
  optimizer: { ...adamwDefaults, clip: 0.3 },
  batch: 16,
  microBatch: 4,
  lossMean: "micro",
  lossOn: "response",
  cutoff: 384 + 128,
  lengths: { source: 384, target: 128 },
  epochs: 1,
  steps: 10_000,
  evalEvery: 2000,
  valSize: 1024,
  seed: 42,
  shuffle: true,
  prompt: "alpaca",
  compute: "f32",
};

const alpaca: TrainingSet = {
  name: "alpaca",
  places: ["alpaca_data.json", "alpaca/alpaca_data.json", "ft-training_set/alpaca_data.json"],
  sample: null,
  training: protocol,
};

const flan: TrainingSet = {
  name: "flan-v2",
  places: ["flan2022", "flan/flan2022", "flan2022.jsonl"],
  sample: 50_000,
  training: { ...protocol, batch: 8, steps: 20_000, prompt: "plain" },
};

/** A preset's changes of the training of both sets. */
function changed(set: TrainingSet, changes: Partial<TrainingSet["training"]>): TrainingSet {
  return { ...set, training: { ...set.training, ...changes } };
}

const paper: MmluPreset = {
  name: "paper",
  model: "llama-7b",
  quantize: "nf4-double",
  sets: [alpaca, flan],
  groups,
  seeds: [42],
  doraNorm: "unscaled",
  recompute: true,
  evaluation: {
    ...{ splits: ["val", "test"], shots: 5, limit: null, subjects: null },
    ...{ maxTokens: 2048, overlong: "cut" },
  },
  differs: [
    "the held-out records are drawn by our generator (the protocol's split is NumPy's), and all 1,024 are measured; index draw, init and shuffles are seeded, the published ones were not",
    "records are not grouped by length: ours are packed without padding, so it would save nothing",
    "QLoRA-FA's A is uniform as in the 16-bit experiments (the published 4-bit code can also draw it from N(0,1), and does not say which it used)",
    "the adapter of the last step is asked, once (the published code asks every 2,000 steps and does not say which it reports)",
  ],
  tells: ["With the complete data and LLaMA-7B, LLaMA-13B or LLaMA3-8B this is the paper's experiment."],
};

const small: MmluPreset = {
  ...paper,
  name: "small",
  recompute: false,
  model: "smollm2-135m",
  sets: [
    changed(
      { ...alpaca, places: ["alpaca/alpaca_en_demo.json", "alpaca_en_demo.json"] },
      { learningRate: 1e-3, steps: 80, evalEvery: 20, valSize: 100, compute: "bf16" },
    ),
    changed(
      { ...flan, sample: 2000 },
      { learningRate: 1e-3, steps: 160, evalEvery: 40, valSize: 100, compute: "bf16" },
    ),
  ],
  evaluation: { ...paper.evaluation, limit: 20, overlong: "fewer-shots" },
  differs: [
    "SmolLM2-135M in place of LLaMA-7B, computing in bf16; 80 steps of 16 Alpaca records out of 899 (FLAN v2: 160 of 8 out of 1,900) in place of 10,000 out of 50,978 (20,000 out of 48,976)",
    "learning rate 1e-3 (the protocol's 2e-4 is meant for 7B and 10,000 steps)",
    "the first 20 questions of every subject that is there; a prompt beyond 2,048 tokens loses its last shots (the published code cuts its end off, the question with it)",
    "the tokenizer puts no BOS in front of a text, where LLaMA's does",
    ...paper.differs,
  ],
  tells: [
    "It can tell: that every method trains on, is asked on and merges into one NF4 base, trained parameters, time and memory, and how far each lowers the loss of held-out replies in the same steps.",
    "It cannot tell how the methods rank on MMLU at 7B: a model of this size answers near chance (25 %), and one learning rate for all favours methods by the norm of their A (about 0.58 a row in LoRA, DoRA and LoRA-FA, 1 in OA and SBoRA). Run --lr with a second rate before reading an order into it.",
  ],
};

/** The toy's: every record is read about twice. */
const tinyChanges = {
  learningRate: 5e-3,
  cutoff: 160 + 32,
  lengths: { source: 160, target: 32 },
  evalEvery: 20,
  valSize: 60,
} as const;

const tiny: MmluPreset = {
  ...paper,
  name: "tiny",
  recompute: false,
  model: "tiny",
  sets: [
    changed({ ...alpaca, places: ["tiny_alpaca.json"] }, { ...tinyChanges, steps: 100 }),
    changed({ ...flan, places: ["tiny_flan.jsonl"], sample: 5000 }, { ...tinyChanges, steps: 250 }),
  ],
  groups: [
    { methods: tableMethods, ranks: [8] },
    { methods: ["sbora-fa", "sbora-fb"], ranks: [16] },
  ],
  evaluation: { ...paper.evaluation, limit: 20, maxTokens: 512, overlong: "fewer-shots" },
  differs: [
    "the model is the embedded one (0.7 M parameters), the records and the questions are the tiny world's in the layouts of Alpaca, FLAN v2 and MMLU",
    "ranks 8 and 16 (s = 2 and 1), learning rate 5e-3, 100 steps of 16 and 250 of 8 records, prompts of at most 160 and replies of at most 32 tokens, the first 20 questions a subject",
    ...paper.differs,
  ],
  tells: [
    "It can tell: that quantizing, training, asking with five shots and merging of every method work from end to end, and the methods' trained parameters and time a step.",
    "It cannot tell anything about MMLU at 7B: the subjects are made up.",
  ],
};

export const mmluPresets: Readonly<Record<PresetName, MmluPreset>> = { tiny, small, paper };
