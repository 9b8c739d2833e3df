/**
 * Table 3, commonsense reasoning, as typed objects: the protocol's recipe to the letter (`paper`), and what has to
 * differ from it to mean something on a workstation (`small`) and on a laptop (`tiny`). `differs` is printed under the table.
 */
import type { MethodName } from "../../src/adapters/adapter.ts";
import type { Ruler } from "../../src/evaluation/run.ts";
import { paperRecipe, type TrainRecipe } from "../../src/training/recipe.ts";

export type PresetName = "tiny" | "small" | "paper";

/** How a cell is measured. */
export interface EvaluationRecipe {
  readonly tasks: readonly string[];
  readonly rulers: readonly Ruler[];
  readonly beams: number;
  /** Test records a task, from the file's beginning; null: all of them. */
  readonly limit: number | null;
  /** Most tokens of a generated answer; left out: the task's own limit. */
  readonly maxNewTokens?: number;
}

/** Methods trained at these ranks. */
export interface Group {
  readonly methods: readonly MethodName[];
  readonly ranks: readonly number[];
}

export interface Preset {
  readonly name: PresetName;
  /** Name of the model in file names and titles. */
  readonly model: string;
  /** Training file below the data folder. */
  readonly trainingFile: string;
  readonly groups: readonly Group[];
  readonly seeds: readonly number[];
  /** Method, rank and alpha are set by the cell: alpha = 2·rank, so s = 2 as in the paper. */
  readonly training: Omit<TrainRecipe, "method" | "rank" | "alpha">;
  readonly evaluation: EvaluationRecipe;
  /** What is not as in the protocol. */
  readonly differs: readonly string[];
  /** What of the paper this table can test, and what it cannot. */
  readonly tells: readonly string[];
}

/** s = alpha / rank, protocol §1.1. */
export const SCALING = 2;

/** The order of the paper's rows. */
export const tableMethods = [
  "lora",
  "dora",
  "oa",
  "lora-fa",
  "sbora-fa",
  "sbora-fb",
] as const satisfies MethodName[];

const tasks = [
  "boolq",
  "piqa",
  "social_i_qa",
  "hellaswag",
  "winogrande",
  "ARC-Easy",
  "ARC-Challenge",
  "openbookqa",
];

const { method: _method, rank: _rank, alpha: _alpha, ...protocol } = paperRecipe;

const paper: Preset = {
  name: "paper",
  model: "llama-7b",
  trainingFile: "commonsense_170k.json",
  groups: [{ methods: tableMethods, ranks: [32, 64] }],
  seeds: [42],
  training: protocol,
  evaluation: { tasks, rulers: ["generation"], beams: 4, limit: null },
  differs: [
    "the validation split is drawn by our generator (the protocol's is NumPy's); index draw, init and shuffles are seeded, the published ones were not",
    "arithmetic is f32 or bf16 with f32 factors, where the paper trained under fp16 autocast",
  ],
  tells: ["With the complete data and LLaMA-7B or LLaMA3-8B this is the paper's experiment."],
};

const small: Preset = {
  name: "small",
  model: "smollm2-135m",
  trainingFile: "commonsense_18k.json",
  groups: [
    { methods: tableMethods, ranks: [32] },
    { methods: ["sbora-fa"], ranks: [64] },
  ],
  seeds: [42],
  training: { ...protocol, learningRate: 1e-3, warmup: 30, steps: 300, evalEvery: 60, compute: "bf16" },
  evaluation: {
    tasks,
    rulers: ["generation", "options", "labels"],
    beams: 4,
    limit: 200,
  },
  differs: [
    "SmolLM2-135M in place of LLaMA-7B; 300 steps of 16 records of a 17,746-record mix in place of 10,643 steps of 170,420",
    "the mix holds BoolQ, ARC and OBQA only: PIQA, SIQA, WinoGrande and HellaSwag are formats never seen in training",
    "learning rate 1e-3 and 30 warm-up steps (the protocol's 2e-4 and 100 are meant for 7B and 10,643 steps)",
    "the first 200 test records of a task",
  ],
  tells: [
    "It can tell: trained parameters, time and memory of the methods on one model, how far each lowers the held-out loss in the same steps, and whether generated answers parse.",
    "It cannot tell how the methods rank at 7B: at this size generated answers are near chance, and one learning rate for all favours methods by the norm of their A (about 0.58 a row in LoRA, DoRA and LoRA-FA, 1 in OA and SBoRA). Run --lr with a second rate before reading an order into it.",
  ],
};

const tiny: Preset = {
  name: "tiny",
  model: "tiny",
  trainingFile: "tiny_mix.json",
  groups: [{ methods: tableMethods, ranks: [8] }],
  seeds: [42],
  training: {
    ...protocol,
    learningRate: 5e-3,
    warmup: 10,
    steps: 500,
    lossOn: "response",
    cutoff: 96,
    evalEvery: 50,
    valSize: 60,
  },
  evaluation: { tasks, rulers: ["generation", "options", "labels"], beams: 4, limit: 100 },
  differs: [
    "the model is the embedded one (0.7 M parameters), the data an invented world in the layouts of the eight task files",
    "rank 8, learning rate 5e-3, 500 steps of 16 records, cutoff 96, 100 test records a task",
    "every value has a fixed place among the options, so a label can be learned value by value; in the published sets the right option has to be found among shuffled ones",
    "the loss is taken on the response alone (the protocol's is on the prompt too): a model of this size has no room for both",
  ],
  tells: [
    "It can tell: that training, merging and evaluation of every method work from end to end, the methods' trained parameters and time a step, and on which tasks this toy has learned something.",
    "It cannot tell anything about accuracies at 7B: the columns carry the paper's names because the files have its layouts, the questions are made up.",
  ],
};

export const presets: Readonly<Record<PresetName, Preset>> = { tiny, small, paper };
