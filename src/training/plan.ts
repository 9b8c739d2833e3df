/** The memory plan of a run, from the code that will run: every allocation of a pass is made on a device that counts. */
import type { PackedBatch } from "../data/batches.ts";
import type { LlamaConfig } from "../formats/hf-config.ts";
import type { LoadOptions } from "../model/model.ts";
import { NF4_BYTES } from "../model/nf4.ts";
import { planningModel, UNBOUNDED } from "../model/planning.ts";
import { trainPass } from "../model/train-pass.ts";
import { type AdapterOptions, attachTrainables } from "../model/trainables.ts";
import { createArena, peakBytes } from "../native/arena.ts";
import { sizeOf } from "../native/tensor.ts";

export interface MemoryPlan {
  /** Frozen weights in the type they are held in, padding of the packed layout not counted. */
  readonly weights: number;
  /** Trained parameters with gradient and two moments. */
  readonly trainable: number;
  readonly parameters: number;
  /** Norms, rotary table, and the factors of the adapters that do not train. */
  readonly fixed: number;
  /** Saved from forward to backward for `tokens` packed tokens. */
  readonly kept: number;
  /** Scratch of one linear or block. */
  readonly scratch: number;
  /** Activation checkpointing: `kept` is enough for the blocks' inputs and one block. */
  readonly recompute: boolean;
}

/**
 * Peak arena sizes of a training pass over `tokens` packed tokens, all of them labelled.
 * @param recompute keep the blocks' inputs alone (`trainPass`)
 */
export function planTraining(
  config: LlamaConfig,
  load: LoadOptions,
  adapter: AdapterOptions,
  dropout: number,
  tokens: number,
  bytesPerWeight: number,
  recompute = false,
): MemoryPlan {
  const { model, device, elements, quantizable } = planningModel(config, load);
  const kept = createArena(device, UNBOUNDED);
  const scratch = createArena(device, UNBOUNDED);
  const trained = attachTrainables(model, adapter, scratch);
  const parameters = sizeOf(trained.parameters);
  const key = 1n;
  trainPass(model, trained, fullBatch(tokens), {
    kept,
    scratch,
    dropout: dropout > 0 ? { p: dropout, key } : null,
    recompute,
  });
  const codes = load.quantize ? quantizable : 0;
  return {
    weights: (elements - codes) * bytesPerWeight + codes * NF4_BYTES,
    trainable: 16 * parameters,
    parameters,
    // what is alive, less both arenas, parameters and gradients
    fixed: device.memory.alive - 2 * UNBOUNDED - 8 * parameters,
    kept: peakBytes(kept),
    scratch: peakBytes(scratch),
    recompute,
  };
}

/** One sequence of `tokens` tokens, a label on each: the largest a pass of that many tokens can be. */
function fullBatch(tokens: number): PackedBatch {
  const all = Int32Array.from({ length: tokens }, (_, i) => i);
  return {
    tokens: new Int32Array(tokens),
    positions: all,
    cuSeqlens: Int32Array.from([0, tokens]),
    recordIds: new Int32Array(tokens),
    labelRows: all,
    labels: new Int32Array(tokens),
    labelWeights: new Float32Array(tokens),
  };
}
