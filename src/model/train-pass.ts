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

export interface PassOptions extends Arenas {
  /** Adapter dropout of this optimizer step; p = 0 or null: none. */
  readonly dropout: { readonly p: number; readonly key: bigint } | null;
  /** Keep each block's input alone and run the block again before its backward: the same bytes in less memory. */
  readonly recompute?: boolean;
}

/** Memory of a pass, planned by running it on a planning device. */
export interface Arenas {
  readonly kept: Arena;
  readonly scratch: Arena;
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
      const { x, blocks } = keepBlocks(model, pass, context, data.tokens, options.recompute ?? false);
      const loss = arenaTensor(pass.kept, "f32", [batch.labels.length]);
      const dx = headPass(model, trained, data, pass, x, loss);
      for (let i = blocks.length - 1; i >= 0; i--) {
        withScratch(pass.kept, () => {
          const saved = blocks[i]!();
          const norms = trained.whole?.norms[i] ?? null;
          const first = i === 0 && !trained.whole;
          blockBackward(pass, model.layers[i]!, context, saved, dx, norms, first);
        });
      }
      if (trained.whole) embeddingBackward(device, data.tokens, dx, trained.whole.embeddingGradient);
      return readF32(device, loss);
    }),
  );
}

/** Final norm and head at the labelled rows of x[T,H] only: loss[M], and x's gradient dx[T,H] in x's own memory. */
function headPass(
  model: Llama,
  { whole }: Trainables,
  data: DeviceBatch,
  { device, compute, scratch }: Pass,
  x: Tensor,
  loss: Tensor,
): Tensor {
  const [M, H] = [loss.shape[0]!, x.shape[1]!];
  withScratch(scratch, () => {
    const labelled = arenaTensor(scratch, "f32", [M, H]);
    gatherRows(device, x, data.labelRows, labelled);
    const xn = arenaTensor(scratch, compute, [M, H]);
    const rstd = arenaTensor(scratch, "f32", [M]);
    rmsNormForward(device, labelled, model.finalNorm, model.config.rmsNormEps, xn, rstd);
    const dxn = arenaTensor(scratch, "f32", [M, H]);
    const dw = whole ? { dw: whole.headGradient } : {};
    headLoss(device, model.head, xn, data.labels, data.labelWeights, loss, { dx: dxn, ...dw });
    const dLabelled = arenaTensor(scratch, "f32", [M, H]);
    zero(device, dLabelled);
    rmsNormBackward(device, dxn, labelled, model.finalNorm, rstd, dLabelled, whole?.finalNorm ?? null);
    zero(device, x);
    scatterAddRows(device, dLabelled, data.labelRows, x);
  });
  return x;
}

/** Negative log-likelihood of every label, no gradient: validation and log-likelihood scoring. f32 [M]. */
export function lossPass(model: Llama, batch: PackedBatch, options: Arenas): Float32Array {
  return withScratch(options.kept, () =>
    withScratch(options.scratch, () => {
      const { device } = model;
      const { data, pass, context } = begin(model, batch, { ...options, dropout: null });
      const x = throughBlocks(model, pass, context, data.tokens);
      const M = batch.labels.length;
      const labelled = arenaTensor(pass.scratch, "f32", [M, x.shape[1]!]);
      gatherRows(device, x, data.labelRows, labelled);
      const xn = arenaTensor(pass.scratch, model.compute, labelled.shape);
      rmsNormForward(device, labelled, model.finalNorm, model.config.rmsNormEps, xn, null);
      const loss = arenaTensor(pass.kept, "f32", [M]);
      headLoss(device, model.head, xn, data.labels, data.labelWeights, loss);
      return readF32(device, loss);
    }),
  );
}

/** Logits [T,V] of every position of a packed batch (parity tests; small batches only). */
export function logitsPass(model: Llama, batch: PackedBatch, options: Arenas): Float32Array {
  return withScratch(options.kept, () =>
    withScratch(options.scratch, () => {
      const { device, config } = model;
      const { data, pass, context } = begin(model, batch, { ...options, dropout: null });
      const x = throughBlocks(model, pass, context, data.tokens);
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

/** What `blockBackward` needs of a block: as forward left it, or made again into `pass.kept` now. */
type KeptBlock = () => BlockSaved;

/** Forward through all blocks, x[T,H] f32 behind the last, and what backward needs; `recompute`: their inputs alone. */
function keepBlocks(
  model: Llama,
  pass: Pass,
  context: BlockContext,
  tokens: Tensor,
  recompute: boolean,
): { x: Tensor; blocks: KeptBlock[] } {
  let x = embedded(model, pass, tokens);
  const blocks = model.layers.map((layer): KeptBlock => {
    const input = x;
    x = arenaTensor(pass.kept, "f32", input.shape);
    if (!recompute) {
      const saved = blockForward(pass, layer, context, input, x);
      return () => saved;
    }
    withScratch(pass.kept, () => blockForward(pass, layer, context, input, x));
    return () => blockForward(pass, layer, context, input, null);
  });
  return { x, blocks };
}

/** x[T,H] f32 behind the last block, nothing kept: two buffers take turns. */
function throughBlocks(model: Llama, pass: Pass, context: BlockContext, tokens: Tensor): Tensor {
  let x = embedded(model, pass, tokens);
  let out = arenaTensor(pass.kept, "f32", x.shape);
  for (const layer of model.layers) {
    withScratch(pass.kept, () => blockForward(pass, layer, context, x, out));
    [x, out] = [out, x];
  }
  return x;
}

function embedded(model: Llama, pass: Pass, tokens: Tensor): Tensor {
  const x = arenaTensor(pass.kept, "f32", [tokens.shape[0]!, model.config.hiddenSize]);
  embeddingForward(pass.device, model.embedding, tokens, x);
  return x;
}
