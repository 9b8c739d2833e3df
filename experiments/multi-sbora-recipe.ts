/**
 * Multi-SBoRA, the paper's future work (Eq. 2–3), as typed objects: which tasks are trained apart, with what, and how the
 * adapters alone and all of them merged are measured.
 */
import type { MethodName } from "../src/adapters/adapter.ts";
import { paperRecipe, type TrainRecipe } from "../src/training/recipe.ts";
import type { EvaluationRecipe } from "./recipes/table3.ts";

export type MultiPresetName = "tiny" | "small";

export interface MultiPreset {
  readonly name: MultiPresetName;
  /** Name of the model in file names and titles. */
  readonly model: string;
  /** One adapter each, merged in this order. */
  readonly tasks: readonly string[];
  readonly methods: readonly MethodName[];
  readonly rank: number;
  readonly seeds: readonly number[];
  readonly training: Omit<TrainRecipe, "method" | "rank" | "alpha" | "seed">;
  readonly evaluation: Omit<EvaluationRecipe, "tasks">;
  /** What this size can tell, and what it cannot. */
  readonly tells: readonly string[];
}

/**
 * How the indices of several SBoRA adapters were drawn: each avoiding those before it, or without knowing of them. Other
 * methods draw none.
 */
export type Draw = "disjoint" | "independent";

/** One adapter of a task. The j-th task's seed is the study's + 1000·j: people who train apart share no draw. */
export interface AdapterRecipe {
  readonly task: string;
  readonly training: TrainRecipe;
  /** Adapters whose indices it does not draw, by what decides their draw; each of them avoids those before it. */
  readonly avoids: readonly { readonly task: string; readonly seed: number }[];
}

export const SEED_STRIDE = 1000;

/** Everything that decides a cell's numbers. */
export interface MultiRecipe {
  readonly experiment: "multi-sbora";
  readonly preset: MultiPresetName;
  readonly draw: Draw | null;
  /** None: the base. One: alone. Several: merged in this order, each with weight 1. */
  readonly adapters: readonly AdapterRecipe[];
  readonly evaluation: EvaluationRecipe;
  /** Held-out training records of every measured task, split by this seed. */
  readonly heldOut: Readonly<Record<string, { readonly records: number; readonly seed: number }>>;
  readonly cutoff: number;
  readonly compute: TrainRecipe["compute"];
  readonly inputs: {
    /** Fingerprint of the base, SHA-256 of its tokenizer.json and of the prompt format's forms. */
    readonly base: string;
    readonly tokenizer: string;
    readonly prompt: string;
    /** SHA-256 of each task's training and test file; of a mix, `trained` records are the task's. */
    readonly tasks: Readonly<Record<string, { training: string; trained: number; test: string }>>;
  };
}

const { method: _method, rank: _rank, alpha: _alpha, seed: _seed, ...protocol } = paperRecipe;

/** Beyond every run: the last step's adapter is taken, so that the held-out records choose nothing and stay unseen. */
const NEVER = 1_000_000;

const tiny: MultiPreset = {
  name: "tiny",
  model: "tiny",
  tasks: ["piqa", "social_i_qa", "hellaswag"],
  methods: ["sbora-fa", "sbora-fb", "lora"],
  rank: 8,
  // How much a merge takes depends on the draw and on the luck of the runs: one seed would decide nothing.
  seeds: [42, 43, 44],
  training: {
    ...protocol,
    learningRate: 5e-3,
    warmup: 10,
    steps: 120,
    lossOn: "response",
    cutoff: 96,
    evalEvery: NEVER,
    valSize: 60,
  },
  evaluation: { rulers: ["generation"], beams: 4, limit: 100 },
  tells: [
    "It can tell: that adapters trained apart merge as merge.ts promises, which weights of the merged model belong to whom, and how far three adapters of one toy model disturb each other when they answer in it together.",
    "It cannot tell how much real tasks disturb each other in a model of billions of parameters, where r columns are a far smaller share of a matrix.",
  ],
};

const small: MultiPreset = {
  name: "small",
  model: "smollm2-135m",
  tasks: ["boolq", "ARC-Easy", "gsm8k"],
  methods: ["sbora-fa", "sbora-fb", "lora"],
  rank: 32,
  seeds: [42],
  training: {
    ...protocol,
    learningRate: 1e-3,
    warmup: 20,
    steps: 200,
    cutoff: 448,
    evalEvery: NEVER,
    compute: "bf16",
  },
  evaluation: { rulers: ["generation", "labels"], beams: 4, limit: 200 },
  tells: [
    "It can tell how much of what each adapter learned on real records is left in the held-out loss after the merge, and by likelihood of the labels where a task has them.",
    "It cannot tell much by generated answers: at this size they are near chance, so there is little to lose.",
  ],
};

export const multiPresets: Readonly<Record<MultiPresetName, MultiPreset>> = { tiny, small };
