/** One linear of a model with one adapter behind it: what Tables 1 and 2 count on. */
import { basename } from "node:path";
import type { Adapter, FactorShape, Method, Pass } from "../src/adapters/adapter.ts";
import { MERGE_ROWS } from "../src/adapters/draw.ts";
import { InputError } from "../src/errors.ts";
import { type LlamaConfig, readLlamaConfig } from "../src/formats/hf-config.ts";
import { openModelTensors, readTensorAsF32 } from "../src/formats/safetensors.ts";
import { type LinearName, type LinearShape, linearNames, linearShape } from "../src/model/shapes.ts";
import { peakBytes, withArena } from "../src/native/arena.ts";
import { allocatedBytes, type Device, reserve } from "../src/native/device.ts";
import { createTensor, freeTensor, type Tensor, zero } from "../src/native/tensor.ts";
import { createWeight, type Weight } from "../src/native/weight.ts";
import { type PaperModel, paperModels } from "./models.ts";
import type { PresetName } from "./recipes/table3.ts";
import { modelFolder, slug } from "./study.ts";

/** Which linear of which model; its weights are those of the folder, or zeros where there is none. */
export interface LayerSource {
  readonly modelName: string;
  readonly dir: string | null;
  readonly config: LlamaConfig;
  readonly shape: LinearShape;
  readonly linear: LinearName;
}

/** What the preset and the flags name. @throws InputError for an unknown linear, or where a model is missing */
export function layerSource(
  preset: PresetName,
  flags: { readonly model: string | null; readonly linear: string },
): LayerSource {
  const linear = linearNames.find((name) => name === flags.linear);
  if (!linear) {
    throw new InputError(`--linear is "${flags.linear}"; expected one of ${linearNames.join(", ")}.`);
  }
  // Counts depend on shapes alone: the paper's models need not be there.
  if (preset === "paper" && flags.model === null) {
    const modelName: PaperModel = "LLaMA-7B";
    const config = paperModels[modelName];
    return { modelName, dir: null, config, linear, shape: linearShape(config, 0, linear) };
  }
  const dir = modelFolder({ name: preset, model: "smollm2-135m" }, { model: flags.model });
  const config = readLlamaConfig(dir);
  const modelName = flags.model === null ? preset : slug(basename(dir));
  return { modelName, dir, config, linear, shape: linearShape(config, 0, linear) };
}

export function openWeight(device: Device, { dir, shape }: LayerSource): Weight {
  const { out, in: width } = shape;
  const name = `model.${shape.name}.weight`;
  const entry = dir === null ? null : openModelTensors(dir).get(name);
  if (entry === undefined) throw new InputError(`${dir}: there is no tensor ${name}.`);
  const data = entry === null ? new Float32Array(out * width) : readTensorAsF32(entry);
  return createWeight(device, { name, data, dtype: "f32", out, in: width, compute: "f32" });
}

/** Bytes that the library had given out after each part was made, less those before. */
export interface LayerBytes {
  readonly trained: number;
  readonly gradient: number;
  readonly frozen: number;
  readonly derived: number;
}

export interface OneLayer {
  readonly adapter: Adapter;
  readonly bytes: LayerBytes;
  /** What is done once an optimizer step. */
  prepare(device: Device, weight: Weight): void;
  free(): void;
}

const SCALING = 2;

/** An adapter as training makes it, its parts made one after the other so that each can be counted. */
export function attachOne(
  device: Device,
  source: LayerSource,
  weight: Weight,
  method: Method,
  rank: number,
): OneLayer {
  const { shape } = source;
  const site = { ...shape, rank, scaling: SCALING };
  reserve(device, {
    tokens: Math.max(rank, MERGE_ROWS),
    width: Math.max(shape.in, shape.out),
    rank,
    vocabulary: 0,
  });
  const made: Tensor[] = [];
  const make = (shapes: Record<string, FactorShape>): [Record<string, Tensor>, number] => {
    const before = allocatedBytes(device);
    const tensors = Object.fromEntries(
      Object.entries(shapes).map(([name, s]) => [name, createTensor(device, s.dtype, s.shape)]),
    );
    made.push(...Object.values(tensors));
    return [tensors, allocatedBytes(device) - before];
  };
  const [trainable, trained] = make(method.trainable(site));
  const [gradient, gradientBytes] = make(method.trainable(site));
  const [frozen, frozenBytes] = make(method.frozen(site));
  const [derived, derivedBytes] = make(method.derived(site));
  for (const tensor of [...Object.values(trainable), ...Object.values(gradient)]) zero(device, tensor);
  const adapter: Adapter = { site, method, trainable, gradient, frozen, derived };
  const prepare: OneLayer["prepare"] = (on, w) =>
    withArena(on, scratchBytes(site), (scratch) => method.prepare(on, adapter, w, scratch));
  method.initialise(device, adapter, weight, { seed: 42 });
  prepare(device, weight);
  return {
    adapter,
    bytes: { trained, gradient: gradientBytes, frozen: frozenBytes, derived: derivedBytes },
    prepare,
    free: () => {
      for (const tensor of made) freeTensor(device, tensor);
    },
  };
}

/** Enough for one linear's scratch at any step of it: a few matrices of its size and of its rank. */
const scratchBytes = ({ in: width, out, rank }: { in: number; out: number; rank: number }): number =>
  64 * 1024 + 32 * (width + out + rank) * (rank + MAX_TOKENS);

/** Tokens of the passes that are counted. */
const MAX_TOKENS = 16;

/** What a training pass over `tokens` tokens keeps for its backward, in bytes: the method's own, and the input if it asks for it. */
export interface PassBytes {
  readonly saved: number;
  readonly input: number;
}

/**
 * Forward and backward of one linear at p = 0 over `tokens` zero vectors, f32; `between` is called after each of the two.
 */
export function passOnce(
  device: Device,
  weight: Weight,
  { adapter }: OneLayer,
  tokens: number,
  between: (part: "forward" | "backward") => void = () => {},
): PassBytes {
  if (tokens > MAX_TOKENS) throw new Error(`${tokens} tokens, planned are ${MAX_TOKENS}`);
  const { site, method } = adapter;
  const zeros = (width: number): Tensor => {
    const tensor = createTensor(device, "f32", [tokens, width]);
    zero(device, tensor);
    return tensor;
  };
  const [x, y, dy, dx] = [zeros(site.in), zeros(site.out), zeros(site.out), zeros(site.in)];
  try {
    return withArena(device, scratchBytes(site), (kept) =>
      withArena(device, scratchBytes(site), (scratch) => {
        const pass: Pass = { device, compute: "f32", kept, scratch, dropout: null };
        const saved = method.forward(pass, adapter, weight, x, y, 0);
        between("forward");
        const bytes = { saved: peakBytes(kept), input: method.keepsInput ? 4 * tokens * site.in : 0 };
        method.backward(pass, adapter, weight, saved, method.keepsInput ? x : null, dy, dx, 0);
        between("backward");
        return bytes;
      }),
    );
  } finally {
    for (const tensor of [x, y, dy, dx]) freeTensor(device, tensor);
  }
}
