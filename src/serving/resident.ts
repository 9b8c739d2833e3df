/**
 * An adapter made ready for swapping. Where it changes a few columns or rows (SBoRA), their values before and after the
 * merge are kept, so that a swap only writes; else (LoRA, DoRA, OA, LoRA-FA) the factors are, to be merged into copies
 * of the matrices.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Adapter, factor } from "../adapters/adapter.ts";
import { createAdapter, freeAdapter } from "../adapters/detached.ts";
import { MERGE_ROWS } from "../adapters/draw.ts";
import { checkRank } from "../adapters/registry.ts";
import { type AdapterFolder, checkFactors, loadAdapterValues, readAdapter } from "../adapters/storage.ts";
import { InputError, Problems } from "../errors.ts";
import { PEFT_CONFIG_FILE, peftRank, peftScaling } from "../formats/peft.ts";
import type { Linear } from "../model/linear.ts";
import { adapterOptionsOf, baseMismatch } from "../model/load-adapter.ts";
import type { Llama } from "../model/model.ts";
import { planMerge } from "../model/planning.ts";
import { linearNames, linearShape, widestFeature } from "../model/shapes.ts";
import type { AdapterOptions } from "../model/trainables.ts";
import { type Arena, createArena, freeArena } from "../native/arena.ts";
import { reserve } from "../native/device.ts";
import { bytesOf, copy, createTensor, freeTensor, type Tensor } from "../native/tensor.ts";
import { readWeightColumns, readWeightRows, writeWeightColumns, writeWeightRows } from "../native/weight.ts";
import type { WeightSetInfo } from "./protocol.ts";

/** Columns (FA) or rows (FB) of one matrix, f32: exact, as the matrix holds no wider type. */
export interface Lines {
  readonly linear: Linear;
  readonly along: "columns" | "rows";
  /** i32 [r] */
  readonly index: Tensor;
  /** [out,r] or [r,in] */
  readonly base: Tensor;
  readonly merged: Tensor;
}

export interface Dense {
  readonly linear: Linear;
  readonly adapter: Adapter;
}

export interface Resident {
  readonly info: WeightSetInfo;
  readonly lines: readonly Lines[];
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
export function loadLive(model: Llama, fingerprint: string, dir: string): Live {
  const { info, dense, arena } = loadFactors(model, fingerprint, dir);
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
 * Reads an adapter folder and makes it ready to be swapped in. The model must hold the base's weights, and does so again
 * afterwards. @throws InputError when the folder is no adapter of this model
 */
export function loadResident(model: Llama, fingerprint: string, dir: string): Resident {
  const { info, dense, arena } = loadFactors(model, fingerprint, dir);
  if (info.method !== "sbora-fa" && info.method !== "sbora-fb") {
    return { info: { ...info, bytes: info.bytes + arena.capacity }, lines: [], dense, arena };
  }
  const lines = dense.map((one) => mergedLines(model, one, arena));
  for (const { adapter } of dense) freeAdapter(model.device, adapter);
  freeArena(arena);
  const bytes = lines.reduce((n, { base }) => n + 2 * bytesOf(model.device, base), 0);
  return { info: { ...info, bytes }, lines, dense: [], arena: null };
}

/** The factors, and scratch memory that is enough to prepare and to merge them. */
function loadFactors(
  model: Llama,
  fingerprint: string,
  dir: string,
): { info: WeightSetInfo; dense: Dense[]; arena: Arena } {
  const folder = readAdapter(dir);
  const mismatch = baseMismatch(folder, fingerprint);
  if (mismatch) throw new InputError(`${mismatch} Serve it with the model it was trained on.`);
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
  const info = { hash: hashOf(folder), method: method.name, rank, modules: dense.length, bytes };
  return { info, dense, arena: mergeArena(model, options) };
}

export function freeResident(model: Llama, resident: Resident): void {
  for (const { index, base, merged } of resident.lines) {
    for (const tensor of [index, base, merged]) freeTensor(model.device, tensor);
  }
  for (const { adapter } of resident.dense) freeAdapter(model.device, adapter);
  if (resident.arena) freeArena(resident.arena);
}

function readLines(model: Llama, { linear, along, index }: Omit<Lines, "base">, to: Tensor): void {
  const read = along === "columns" ? readWeightColumns : readWeightRows;
  read(model.device, linear.weight, index, to);
}

export function writeLines(model: Llama, { linear, along, index }: Lines, from: Tensor): void {
  const write = along === "columns" ? writeWeightColumns : writeWeightRows;
  write(model.device, linear.weight, index, from);
}

/** Merges once to learn the values, and puts the base's back. */
function mergedLines(model: Llama, { linear, adapter }: Dense, arena: Arena): Lines {
  const { device } = model;
  const { rank, in: width, out } = adapter.site;
  const along = adapter.method.name === "sbora-fa" ? "columns" : "rows";
  const shape = along === "columns" ? [out, rank] : [rank, width];
  const index = createTensor(device, "i32", [rank]);
  copy(device, index, factor(adapter.frozen, "index"));
  const [base, merged] = [createTensor(device, "f32", shape), createTensor(device, "f32", shape)];
  const lines: Lines = { linear, along, index, base, merged };
  readLines(model, lines, base);
  adapter.method.merge(device, adapter, linear.weight, arena);
  readLines(model, lines, merged);
  writeLines(model, lines, base);
  return lines;
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
  const sites = [...folder.modules.keys()].map((module) => {
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
