/** Shapes of the paper's models, to count and plan with; nothing here loads a weight. */
import type { LlamaConfig } from "../src/formats/hf-config.ts";

const llama1: Omit<
  LlamaConfig,
  "hiddenSize" | "intermediateSize" | "layers" | "heads" | "kvHeads" | "nameOrPath"
> = {
  vocabSize: 32_000,
  headSize: 128,
  maxPositions: 2048,
  rmsNormEps: 1e-6,
  ropeTheta: 10_000,
  ropeScaling: null,
  tiedEmbeddings: false,
  bosTokenId: 1,
  eosTokenIds: [2],
  padTokenId: 0,
  torchDtype: "float16",
};

export const paperModels = {
  "LLaMA-7B": {
    ...llama1,
    hiddenSize: 4096,
    intermediateSize: 11_008,
    layers: 32,
    heads: 32,
    kvHeads: 32,
    nameOrPath: "yahma/llama-7b-hf",
  },
  "LLaMA-13B": {
    ...llama1,
    hiddenSize: 5120,
    intermediateSize: 13_824,
    layers: 40,
    heads: 40,
    kvHeads: 40,
    nameOrPath: "yahma/llama-13b-hf",
  },
  "LLaMA3-8B": {
    ...llama1,
    vocabSize: 128_256,
    hiddenSize: 4096,
    intermediateSize: 14_336,
    layers: 32,
    heads: 32,
    kvHeads: 8,
    maxPositions: 8192,
    rmsNormEps: 1e-5,
    ropeTheta: 500_000,
    bosTokenId: 128_000,
    eosTokenIds: [128_001],
    padTokenId: null,
    torchDtype: "bfloat16",
    nameOrPath: "meta-llama/Meta-Llama-3-8B",
  },
} as const satisfies Record<string, LlamaConfig>;

export type PaperModel = keyof typeof paperModels;
