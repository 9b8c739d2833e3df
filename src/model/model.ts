/** A LLaMA in native memory: frozen weights, norm weights, rotary table. Holds no activations and no training state. */
import type { Compute } from "../adapters/adapter.ts";
import { InputError } from "../errors.ts";
import { type LlamaConfig, readLlamaConfig } from "../formats/hf-config.ts";
import { findNf4 } from "../formats/nf4.ts";
import { openModelTensors, readTensorAsF32, type TensorEntry } from "../formats/safetensors.ts";
import type { Device } from "../native/device.ts";
import { mapFile } from "../native/mapping.ts";
import { type RopeTable, ropeTable } from "../native/ops/index.ts";
import { createTensor, freeTensor, type Tensor, writeF32 } from "../native/tensor.ts";
import { createWeight, freeWeight, type Weight } from "../native/weight.ts";
import type { Linear } from "./linear.ts";
import { isQuantized, type Quantization, quantizedWeight, storedNf4Weight } from "./nf4.ts";
import { type LinearName, linearNames, linearShape } from "./shapes.ts";

export interface Layer {
  readonly linears: Readonly<Record<LinearName, Linear>>;
  /** [H] */
  inputNorm: Tensor;
  /** [H] */
  postNorm: Tensor;
}

export interface Llama {
  readonly device: Device;
  readonly config: LlamaConfig;
  readonly compute: Compute;
  /** [V,H]; also the head where embeddings are tied. */
  readonly embedding: Weight;
  readonly head: Weight;
  readonly layers: readonly Layer[];
  finalNorm: Tensor;
  readonly rope: RopeTable;
}

/** Where the weights come from: a model folder, or made up (tests, benchmarks). */
export interface WeightSource {
  /** A matrix [out,in] under its Hugging Face name, given to the device. */
  matrix(name: string, out: number, width: number, compute: Compute): Weight;
  /** A vector as f32. */
  vector(name: string, size: number): Float32Array;
}

export interface LoadOptions {
  readonly compute: Compute;
  /** Positions of the rotary table: the longest sequence that will be seen. */
  readonly positions: number;
  /** Quantizes the blocks' linears while they are loaded; those that are 4-bit in the folder stay as they are. */
  readonly quantize?: Quantization;
}

/** Builds the model from any source; when that fails, what was made of it is freed. */
export function buildLlama(
  device: Device,
  config: LlamaConfig,
  source: WeightSource,
  options: LoadOptions,
): Llama {
  const made: (() => void)[] = [];
  try {
    return assemble(device, config, source, options, made);
  } catch (error) {
    for (const free of made) free();
    throw error;
  }
}

/** `made` gets what frees each part. */
function assemble(
  device: Device,
  config: LlamaConfig,
  source: WeightSource,
  { compute, positions }: LoadOptions,
  made: (() => void)[],
): Llama {
  const { hiddenSize: H, vocabSize: V, headSize } = config;
  const tensorOf = (...shape: number[]): Tensor => {
    const tensor = createTensor(device, "f32", shape);
    made.push(() => freeTensor(device, tensor));
    return tensor;
  };
  const vector = (name: string): Tensor => {
    const tensor = tensorOf(H);
    writeF32(device, tensor, source.vector(name, H));
    return tensor;
  };
  const matrix = (name: string, out: number, width: number): Weight => {
    const weight = source.matrix(name, out, width, compute);
    made.push(() => freeWeight(device, weight));
    return weight;
  };
  const embedding = matrix("model.embed_tokens.weight", V, H);
  const head = config.tiedEmbeddings ? embedding : matrix("lm_head.weight", V, H);
  const layers = Array.from({ length: config.layers }, (_, i) => ({
    linears: Object.fromEntries(
      linearNames.map((name) => {
        const shape = linearShape(config, i, name);
        const weight = matrix(`model.${shape.name}.weight`, shape.out, shape.in);
        return [name, { weight, adapter: null }];
      }),
    ) as Record<LinearName, Linear>,
    inputNorm: vector(`model.layers.${i}.input_layernorm.weight`),
    postNorm: vector(`model.layers.${i}.post_attention_layernorm.weight`),
  }));
  const finalNorm = vector("model.norm.weight");
  const half = headSize / 2;
  const rope = {
    cosine: tensorOf(positions, half),
    sine: tensorOf(positions, half),
  };
  ropeTable(device, { positions, headSize, theta: config.ropeTheta, scaling: config.ropeScaling }, rope);
  return { device, config, compute, embedding, head, layers, finalNorm, rope };
}

/** Loads a Hugging Face model folder; weights are mapped from the files, never copied through JavaScript. */
export function loadLlama(device: Device, dir: string, options: LoadOptions): Llama {
  const config = readLlamaConfig(dir);
  return buildLlama(device, config, folderSource(device, dir, options.quantize ?? null), options);
}

const MATRIX_DTYPES = { F32: "f32", F16: "f16", BF16: "bf16" } as const;

function folderSource(device: Device, dir: string, quantize: Quantization | null): WeightSource {
  const tensors = openModelTensors(dir);
  const entry = (name: string, shape: readonly number[]): TensorEntry => {
    const found = tensors.get(name);
    if (!found) {
      throw new InputError(
        `${dir}: tensor ${name} is missing; the config asks for it with shape [${shape.join(", ")}]`,
      );
    }
    if (found.shape.join() !== shape.join()) {
      throw new InputError(
        `${found.file}: tensor ${name} has shape [${found.shape.join(", ")}], but config.json asks for [${shape.join(", ")}]`,
      );
    }
    return found;
  };
  return {
    matrix(name, out, width, compute) {
      const packed = isQuantized(name) ? findNf4(tensors, name) : null;
      if (packed) {
        return withMapped(packed.codes, (codes) =>
          storedNf4Weight(device, packed, codes, [out, width], compute),
        );
      }
      const tensor = entry(name, [out, width]);
      const dtype = MATRIX_DTYPES[tensor.dtype as keyof typeof MATRIX_DTYPES];
      if (!dtype) {
        throw new InputError(`${tensor.file}: tensor ${name} is ${tensor.dtype}; expected F32, F16 or BF16`);
      }
      return withMapped(tensor, (data) => {
        const made = { name: `${tensor.file}: tensor ${name}`, data, dtype, out, in: width, compute };
        return quantize && isQuantized(name)
          ? quantizedWeight(device, made, quantize)
          : createWeight(device, made);
      });
    },
    vector(name, size) {
      const values = readTensorAsF32(entry(name, [size]));
      const bad = values.findIndex((v) => !Number.isFinite(v));
      if (bad >= 0)
        throw new InputError(
          `${dir}: tensor ${name} holds ${values[bad]} at element ${bad}; expected finite values`,
        );
      return values;
    },
  };
}

/** Maps the file for one tensor only: its pages are let go before the next, and no model lies in memory twice. */
function withMapped<T>({ file, start, end }: TensorEntry, use: (data: { address: number }) => T): T {
  const mapping = mapFile(file);
  try {
    if (mapping.bytes < end)
      throw new InputError(`${file}: became shorter while it was read; load it again.`);
    return use({ address: mapping.address + start });
  } finally {
    mapping.close();
  }
}

export function freeLlama(model: Llama): void {
  const { device } = model;
  if (model.head !== model.embedding) freeWeight(device, model.head);
  freeWeight(device, model.embedding);
  for (const layer of model.layers) {
    for (const name of linearNames) freeWeight(device, layer.linears[name].weight);
    freeTensor(device, layer.inputNorm);
    freeTensor(device, layer.postNorm);
  }
  freeTensor(device, model.finalNorm);
  freeTensor(device, model.rope.cosine);
  freeTensor(device, model.rope.sine);
}
