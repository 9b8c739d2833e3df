/** The two ways adapters run (settled 28): merged into the weights, or each row with its own tail. */
import type { Llama } from "../model/model.ts";
import { BASE, type WeightSetInfo } from "./protocol.ts";
import type { BaseBits } from "./resident.ts";
import { activate, addWeightSet, createWeightSets, freeWeightSets, removeWeightSet } from "./swap.ts";

/** So many rows of a step's batch, one after the other, are computed with these weights. */
export interface RowSpan {
  readonly weights: string;
  readonly rows: number;
}

export interface WeightSets {
  /** Requests of equal group run in one batch. */
  groupOf(weights: string): string;
  /** SHA-256 of the adapter's files; "" for the base. */
  hashOf(weights: string): string;
  /** @throws InputError when the folder is no adapter of this model */
  add(weights: string, dir: string): WeightSetInfo;
  /** Nothing may run with it any more. */
  remove(weights: string): void;
  /** Called before each step. */
  prepare(spans: readonly RowSpan[]): void;
  swaps(): { readonly count: number; readonly milliseconds: number };
  free(): void;
}

export function mergedSets(model: Llama, base: BaseBits): WeightSets {
  const sets = createWeightSets(model, base);
  return {
    groupOf: (weights) => weights,
    hashOf: (weights) => sets.residents.get(weights)?.info.hash ?? "",
    add: (weights, dir) => addWeightSet(sets, weights, dir),
    remove: (weights) => removeWeightSet(sets, weights),
    prepare: (spans) => activate(sets, spans[0]?.weights ?? BASE),
    swaps: () => ({ count: sets.swaps, milliseconds: sets.swapMs }),
    free: () => freeWeightSets(sets),
  };
}
