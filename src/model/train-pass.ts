/** Forward and backward of the whole model over one packed batch: loss per label, gradients into the adapters. */
import type { Compute, Pass } from "../adapters/adapter.ts";
import { withScratch } from "../adapters/draw.ts";
import type { PackedBatch } from "../data/batches.ts";
import { type Arena, arenaTensor } from "../native/arena.ts";
import {
  embeddingBackward,
  embeddingForward,
  gatherRows,
  headLoss,
  linearForward,
  rmsNormBackward,
  rmsNormForward,
  scatterAddRows,
} from "../native/ops/index.ts";
import { readF32, type Tensor, writeF32, writeI32, zero } from "../native/tensor.ts";
import { type BlockContext, type BlockSaved, blockBackward, blockForward } from "./block.ts";
import type { Llama } from "./model.ts";
import type { Trainables } from "./trainables.ts";

export interface PassOptions {
  readonly kept: Arena;
  readonly scratch: Arena;
  /** Adapter dropout of this optimizer step; p = 0 or null: none. */
  readonly dropout: { readonly p: number; readonly key: bigint } | null;
}

/** A packed batch on the device. */
interface DeviceBatch {
  readonly tokens: Tensor; // i32 [T]
  readonly positions: Tensor; // i32 [T]
  readonly records: Tensor; // i32 [T]
  readonly offsets: Tensor; // i32 [B+1]
  readonly labelRows: Tensor; // i32 [M]
  readonly labels: Tensor; // i32 [M]
  readonly labelWeights: Tensor; // f32 [M]
}

/**
 * Adds the gradient of Σ weight·loss to the adapters' (for `full`: to all) gradients.
 * @returns negative log-likelihood of every label, f32 [M], in the batch's order.
 */
export function trainPass(
  model: Llama,
  trained: Trainables,
  batch: PackedBatch,
  options: PassOptions,
): Float32Array {
  return withScratch(options.kept, () =>
    withScratch(options.scratch, () => {
      const { device } = model;
      const { data, pass, context } = begin(model, batch, options);
      const { x, saved } = forwardBlocks(model, pass, context, data.tokens);
      const [T, H] = x.shape as [number, number];
      const M = batch.labels.length;

      // final norm and head at the labelled rows only
      const labelled = arenaTensor(pass.kept, "f32", [M, H]);
      gatherRows(device, x, data.labelRows, labelled);
      const xn = arenaTensor(pass.kept, model.compute, [M, H]);
      const rstd = arenaTensor(pass.kept, "f32", [M]);
      rmsNormForward(device, labelled, model.finalNorm, model.config.rmsNormEps, xn, rstd);
      const loss = arenaTensor(pass.kept, "f32", [M]);
      const dxn = arenaTensor(pass.kept, "f32", [M, H]);
      const whole = trained.whole;
      const dw = whole ? { dw: whole.headGradient } : {};
      headLoss(device, model.head, xn, data.labels, data.labelWeights, loss, { dx: dxn, ...dw });
      const dLabelled = arenaTensor(pass.kept, "f32", [M, H]);
      zero(device, dLabelled);
      rmsNormBackward(device, dxn, labelled, model.finalNorm, rstd, dLabelled, whole?.finalNorm ?? null);

      const dx = arenaTensor(pass.kept, "f32", [T, H]);
      zero(device, dx);
      scatterAddRows(device, dLabelled, data.labelRows, dx);
      for (let i = saved.length - 1; i >= 0; i--) {
        const first = i === 0 && !whole;
        blockBackward(pass, model.layers[i]!, context, saved[i]!, dx, whole?.norms[i] ?? null, first);
      }
      if (whole) embeddingBackward(device, data.tokens, dx, whole.embeddingGradient);
      return readF32(device, loss);
    }),
  );
}

/** Negative log-likelihood of every label, no gradient: validation and log-likelihood scoring. f32 [M]. */
export function lossPass(
  model: Llama,
  batch: PackedBatch,
  options: Omit<PassOptions, "dropout">,
): Float32Array {
  return withScratch(options.kept, () =>
    withScratch(options.scratch, () => {
      const { device } = model;
      const { data, pass, context } = begin(model, batch, { ...options, dropout: null });
      const { x } = forwardBlocks(model, pass, context, data.tokens);
      const M = batch.labels.length;
      const labelled = arenaTensor(pass.kept, "f32", [M, x.shape[1]!]);
      gatherRows(device, x, data.labelRows, labelled);
      const xn = arenaTensor(pass.kept, model.compute, labelled.shape);
      rmsNormForward(device, labelled, model.finalNorm, model.config.rmsNormEps, xn, null);
      const loss = arenaTensor(pass.kept, "f32", [M]);
      headLoss(device, model.head, xn, data.labels, data.labelWeights, loss);
      return readF32(device, loss);
    }),
  );
}

/** Logits [T,V] of every position of a packed batch (parity tests; small batches only). */
export function logitsPass(
  model: Llama,
  batch: PackedBatch,
  options: Omit<PassOptions, "dropout">,
): Float32Array {
  return withScratch(options.kept, () =>
    withScratch(options.scratch, () => {
      const { device, config } = model;
      const { data, pass, context } = begin(model, batch, { ...options, dropout: null });
      const { x } = forwardBlocks(model, pass, context, data.tokens);
      const xn = arenaTensor(pass.kept, model.compute, x.shape);
      rmsNormForward(device, x, model.finalNorm, config.rmsNormEps, xn, null);
      const logits = arenaTensor(pass.kept, "f32", [x.shape[0]!, config.vocabSize]);
      linearForward(device, model.head, xn, logits);
      return readF32(device, logits);
    }),
  );
}

function begin(
  model: Llama,
  batch: PackedBatch,
  options: PassOptions,
): { data: DeviceBatch; pass: Pass; context: BlockContext } {
  const { device, config } = model;
  const { kept, scratch, dropout } = options;
  const upload = (values: Int32Array): Tensor => {
    const tensor = arenaTensor(kept, "i32", [values.length]);
    writeI32(device, tensor, values);
    return tensor;
  };
  const labelWeights = arenaTensor(kept, "f32", [batch.labels.length]);
  writeF32(device, labelWeights, batch.labelWeights);
  const data: DeviceBatch = {
    tokens: upload(batch.tokens),
    positions: upload(batch.positions),
    records: upload(batch.recordIds),
    offsets: upload(batch.cuSeqlens),
    labelRows: upload(batch.labelRows),
    labels: upload(batch.labels),
    labelWeights,
  };
  const compute: Compute = model.compute;
  const mask = dropout && { ...dropout, record: data.records, position: data.positions };
  const pass: Pass = { device, compute, kept, scratch, dropout: mask };
  let longest = 0;
  for (let b = 1; b < batch.cuSeqlens.length; b++) {
    longest = Math.max(longest, batch.cuSeqlens[b]! - batch.cuSeqlens[b - 1]!);
  }
  const { heads, kvHeads, headSize } = config;
  const context: BlockContext = {
    attention: { heads, kvHeads, headSize, scale: 1 / Math.sqrt(headSize) },
    ffn: config.intermediateSize,
    eps: config.rmsNormEps,
    rope: model.rope,
    packed: { offsets: data.offsets, sequences: batch.cuSeqlens.length - 1, longest },
    positions: data.positions,
  };
  return { data, pass, context };
}

function forwardBlocks(
  model: Llama,
  pass: Pass,
  context: BlockContext,
  tokens: Tensor,
): { x: Tensor; saved: BlockSaved[] } {
  let x = arenaTensor(pass.kept, "f32", [tokens.shape[0]!, model.config.hiddenSize]);
  embeddingForward(pass.device, model.embedding, tokens, x);
  const saved: BlockSaved[] = [];
  for (const layer of model.layers) {
    const block = blockForward(pass, layer, context, x);
    saved.push(block.saved);
    x = block.out;
  }
  return { x, saved };
}
