/**
 * An adapter made ready for swapping. Where it changes a few columns or rows (SBoRA), a patch of each matrix is kept, so
 * that a swap only flips bits; else (LoRA, DoRA, OA, LoRA-FA) the factors are, to be merged into copies of the matrices.
 */
import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { type Adapter, factor } from "../adapters/adapter.ts";
import { createAdapter, freeAdapter } from "../adapters/detached.ts";
import { MERGE_ROWS } from "../adapters/draw.ts";
import { checkRank } from "../adapters/registry.ts";
import { type AdapterFolder, checkFactors, loadAdapterValues, readAdapter } from "../adapters/storage.ts";
import { InputError, Problems } from "../errors.ts";
import { PEFT_CONFIG_FILE, peftRank, peftScaling } from "../formats/peft.ts";
import type { Linear } from "../model/linear.ts";
import { adapterOptionsOf, quantizationMismatch } from "../model/load-adapter.ts";
import type { Llama } from "../model/model.ts";
import type { Quantization } from "../model/nf4.ts";
import { planMerge } from "../model/planning.ts";
import { linearNames, linearShape, widestFeature } from "../model/shapes.ts";
import type { AdapterOptions } from "../model/trainables.ts";
import { type Arena, createArena, freeArena } from "../native/arena.ts";
import { allocatedBytes, type Device, reserve } from "../native/device.ts";
import { axpby } from "../native/ops/index.ts";
import { createPatch, freePatch, type Patch } from "../native/patch.ts";
import { bytesOf, createTensor, freeTensor } from "../native/tensor.ts";
import { readWeightColumns, readWeightRows } from "../native/weight.ts";
import { type Beside, createBeside, freeBeside, takesLines } from "./beside.ts";
import type { WeightSetInfo } from "./protocol.ts";

/** Which bits a model's weights are: its folder's, and what was made of them while it was loaded. */
export interface BaseBits {
  readonly fingerprint: string;
  readonly quantize?: Quantization;
}

export interface Dense {
  readonly linear: Linear;
  readonly adapter: Adapter;
}

export interface Resident {
  readonly info: WeightSetInfo;
  readonly patches: readonly Patch[];
  /** In place of patches where matrices are 4-bit. */
  readonly beside: readonly Beside[];
  readonly dense: readonly Dense[];
  /** Scratch memory of merging, with the dense ones. */
  readonly arena: Arena | null;
}

/** SHA-256 over the files that decide what the adapter computes. */
function hashOf({ dir, file }: AdapterFolder): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const path of [join(dir, PEFT_CONFIG_FILE), join(dir, "sbora.json"), file]) {
    if (existsSync(path)) hash.update(readFileSync(path));
  }
  return hash.digest("hex");
}

/** An adapter's factors, each behind its matrix. */
export interface Live {
  readonly info: WeightSetInfo;
  readonly adapters: ReadonlyMap<Linear, Adapter>;
}

/**
 * Reads an adapter folder into tensors of its own. The model must hold the base's weights.
 * @throws InputError when the folder is no adapter of this model
 */
export function loadLive(model: Llama, base: BaseBits, dir: string): Live {
  const { info, dense, arena } = loadFactors(model, base, dir);
  for (const { linear, adapter } of dense) {
    adapter.method.prepare(model.device, adapter, linear.weight, arena);
  }
  freeArena(arena);
  return { info, adapters: new Map(dense.map(({ linear, adapter }) => [linear, adapter])) };
}

export function freeLive(model: Llama, { adapters }: Live): void {
  for (const adapter of adapters.values()) freeAdapter(model.device, adapter);
}

/**
 * Reads an adapter folder and makes it ready to be swapped in. The model must hold the base's weights, which are read
 * only. @throws InputError when the folder is no adapter of this model
 */
export function loadResident(model: Llama, base: BaseBits, dir: string): Resident {
  const { device } = model;
  const { info, dense, arena } = loadFactors(model, base, dir);
  const sbora = info.method === "sbora-fa" || info.method === "sbora-fb";
  const inPlace = dense.every(({ linear: { weight } }) => weight.dtype !== "nf4" || takesLines(weight));
  if (!sbora || !inPlace) {
    return { info: { ...info, bytes: info.bytes + arena.capacity }, patches: [], beside: [], dense, arena };
  }
  const before = allocatedBytes(device);
  const patches: Patch[] = [];
  const beside: Beside[] = [];
  try {
    for (const one of dense) {
      const { weight } = one.linear;
      if (takesLines(weight)) beside.push(createBeside(device, weight, one.adapter));
      else patches.push(mergedLines(device, one));
    }
    // Now: the factors, counted before, go behind it.
    const bytes = allocatedBytes(device) - before;
    return { info: { ...info, bytes }, patches, beside, dense: [], arena: null };
  } catch (error) {
    for (const patch of patches) freePatch(device, patch);
    for (const lines of beside) freeBeside(device, lines);
    throw error;
  } finally {
    for (const { adapter } of dense) freeAdapter(device, adapter);
    freeArena(arena);
  }
}

/** The factors, and scratch memory that is enough to prepare and to merge them. */
function loadFactors(
  model: Llama,
  base: BaseBits,
  dir: string,
): { info: WeightSetInfo; dense: Dense[]; arena: Arena } {
  const folder = readAdapter(dir);
  requireBase(model, base, folder);
  const options = adapterOptionsOf(folder);
  const { method, rank } = options;
  if (method.name === "full") {
    throw new InputError(`${dir} holds all weights (method full); serve it as a model of its own: --model.`);
  }
  const dense = planSites(model, folder, options);
  const adapters = dense.map(({ adapter }) => adapter);
  try {
    loadAdapterValues(folder, model.device, adapters);
  } catch (error) {
    for (const adapter of adapters) freeAdapter(model.device, adapter);
    throw error;
  }
  const bytes = adapters.reduce((n, adapter) => n + bytesOfAdapter(model, adapter), 0);
  // Not refused: training on four bits for a base in sixteen is common. Foreign folders do not say what they saw.
  const note = folder.metadata?.recipe ? quantizationMismatch(folder, base.quantize) : null;
  const info = { hash: hashOf(folder), method: method.name, rank, modules: dense.length, bytes, note };
  return { info, dense, arena: mergeArena(model, options) };
}

/** @throws InputError with names and fingerprints of both models where the adapter was trained on another one */
function requireBase(
  model: Llama,
  { fingerprint }: BaseBits,
  { dir, config, metadata }: AdapterFolder,
): void {
  if (!metadata?.base || metadata.base === fingerprint) return;
  throw new InputError(
    `${dir}: this adapter was trained on another base model, ${basename(config.baseModel) || "one without a name"} ` +
      `(fingerprint ${metadata.base.slice(0, 16)}), but the server runs ${basename(model.config.nameOrPath)} ` +
      `(fingerprint ${fingerprint.slice(0, 16)}). Serve it with the model it was trained on.`,
  );
}

export function freeResident(model: Llama, resident: Resident): void {
  for (const patch of resident.patches) freePatch(model.device, patch);
  for (const lines of resident.beside) freeBeside(model.device, lines);
  for (const { adapter } of resident.dense) freeAdapter(model.device, adapter);
  if (resident.arena) freeArena(resident.arena);
}

/** What a merge makes of the lines that SBoRA changes: f32 arithmetic, one rounding (settled 28). */
function mergedLines(device: Device, { linear: { weight }, adapter }: Dense): Patch {
  const { frozen, trainable, method, site } = adapter;
  const columns = method.name === "sbora-fa";
  const index = factor(frozen, "index");
  const update = factor(trainable, columns ? "B" : "A");
  const values = createTensor(device, "f32", update.shape);
  try {
    (columns ? readWeightColumns : readWeightRows)(device, weight, index, values);
    axpby(device, site.scaling, update, 1, values);
    return createPatch(device, weight, columns ? "columns" : "rows", index, values);
  } finally {
    freeTensor(device, values);
  }
}

/** An adapter with room for its factors on every module of the folder; ranks and scalings may differ by module. */
function planSites(model: Llama, folder: AdapterFolder, { method }: AdapterOptions): Dense[] {
  const { config, device } = model;
  const all = new Map(
    model.layers.flatMap(({ linears }, layer) =>
      linearNames.map((name) => {
        const shape = linearShape(config, layer, name);
        return [shape.name, { shape, linear: linears[name] }];
      }),
    ),
  );
  const problems = new Problems();
  for (const module of folder.modules.keys()) {
    if (!all.has(module)) problems.add(`module ${module} has an adapter, but this model has no such linear`);
  }
  problems.throwIfAny(folder.file, "Check that the base model is the right one.");
  // In the model's order, not the file's: copies and patches then lie in the order in which products read them.
  const adapted = [...all.keys()].filter((module) => folder.modules.has(module));
  const sites = adapted.map((module) => {
    const { shape, linear } = all.get(module)!;
    const rank = peftRank(folder.config, module);
    checkRank(method, rank, shape);
    return { linear, site: { ...shape, rank, scaling: peftScaling(folder.config, module) } };
  });
  // Before anything is allocated: a foreign file may claim any rank.
  for (const { site } of sites) checkFactors(folder.modules.get(site.name)!, { site, method }, problems);
  problems.throwIfAny(folder.file, "Check that the base model is the one the adapter was trained on.");
  return sites.map(({ linear, site }) => ({ linear, adapter: createAdapter(device, method, site) }));
}

function mergeArena({ device, config, compute }: Llama, options: AdapterOptions): Arena {
  const { rank } = options;
  reserve(device, {
    tokens: Math.max(rank, MERGE_ROWS),
    width: widestFeature(config),
    rank,
    vocabulary: 0,
  });
  return createArena(device, planMerge(config, { compute, positions: 1 }, options));
}

function bytesOfAdapter(model: Llama, adapter: Adapter): number {
  const all = [adapter.trainable, adapter.frozen, adapter.derived].flatMap((f) => Object.values(f));
  return all.reduce((n, tensor) => n + bytesOf(model.device, tensor), 0);
}
