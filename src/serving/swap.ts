/**
 * One weight set at a time (settled 28): the model holds the base or one adapter merged in place, and a swap happens
 * between two steps. SBoRA flips its columns or rows from the base's bits to the merged ones and back; one adapter for
 * another is one pass over the matrices, which cannot stop half-way; the next step may make it while it reads them. The
 * dense methods change whole matrices: they are merged into copies, which take the base's place for as long as they are
 * active; the base's own are never touched.
 */
import { withScratch } from "../adapters/draw.ts";
import { f32ToBf16, f32ToF16 } from "../formats/half.ts";
import type { Linear } from "../model/linear.ts";
import type { Llama } from "../model/model.ts";
import { type Arena, arenaTensor, createArena, freeArena } from "../native/arena.ts";
import { flipPatches } from "../native/patch.ts";
import { readF32, writeI32 } from "../native/tensor.ts";
import { createWeight, freeWeight, readWeightRows, type Weight, writeWeightRows } from "../native/weight.ts";
import { dropBeside, putBeside } from "./beside.ts";
import { BASE, type WeightSetInfo } from "./protocol.ts";
import { type BaseBits, freeResident, loadResident, type Resident } from "./resident.ts";

/** Rows copied at once. */
const COPY_ROWS = 256;

export interface WeightSets {
  readonly model: Llama;
  readonly base: BaseBits;
  readonly residents: Map<string, Resident>;
  /** Copies of matrices that dense adapters are merged into, and the base's own. */
  readonly spare: Map<Linear, { readonly base: Weight; readonly copy: Weight }>;
  /** Whose merged values the copies hold; null: stale. */
  spareOf: string | null;
  active: string;
  swaps: number;
  swapMs: number;
}

export function createWeightSets(model: Llama, base: BaseBits): WeightSets {
  const counts = { swaps: 0, swapMs: 0 };
  return {
    model,
    base,
    residents: new Map(),
    spare: new Map(),
    spareOf: null,
    active: BASE,
    ...counts,
  };
}

/** Adds an adapter folder under a new key. @throws InputError when it does not belong to this model */
export function addWeightSet(sets: WeightSets, key: string, dir: string): WeightSetInfo {
  if (key === BASE || sets.residents.has(key)) throw new Error(`the weight set ${key} is there already`);
  activate(sets, BASE);
  const resident = loadResident(sets.model, sets.base, dir);
  sets.residents.set(key, resident);
  return resident.info;
}

/** Frees an adapter's memory; nothing may run with it any more. */
export function removeWeightSet(sets: WeightSets, key: string): void {
  const resident = sets.residents.get(key);
  if (!resident) return;
  if (sets.active === key) activate(sets, BASE);
  sets.residents.delete(key);
  freeResident(sets.model, resident);
  if (sets.spareOf === key) sets.spareOf = null;
  if (![...sets.residents.values()].some(({ dense }) => dense.length > 0)) freeSpare(sets);
}

/** Makes the model hold these weights. Nothing to do when it does already. */
export function activate(sets: WeightSets, key: string): void {
  if (key === sets.active) return;
  const next = key === BASE ? null : sets.residents.get(key);
  if (next === undefined) throw new Error(`there is no weight set ${key}`);
  const start = performance.now();
  const last = sets.residents.get(sets.active);
  const { device } = sets.model;
  flipPatches(device, [...(last?.patches ?? []), ...(next?.patches ?? [])]);
  for (const lines of last?.beside ?? []) dropBeside(device, lines);
  for (const lines of next?.beside ?? []) putBeside(device, lines);
  for (const { linear } of last?.dense ?? []) setWeight(linear, sets.spare.get(linear)!.base);
  sets.active = BASE;
  if (next && next.dense.length > 0) {
    if (sets.spareOf !== key) mergeIntoSpare(sets, key, next);
    for (const { linear } of next.dense) setWeight(linear, sets.spare.get(linear)!.copy);
  }
  sets.active = key;
  sets.swaps++;
  sets.swapMs += performance.now() - start;
}

/** The base's weights again, and everything else freed. */
export function freeWeightSets(sets: WeightSets): void {
  for (const key of [...sets.residents.keys()]) removeWeightSet(sets, key);
  freeSpare(sets);
}

/** Only this file changes which matrix a linear multiplies by. */
function setWeight(linear: Linear, weight: Weight): void {
  (linear as { weight: Weight }).weight = weight;
}

function mergeIntoSpare(sets: WeightSets, key: string, { dense, arena }: Resident): void {
  const { device } = sets.model;
  sets.spareOf = null;
  const widest = Math.max(...dense.map(({ linear }) => linear.weight.in));
  const rows = createArena(device, COPY_ROWS * (4 * widest + 4) + 256);
  for (const { linear, adapter } of dense) {
    const known = sets.spare.get(linear);
    if (known) copyWeight(known.base, known.copy, rows);
    const { base, copy } = known ?? { base: linear.weight, copy: cloneWeight(sets.model, linear.weight) };
    sets.spare.set(linear, { base, copy });
    adapter.method.merge(device, adapter, copy, arena!);
  }
  freeArena(rows);
  sets.spareOf = key;
}

/** Another weight with the same values, held in the same type: they are exact in f32 and rounded to what they were. */
function cloneWeight(model: Llama, weight: Weight): Weight {
  const { device } = model;
  const values = new Float32Array(weight.out * weight.in);
  const arena = createArena(device, COPY_ROWS * (4 * weight.in + 4) + 256);
  eachBlock(weight, arena, (index, block, first) => {
    readWeightRows(device, weight, index, block);
    values.set(readF32(device, block), first * weight.in);
  });
  freeArena(arena);
  const { name, out, in: width, compute } = weight;
  // A matrix of codes has no place for other values: the copy holds them.
  const dtype = weight.dtype === "nf4" ? compute : weight.dtype;
  const data = dtype === "f16" ? f32ToF16(values) : dtype === "bf16" ? f32ToBf16(values) : values;
  return createWeight(device, { name, data, dtype, out, in: width, compute });
}

function copyWeight(from: Weight, to: Weight, arena: Arena): void {
  eachBlock(from, arena, (index, block) => {
    readWeightRows(arena.device, from, index, block);
    writeWeightRows(arena.device, to, index, block);
  });
}

function eachBlock(
  weight: Weight,
  arena: Arena,
  visit: (
    index: ReturnType<typeof arenaTensor>,
    block: ReturnType<typeof arenaTensor>,
    first: number,
  ) => void,
): void {
  for (let first = 0; first < weight.out; first += COPY_ROWS) {
    const count = Math.min(COPY_ROWS, weight.out - first);
    withScratch(arena, () => {
      const index = arenaTensor(arena, "i32", [count]);
      writeI32(
        arena.device,
        index,
        Int32Array.from({ length: count }, (_, i) => first + i),
      );
      visit(index, arenaTensor(arena, "f32", [count, weight.in]), first);
    });
  }
}

function freeSpare(sets: WeightSets): void {
  for (const { copy } of sets.spare.values()) freeWeight(sets.model.device, copy);
  sets.spare.clear();
  sets.spareOf = null;
}
