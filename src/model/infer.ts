/**
 * The inference pass: prefill chunks and decode steps alike, through the paged KV cache. Rows of a batch never see each
 * other but through their own cache, so an answer does not depend on what else is in the batch.
 */
import type { Pass } from "../adapters/adapter.ts";
import { withScratch } from "../adapters/draw.ts";
import { type Arena, arenaTensor, createArena } from "../native/arena.ts";
import { reserve } from "../native/device.ts";
import {
  attentionPaged,
  embeddingForward,
  gatherRows,
  headLoss,
  kvWrite,
  linearForward,
  rmsNormForward,
  rope,
  swigluForward,
} from "../native/ops/index.ts";
import { readF32, type Tensor, writeF32, writeI32 } from "../native/tensor.ts";
import { extendSequence, type KvPool, type KvSequence, PAGE } from "./kv-cache.ts";
import { forward } from "./linear.ts";
import type { Llama } from "./model.ts";
import { linearNames, widestFeature } from "./shapes.ts";

/** Most candidates a row that the callers' top-k takes (the ABI's limit). */
const MOST_CANDIDATES = 256;
/** Alignment of small tensors. */
const SLACK_BYTES = 64 * 1024;

/** Tokens to append to one sequence, and the rows whose output the caller wants. */
export interface Chunk {
  readonly sequence: KvSequence;
  readonly tokens: readonly number[];
  readonly wanted: "none" | "last" | "all";
}

/**
 * Runs the chunks as one batch. A sequence may appear once.
 * @returns final hidden states [R,H] after the last norm, compute type, of the wanted rows in order (in `arena`).
 */
export function inferRows(model: Llama, pool: KvPool, chunks: readonly Chunk[], arena: Arena): Tensor {
  const { device, config, compute } = model;
  const { hiddenSize: H, heads: N, kvHeads: K, headSize: D, rmsNormEps: eps } = config;
  const rows = layOut(pool, chunks);
  const T = rows.tokens.length;
  const upload = (values: Int32Array, shape: number[] = [values.length]): Tensor => {
    const tensor = arenaTensor(arena, "i32", shape);
    writeI32(device, tensor, values);
    return tensor;
  };
  const wanted = upload(rows.wanted);
  const out = arenaTensor(arena, compute, [rows.wanted.length, H]);
  withScratch(arena, () => {
    const pass: Pass = { device, compute, kept: arena, scratch: arena, dropout: null };
    const attention = { heads: N, kvHeads: K, headSize: D, scale: 1 / Math.sqrt(D) };
    const positions = upload(rows.positions);
    const slots = upload(rows.slots);
    const tables = upload(rows.tables, [chunks.length, rows.maxPages]);
    const lookup = { tables, sequences: upload(rows.sequences), positions };
    const x = arenaTensor(arena, "f32", [T, H]);
    embeddingForward(device, model.embedding, upload(rows.tokens), x);
    model.layers.forEach((layer, i) => {
      withScratch(arena, () => {
        const { linears } = layer;
        const make = (width: number): Tensor => arenaTensor(arena, compute, [T, width]);
        const [xn, q, k, v] = [make(H), make(N * D), make(K * D), make(K * D)];
        rmsNormForward(device, x, layer.inputNorm, eps, xn, null);
        forward(pass, linears.q_proj, xn, q);
        forward(pass, linears.k_proj, xn, k);
        forward(pass, linears.v_proj, xn, v);
        rope(device, q, N, positions, model.rope);
        rope(device, k, K, positions, model.rope);
        const cache = pool.layers[i]!;
        kvWrite(device, k, v, slots, cache, attention);
        const o = make(N * D);
        attentionPaged(device, q, cache, attention, lookup, o);
        forward(pass, linears.o_proj, o, x, 1);
        rmsNormForward(device, x, layer.postNorm, eps, xn, null);
        const [gate, up] = [make(config.intermediateSize), make(config.intermediateSize)];
        forward(pass, linears.gate_proj, xn, gate);
        forward(pass, linears.up_proj, xn, up);
        swigluForward(device, gate, up, gate);
        forward(pass, linears.down_proj, gate, x, 1);
      });
    });
    const last = arenaTensor(arena, "f32", [rows.wanted.length, H]);
    gatherRows(device, x, wanted, last);
    rmsNormForward(device, last, model.finalNorm, eps, out, null);
  });
  return out;
}

/** logits[R,V] f32 of hidden states, in `arena`. */
export function logitsOf(model: Llama, hidden: Tensor, arena: Arena): Tensor {
  const logits = arenaTensor(arena, "f32", [hidden.shape[0]!, model.config.vocabSize]);
  linearForward(model.device, model.head, hidden, logits);
  return logits;
}

/** Negative log-likelihood of target r after hidden state r, f32 [R]. */
export function lossesOf(
  model: Llama,
  hidden: Tensor,
  targets: readonly number[],
  arena: Arena,
): Float32Array {
  return withScratch(arena, () => {
    const { device } = model;
    const ids = arenaTensor(arena, "i32", [targets.length]);
    writeI32(device, ids, Int32Array.from(targets));
    const weights = arenaTensor(arena, "f32", [targets.length]);
    writeF32(device, weights, new Float32Array(targets.length));
    const loss = arenaTensor(arena, "f32", [targets.length]);
    headLoss(device, model.head, hidden, ids, weights, loss);
    return readF32(device, loss);
  });
}

/** The largest batch an arena must hold. */
export interface InferPlan {
  readonly rows: number;
  readonly sequences: number;
  /** Of the longest sequence. */
  readonly positions: number;
  /** Rows whose logits are asked for at once. */
  readonly logits: number;
}

/** Sizes the workspace for the batches of `plan` and makes an arena for them, adapters behind the linears included. */
export function createInferArena(model: Llama, plan: InferPlan): Arena {
  const { device, config } = model;
  const { hiddenSize: H, intermediateSize: F, heads, kvHeads, headSize: D, vocabSize: vocabulary } = config;
  const { rows, sequences, positions, logits } = plan;
  let rank = 0;
  let behind = 0;
  for (const { adapter } of model.layers.flatMap(({ linears }) => Object.values(linears))) {
    if (!adapter) continue;
    rank = Math.max(rank, adapter.site.rank);
    // z, and for DoRA the output before it is added
    behind = Math.max(behind, adapter.site.out + adapter.site.rank);
  }
  reserve(device, { tokens: rows, width: widestFeature(config), rank, vocabulary });
  const perRow = 3 * H + 2 * (heads + kvHeads) * D + 2 * F + linearNames.length * behind + 64;
  // top-k values and ids stand beside the logits
  const perLogits = vocabulary + 2 * MOST_CANDIDATES;
  const tables = (sequences * positions) / PAGE + sequences;
  const bytes = device.realBytes * (rows * perRow + logits * perLogits) + 4 * tables + SLACK_BYTES;
  return createArena(device, Math.ceil(bytes));
}

interface Rows {
  readonly tokens: Int32Array;
  readonly positions: Int32Array;
  readonly sequences: Int32Array;
  readonly slots: Int32Array;
  readonly tables: Int32Array;
  readonly maxPages: number;
  readonly wanted: Int32Array;
}

function layOut(pool: KvPool, chunks: readonly Chunk[]): Rows {
  const tokens: number[] = [];
  const positions: number[] = [];
  const sequences: number[] = [];
  const slots: number[] = [];
  const wanted: number[] = [];
  chunks.forEach(({ sequence, tokens: added, wanted: want }, s) => {
    const start = sequence.length;
    slots.push(...extendSequence(pool, sequence, added.length));
    added.forEach((token, i) => {
      if (want === "all" || (want === "last" && i === added.length - 1)) wanted.push(tokens.length);
      tokens.push(token);
      positions.push(start + i);
      sequences.push(s);
    });
  });
  const maxPages = Math.max(1, ...chunks.map(({ sequence }) => sequence.pages.length));
  const tables = new Int32Array(chunks.length * maxPages);
  chunks.forEach(({ sequence }, s) => {
    tables.set(sequence.pages, s * maxPages);
  });
  return {
    tokens: Int32Array.from(tokens),
    positions: Int32Array.from(positions),
    sequences: Int32Array.from(sequences),
    slots: Int32Array.from(slots),
    tables,
    maxPages,
    wanted: Int32Array.from(wanted),
  };
}
