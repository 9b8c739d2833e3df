/**
 * Figures 3 and 4, memory against time while training (protocol §5), as typed objects: the arithmetic fine-tuning of §3.1
 * with nothing validated in between, for five methods at two ranks. The figures differ in the paper's model alone.
 */
import type { MethodName } from "../src/adapters/adapter.ts";
import { paperRecipe, type TrainRecipe } from "../src/training/recipe.ts";
import type { PresetName } from "./recipes/table3.ts";

export interface MemoryPreset {
  readonly name: PresetName;
  /** Name of the model in file names and titles. */
  readonly model: string;
  /** Training file below the data folder. */
  readonly trainingFile: string;
  readonly training: Omit<TrainRecipe, "method" | "rank" | "alpha">;
  /** Most tokens of one packed pass: what the saved activations are sized by. */
  readonly maxTokens: number;
  /** Milliseconds between two samples. */
  readonly period: number;
  /** What is not as in the protocol. */
  readonly differs: readonly string[];
}

export interface MemoryFigure {
  readonly name: "figure3" | "figure4";
  readonly number: 3 | 4;
  /** Of the paper. */
  readonly paperModel: string;
  readonly presets: Readonly<Record<PresetName, MemoryPreset>>;
}

/** In the paper's order of names; OA is not shown there. */
export const curveMethods = [
  "lora",
  "lora-fa",
  "dora",
  "sbora-fa",
  "sbora-fb",
] as const satisfies MethodName[];

/** Left panel, right panel. */
export const curveRanks = [64, 32] as const;

/** Optimizer steps of the paper's run. */
export const PAPER_STEPS = 3675;

const { method: _method, rank: _rank, alpha: _alpha, ...commonsense } = paperRecipe;

const protocol: MemoryPreset["training"] = {
  ...commonsense,
  epochs: 3,
  learningRate: 3e-4,
  batch: 8,
  microBatch: 4,
  // Nothing is held out: the curves show training alone.
  valSize: 0,
};

const onCpu = "resident memory of a process on the CPU in place of a graphics card's";

const tiny: MemoryPreset = {
  name: "tiny",
  model: "tiny",
  trainingFile: "tiny_math.json",
  training: { ...protocol, steps: 30, warmup: 3, batch: 32, cutoff: 96 },
  maxTokens: 2048,
  period: 50,
  differs: [
    "the embedded model (0.7 M parameters), so that Bun itself is most of what is seen; 30 steps of 32 records",
    onCpu,
  ],
};

const small: MemoryPreset = {
  name: "small",
  model: "smollm2-135m",
  trainingFile: "math_8k.json",
  training: { ...protocol, steps: 16, warmup: 2, compute: "bf16" },
  maxTokens: 1024,
  period: 1000,
  differs: [
    "SmolLM2-135M and the first 16 steps of 8 records of another mix (protocol §5's short form has 200), scaled to 3,675 steps",
    onCpu,
  ],
};

function presetsFor(model: string): MemoryFigure["presets"] {
  const paper: MemoryPreset = {
    name: "paper",
    model,
    trainingFile: "math_10k.json",
    training: protocol,
    maxTokens: 1024,
    period: 1000,
    differs: [onCpu],
  };
  return { tiny, small, paper };
}

export const figure3: MemoryFigure = {
  name: "figure3",
  number: 3,
  paperModel: "LLaMA-7B",
  presets: presetsFor("llama-7b"),
};

export const figure4: MemoryFigure = {
  name: "figure4",
  number: 4,
  paperModel: "LLaMA3-8B",
  presets: presetsFor("llama3-8b"),
};
