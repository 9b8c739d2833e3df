/** Models without memory, on which the code that will run is run first to see how much it needs. */
import type { LlamaConfig } from "../formats/hf-config.ts";
import { createArena, peakBytes } from "../native/arena.ts";
import { openPlanningDevice, type PlanningDevice } from "../native/planning-device.ts";
import { buildLlama, type Llama, type LoadOptions } from "./model.ts";
import { isQuantized } from "./nf4.ts";
import { type AdapterOptions, attachTrainables, mergeTrainables } from "./trainables.ts";

/** More than any plan needs; a planning device has no memory to run out of. */
export const UNBOUNDED = 2 ** 44;

/** Bytes of the arena that attaching and merging adapters of this kind takes. */
export function planMerge(config: LlamaConfig, load: LoadOptions, adapter: AdapterOptions): number {
  const { model } = planningModel(config, load);
  const arena = createArena(model.device, UNBOUNDED);
  mergeTrainables(model, attachTrainables(model, adapter, arena), arena);
  return peakBytes(arena);
}

/**
 * A model without memory on a device that counts, and the number of its matrices' elements (tied ones once);
 * `quantizable`: those of the blocks' linears.
 */
export function planningModel(
  config: LlamaConfig,
  load: LoadOptions,
): { model: Llama; device: PlanningDevice; elements: number; quantizable: number } {
  const device = openPlanningDevice();
  let elements = 0;
  let quantizable = 0;
  const source = {
    matrix: (name: string, out: number, width: number, compute: "f32" | "bf16") => {
      elements += out * width;
      if (isQuantized(name)) quantizable += out * width;
      return { handle: 1, out, in: width, dtype: "f32" as const, compute, name };
    },
    vector: (_name: string, size: number) => new Float32Array(size),
  };
  return { model: buildLlama(device, config, source, load), device, elements, quantizable };
}
