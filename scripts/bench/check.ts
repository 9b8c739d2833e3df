/** Before anything is timed: the same computation on the reference, small enough for scalar code. */
import type { Compute } from "../../src/adapters/adapter.ts";
import { methodNamed } from "../../src/adapters/registry.ts";
import type { LlamaConfig } from "../../src/formats/hf-config.ts";
import { scoreContinuations } from "../../src/generation/likelihood.ts";
import { buildLlama, freeLlama } from "../../src/model/model.ts";
import { type Quantization, quantizedWeight } from "../../src/model/nf4.ts";
import { widestFeature } from "../../src/model/shapes.ts";
import { trainPass } from "../../src/model/train-pass.ts";
import { attachTrainables, freeTrainables, prepareTrainables } from "../../src/model/trainables.ts";
import { createArena, freeArena } from "../../src/native/arena.ts";
import { closeDevice, type Device, openDevice, reserve } from "../../src/native/device.ts";
import { linearBackward, linearForward, matmul } from "../../src/native/ops/index.ts";
import { createTensor, freeTensor, readF32, sizeOf, type Tensor, writeF32 } from "../../src/native/tensor.ts";
import { createWeight, freeWeight } from "../../src/native/weight.ts";
import { planTraining } from "../../src/training/plan.ts";
import { fixedBatch } from "./batch.ts";
import type { StepMethod } from "./options.ts";
import { randomMatrix, randomSource, randomValues } from "./random-weights.ts";
import { addCheck, type Report } from "./report.ts";
import { layerMatrices } from "./shapes.ts";

/** Both round operands alike, so that a product differs by the order of its sums; a pass also rounds what it saves. */
const PRODUCT_TOLERANCE = { f32: 1e-5, bf16: 1e-5 };
const PASS_TOLERANCE = { f32: 1e-4, bf16: 5e-2 };
const ROWS = 3;
const CHECK_RANK = 8;
const CHECK_TOKENS = 6;
const CHECK_VOCABULARY = 1024;

/** Largest difference relative to the largest magnitude of `expected`. NaN where one of them is. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length)
    throw new Error(`${actual.length} values against ${expected.length}`);
  let most = 0;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    most = Math.max(most, Math.abs(expected[i]!));
    worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!));
  }
  return most === 0 ? worst : worst / most;
}

/** Runs `body` on the device and on the reference. */
async function onBoth<T>(
  device: Device,
  body: (device: Device) => T | Promise<T>,
): Promise<{ ours: T; reference: T }> {
  const reference = await openDevice({ library: "reference", threads: 1 });
  try {
    return { ours: await body(device), reference: await body(reference) };
  } finally {
    closeDevice(reference);
  }
}

/** Forward, input gradient and factor gradient on every matrix of a layer. */
export async function checkProducts(
  report: Report,
  device: Device,
  config: LlamaConfig,
  compute: Compute,
  quantize: Quantization | null = null,
): Promise<void> {
  const seen = new Set<string>();
  for (const { in: width, out } of layerMatrices(config)) {
    const shape = `${width}->${out}`;
    if (seen.has(shape)) continue;
    seen.add(shape);
    const { ours, reference } = await onBoth(device, (on) => products(on, width, out, compute, quantize));
    for (const [what, expected] of Object.entries(reference)) {
      addCheck(report, {
        name: `${config.nameOrPath} ${quantize ?? compute} ${what} ${shape}`,
        error: relativeError(ours[what as keyof typeof ours], expected),
        tolerance: PRODUCT_TOLERANCE[compute],
      });
    }
  }
}

function products(
  device: Device,
  width: number,
  out: number,
  compute: Compute,
  quantize: Quantization | null,
): Record<"forward" | "backward" | "factor", Float32Array> {
  reserve(device, {
    tokens: Math.max(ROWS, out),
    width: Math.max(width, out),
    rank: CHECK_RANK,
    vocabulary: 0,
  });
  const data = randomMatrix("check", out, width);
  const source = { name: "check", data, dtype: "f32", out, in: width, compute } as const;
  const weight = quantize ? quantizedWeight(device, source, quantize) : createWeight(device, source);
  const tensors: Tensor[] = [];
  const make = (rows: number, columns: number, seed: number): Tensor => {
    const tensor = createTensor(device, "f32", [rows, columns]);
    tensors.push(tensor);
    if (seed > 0) writeF32(device, tensor, randomValues(sizeOf(tensor), seed));
    return tensor;
  };
  const [x, dy, z] = [make(ROWS, width, 1), make(ROWS, out, 2), make(ROWS, CHECK_RANK, 3)];
  const [y, dx, du] = [make(ROWS, out, 0), make(ROWS, width, 0), make(out, CHECK_RANK, 0)];
  linearForward(device, weight, x, y);
  linearBackward(device, weight, dy, dx);
  matmul(device, { a: dy, transposeA: true, b: z, c: du, compute });
  const result = { forward: readF32(device, y), backward: readF32(device, dx), factor: readF32(device, du) };
  for (const tensor of tensors) freeTensor(device, tensor);
  freeWeight(device, weight);
  return result;
}

/** The shape in one layer and with few words: what the reference computes in seconds. */
function reduced(config: LlamaConfig): LlamaConfig {
  return { ...config, layers: 1, vocabSize: Math.min(config.vocabSize, CHECK_VOCABULARY) };
}

/** Losses and gradients of one training pass, a method after the other. */
export async function checkTraining(
  report: Report,
  device: Device,
  full: LlamaConfig,
  compute: Compute,
  methods: readonly StepMethod[],
): Promise<void> {
  const config = reduced(full);
  const { ours, reference } = await onBoth(device, (on) =>
    methods.map((method) => trainingPass(on, config, compute, method)),
  );
  methods.forEach((method, i) => {
    for (const part of ["loss", "gradient"] as const) {
      addCheck(report, {
        name: `${config.nameOrPath} ${compute} ${method} ${part}`,
        error: relativeError(ours[i]![part], reference[i]![part]),
        tolerance: PASS_TOLERANCE[compute],
      });
    }
  });
}

function trainingPass(
  device: Device,
  config: LlamaConfig,
  compute: Compute,
  method: StepMethod,
): { loss: Float32Array; gradient: Float32Array } {
  const load = { compute, positions: CHECK_TOKENS };
  const options = {
    method: methodNamed(method),
    rank: CHECK_RANK,
    alpha: 2 * CHECK_RANK,
    targets: ["all-linear"],
    seed: 1,
  };
  const model = buildLlama(device, config, randomSource(device), load);
  const plan = planTraining(config, load, options, 0, CHECK_TOKENS, 4);
  const kept = createArena(device, plan.kept);
  const scratch = createArena(device, plan.scratch);
  const trained = attachTrainables(model, options, scratch);
  // Away from ΔW = 0, where half of the gradients are zero.
  const moved = readF32(device, trained.parameters);
  randomValues(moved.length, 5, 2 ** -5).forEach((value, i) => {
    moved[i]! += value;
  });
  writeF32(device, trained.parameters, moved);
  prepareTrainables(model, trained, scratch);
  reserve(device, {
    tokens: CHECK_TOKENS,
    width: widestFeature(config),
    rank: CHECK_RANK,
    vocabulary: config.vocabSize,
  });
  try {
    const batch = fixedBatch([CHECK_TOKENS], config.vocabSize);
    const loss = trainPass(model, trained, batch, { kept, scratch, dropout: null });
    return { loss, gradient: readF32(device, trained.gradients) };
  } finally {
    freeTrainables(model, trained);
    freeLlama(model);
    freeArena(kept);
    freeArena(scratch);
  }
}

/** Log-likelihoods through the KV cache. */
export async function checkInference(
  report: Report,
  device: Device,
  full: LlamaConfig,
  compute: Compute,
): Promise<void> {
  const config = reduced(full);
  const tokens = [...fixedBatch([2 * CHECK_TOKENS], config.vocabSize).tokens];
  const [context, continuation] = [tokens.slice(0, CHECK_TOKENS), tokens.slice(CHECK_TOKENS)];
  const { ours, reference } = await onBoth(device, async (on) => {
    const model = buildLlama(on, config, randomSource(on), { compute, positions: tokens.length });
    const scores = await scoreContinuations(model, [{ context, continuations: [continuation] }]);
    freeLlama(model);
    return scores[0]!;
  });
  addCheck(report, {
    name: `${config.nameOrPath} ${compute} log-likelihood`,
    error: relativeError(ours, reference),
    tolerance: PASS_TOLERANCE[compute],
  });
}
