/** Models that are measured without a download: the shapes the targets are about. */
import type { LlamaConfig } from "../../src/formats/hf-config.ts";
import { type LinearShape, linearNames, linearShape } from "../../src/model/shapes.ts";

/** `tiny` only shows that the instrument works. */
export const shapeNames = ["smollm2", "llama-7b", "llama3-8b", "tiny"] as const;
export type ShapeName = (typeof shapeNames)[number];

const common = {
  rmsNormEps: 1e-5,
  ropeScaling: null,
  bosTokenId: 1,
  eosTokenIds: [2],
  padTokenId: 2,
  torchDtype: "bfloat16",
} as const;

const shapes: Record<ShapeName, LlamaConfig> = {
  smollm2: {
    ...common,
    nameOrPath: "smollm2",
    vocabSize: 49152,
    hiddenSize: 576,
    intermediateSize: 1536,
    layers: 30,
    heads: 9,
    kvHeads: 3,
    headSize: 64,
    maxPositions: 8192,
    ropeTheta: 100_000,
    tiedEmbeddings: true,
  },
  "llama-7b": {
    ...common,
    nameOrPath: "llama-7b",
    vocabSize: 32000,
    hiddenSize: 4096,
    intermediateSize: 11008,
    layers: 32,
    heads: 32,
    kvHeads: 32,
    headSize: 128,
    maxPositions: 2048,
    ropeTheta: 10_000,
    tiedEmbeddings: false,
  },
  "llama3-8b": {
    ...common,
    nameOrPath: "llama3-8b",
    vocabSize: 128256,
    hiddenSize: 4096,
    intermediateSize: 14336,
    layers: 32,
    heads: 32,
    kvHeads: 8,
    headSize: 128,
    maxPositions: 8192,
    ropeTheta: 500_000,
    tiedEmbeddings: false,
  },
  tiny: {
    ...common,
    nameOrPath: "tiny",
    vocabSize: 509,
    hiddenSize: 64,
    intermediateSize: 160,
    layers: 2,
    heads: 4,
    kvHeads: 2,
    headSize: 16,
    maxPositions: 2048,
    ropeTheta: 10_000,
    tiedEmbeddings: true,
  },
};

/** The shape with its first `layers` layers (all where it has fewer, or none is said). */
export function shapeConfig(name: ShapeName, layers = Number.POSITIVE_INFINITY): LlamaConfig {
  const config = shapes[name];
  return { ...config, layers: Math.min(layers, config.layers) };
}

/** The named shape with these widths. */
export function shapeOf(config: LlamaConfig): ShapeName | null {
  const widths = ({
    vocabSize,
    hiddenSize,
    intermediateSize,
    heads,
    kvHeads,
    headSize,
  }: LlamaConfig): string => [vocabSize, hiddenSize, intermediateSize, heads, kvHeads, headSize].join();
  return shapeNames.find((name) => widths(shapes[name]) === widths(config)) ?? null;
}

/** The seven matrices of a layer. */
export function layerMatrices(config: LlamaConfig): LinearShape[] {
  return linearNames.map((name) => linearShape(config, 0, name));
}

/** Weights of a layer's matrices. */
export function layerElements(config: LlamaConfig): number {
  return layerMatrices(config).reduce((sum, m) => sum + m.in * m.out, 0);
}
