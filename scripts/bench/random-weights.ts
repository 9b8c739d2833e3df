/** Made-up weights: the same values in memory, as a model folder, and on the reference. Seeded, finite, never denormal. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { bf16ToF32, bytesOf, f32ToBf16 } from "../../src/formats/half.ts";
import { type LlamaConfig, writeHfConfig } from "../../src/formats/hf-config.ts";
import { type TensorToWrite, writeSafetensors } from "../../src/formats/safetensors.ts";
import type { WeightSource } from "../../src/model/model.ts";
import { isQuantized, type Quantization, quantizedWeight } from "../../src/model/nf4.ts";
import { linearNames, linearShape } from "../../src/model/shapes.ts";
import type { Device } from "../../src/native/device.ts";
import { createWeight } from "../../src/native/weight.ts";

/** A prime, so that rows of the usual widths do not repeat soon. */
const POOL = 1_048_573;

const pools = new Map<number, Float32Array>();

/** Values of the bf16 kind in [-scale, scale), drawn once; everything is a window of them. */
function pool(scale: number): Float32Array {
  const known = pools.get(scale);
  if (known) return known;
  const made = scale === 1 ? draw() : pool(1).map((value) => value * scale);
  pools.set(scale, made);
  return made;
}

function draw(): Float32Array {
  let state = 1;
  const values = Float32Array.from({ length: POOL }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
  return bf16ToF32(f32ToBf16(values));
}

/** `count` values in [-scale, scale), bf16 numbers where scale is a power of two; another `seed`, another window. */
export function randomValues(count: number, seed: number, scale = 1): Float32Array {
  const source = pool(scale);
  const values = new Float32Array(count);
  let from = (seed * 7919) % POOL;
  for (let at = 0; at < count; from = 0) {
    const part = source.subarray(from, from + count - at);
    values.set(part, at);
    at += part.length;
  }
  return values;
}

/** A power of two that keeps the sums over `width` inputs near 1. */
function scaleFor(width: number): number {
  return 2 ** -Math.ceil(Math.log2(Math.sqrt(width)));
}

function seedOf(name: string): number {
  let hash = 17;
  for (const character of name) hash = (Math.imul(hash, 31) + character.charCodeAt(0)) >>> 0;
  return hash % POOL;
}

export function randomMatrix(name: string, out: number, width: number): Float32Array {
  return randomValues(out * width, seedOf(name), scaleFor(width));
}

/** For `buildLlama`: f32 compute holds f32 weights, bf16 compute bf16 ones, of the same values; or what they quantize to. */
export function randomSource(device: Device, quantize: Quantization | null = null): WeightSource {
  return {
    matrix(name, out, width, compute) {
      const values = randomMatrix(name, out, width);
      const data = compute === "bf16" ? f32ToBf16(values) : values;
      const source = { name, data, dtype: compute, out, in: width, compute };
      return quantize && isQuantized(name)
        ? quantizedWeight(device, source, quantize)
        : createWeight(device, source);
    },
    vector: (_name, size) => new Float32Array(size).fill(1),
  };
}

/** A model folder in bf16, without a tokenizer: what a child process or llama.cpp loads. */
export function writeRandomModel(dir: string, config: LlamaConfig): void {
  mkdirSync(dir, { recursive: true });
  writeHfConfig(dir, { ...config, torchDtype: "bfloat16" });
  const matrix = (name: string, out: number, width: number): TensorToWrite => ({
    name,
    dtype: "BF16",
    shape: [out, width],
    bytes: () => bytesOf(f32ToBf16(randomMatrix(name, out, width))),
  });
  const ones = (name: string): TensorToWrite => ({
    name,
    dtype: "BF16",
    shape: [config.hiddenSize],
    bytes: bytesOf(f32ToBf16(new Float32Array(config.hiddenSize).fill(1))),
  });
  const layers = Array.from({ length: config.layers }, (_, i) => [
    ...linearNames.map((name) => {
      const shape = linearShape(config, i, name);
      return matrix(`model.${shape.name}.weight`, shape.out, shape.in);
    }),
    ones(`model.layers.${i}.input_layernorm.weight`),
    ones(`model.layers.${i}.post_attention_layernorm.weight`),
  ]);
  const { vocabSize, hiddenSize, tiedEmbeddings } = config;
  writeSafetensors(join(dir, "model.safetensors"), [
    matrix("model.embed_tokens.weight", vocabSize, hiddenSize),
    ...(tiedEmbeddings ? [] : [matrix("lm_head.weight", vocabSize, hiddenSize)]),
    ...layers.flat(),
    ones("model.norm.weight"),
  ]);
}
