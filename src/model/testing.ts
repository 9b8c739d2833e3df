/**
 * Test harness of the model: the tiny golden models of testdata/, a device, arenas, and comparisons; SmolLM2 where it is
 * there. Imported by tests only.
 *
 * SBORA_TEST_LIBRARIES=reference runs everything on the reference in place of the CPU library.
 */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Adapter } from "../adapters/adapter.ts";
import { methodNamed } from "../adapters/registry.ts";
import { type PackedBatch, planPasses, type TrainingExample } from "../data/batches.ts";
import { convertGguf } from "../formats/gguf-to-hf.ts";
import { readSafetensorsHeader, readTensorAsF32, readTensorBytes } from "../formats/safetensors.ts";
import { type Arena, createArena, freeArena } from "../native/arena.ts";
import { buildLibrary, cacheFolder, type LibraryName } from "../native/build.ts";
import { closeDevice, type Device, openDevice, reserve } from "../native/device.ts";
import { readF64, type Tensor, writeF32, writeI32 } from "../native/tensor.ts";
import { freeLlama, type Llama, loadLlama } from "./model.ts";
import { widestFeature } from "./shapes.ts";
import { attachTrainables, freeTrainables, prepareTrainables, type Trainables } from "./trainables.ts";

const TESTDATA = join(import.meta.dir, "testdata");
const ARENA_BYTES = 24 << 20;

export type TinyName = "gqa" | "llama3";
export type Golden = ReadonlyMap<string, Float32Array | Int32Array>;

export function testdata(...parts: string[]): string {
  return join(TESTDATA, ...parts);
}

export function readGoldenJson<T>(...parts: string[]): T {
  return JSON.parse(readFileSync(testdata(...parts), "utf8")) as T;
}

/** Every tensor of a golden safetensors file: f32, or int32 for index vectors. */
export function readGolden(...parts: string[]): Golden {
  const { tensors } = readSafetensorsHeader(testdata(...parts));
  return new Map(
    [...tensors.values()].map((entry) => [
      entry.name,
      entry.dtype === "I32" ? new Int32Array(readTensorBytes(entry).buffer) : readTensorAsF32(entry),
    ]),
  );
}

/** A golden tensor of real numbers. */
export function golden(from: Golden, name: string): Float32Array {
  const values = from.get(name);
  if (!(values instanceof Float32Array)) throw new Error(`no golden ${name}`);
  return values;
}

/** What tests open by default. */
const LIBRARY: LibraryName = process.env.SBORA_TEST_LIBRARIES === "reference" ? "reference" : "cpu";
// Compiled here, because a first compilation outlasts the time limit of a hook.
await buildLibrary(LIBRARY);
await buildLibrary("reference-f64");

/** A loaded model with everything a pass needs. */
export interface Rig {
  readonly device: Device;
  readonly model: Llama;
  readonly kept: Arena;
  readonly scratch: Arena;
}

export interface RigOptions {
  readonly library?: LibraryName;
  readonly threads?: number;
  readonly compute?: "f32" | "bf16";
  readonly positions?: number;
  readonly arenaBytes?: number;
}

/** Opens a tiny model, or the model folder at an absolute path. */
export async function openRig(name: TinyName | `/${string}`, options: RigOptions = {}): Promise<Rig> {
  const device = await openDevice({
    library: options.library ?? LIBRARY,
    ...(options.threads ? { threads: options.threads } : {}),
  });
  const model = loadLlama(device, name.startsWith("/") ? name : testdata(name), {
    compute: options.compute ?? "f32",
    positions: options.positions ?? 128,
  });
  const { vocabSize: vocabulary } = model.config;
  reserve(device, { tokens: 512, width: widestFeature(model.config), rank: 64, vocabulary });
  const bytes = options.arenaBytes ?? ARENA_BYTES;
  return { device, model, kept: createArena(device, bytes), scratch: createArena(device, bytes) };
}

export function closeRig({ device, model, kept, scratch }: Rig): void {
  freeArena(kept);
  freeArena(scratch);
  freeLlama(model);
  closeDevice(device);
}

/** Sequences as records 0, 1, …, every token but the first a label. */
export function examplesOf(sequences: readonly (readonly number[])[]): TrainingExample[] {
  return sequences.map((tokens, id) => ({ id, tokens: Int32Array.from(tokens), labelFrom: 1 }));
}

/** All sequences in one packed pass, mean over all labels. */
export function packed(sequences: readonly (readonly number[])[]): PackedBatch {
  const [batch] = planPasses(examplesOf(sequences), { lossMean: "token", microBatch: 1 }, 1 << 20);
  return batch!;
}

/** Σ weight · nll: the loss of a pass. */
export function weightedLoss(batch: PackedBatch, nll: ArrayLike<number>): number {
  return batch.labelWeights.reduce((sum, weight, i) => sum + weight * nll[i]!, 0);
}

/** How adapters.json and curves.json describe a set of adapters. */
export interface AdapterSet {
  readonly kind: string;
  readonly rank: number;
  readonly alpha: number;
  readonly targets: readonly string[];
}

/** Attaches adapters and gives them the golden factors `<prefix>/layers.<i>.<module>.<factor>`. */
export function attachGolden(rig: Rig, set: AdapterSet, factors: Golden, prefix: string): Trainables {
  const targets = set.targets.map((target) => target.split(".").at(-1)!);
  const trained = attachTrainables(
    rig.model,
    { method: methodNamed(set.kind), rank: set.rank, alpha: set.alpha, targets, seed: 1 },
    rig.scratch,
  );
  for (const adapter of trained.adapters) setFactors(rig.device, adapter, factors, prefix);
  prepareTrainables(rig.model, trained, rig.scratch);
  return trained;
}

function setFactors(device: Device, adapter: Adapter, factors: Golden, prefix: string): void {
  for (const [name, tensor] of Object.entries({ ...adapter.trainable, ...adapter.frozen })) {
    const values = factors.get(`${prefix}/${adapter.site.name}.${name}`);
    if (values instanceof Int32Array) writeI32(device, tensor, values);
    else if (values) writeF32(device, tensor, values);
    // PEFT starts B at zero and so do we: curves.safetensors leaves it out.
    else if (name !== "B") throw new Error(`no golden factor ${prefix}/${adapter.site.name}.${name}`);
  }
}

/** A seeded linear congruential stream of numbers in [-1, 1): test values, not statistics. */
export function noise(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 31;
  };
}

/** Adapters away from their start, so that nothing is tested at zero. */
export function attachDisturbed(
  rig: Rig,
  name: string,
  rank = 4,
  targets = ["all-linear"],
  scale = 0.05,
): Trainables {
  const options = { method: methodNamed(name), rank, alpha: 2 * rank, targets, seed: 3 };
  const trained = attachTrainables(rig.model, options, rig.scratch);
  const next = noise(rank);
  const values = readF64(rig.device, trained.parameters).map((v) => Math.fround(v + scale * next()));
  writeF32(rig.device, trained.parameters, values);
  prepareTrainables(rig.model, trained, rig.scratch);
  return trained;
}

/** Runs `body` with adapters and detaches them whatever happens. */
export function withTrained<R>(rig: Rig, trained: Trainables, body: (trained: Trainables) => R): R {
  try {
    return body(trained);
  } finally {
    freeTrainables(rig.model, trained);
  }
}

export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} values against ${b.length}`);
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    // NaN must not pass
    if (Number.isNaN(difference)) return difference;
    if (difference > worst) worst = difference;
  }
  return worst;
}

/** Largest difference relative to the largest magnitude of the expected values. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < expected.length; i++) most = Math.max(most, Math.abs(expected[i]!));
  return largestDifference(actual, expected) / most;
}

/** Values of every trained tensor's gradient, by slot name. */
export function gradientsOf(rig: Rig, trained: Trainables): Map<string, Float64Array> {
  const all = readF64(rig.device, trained.gradients);
  return new Map(
    trained.slots.map(({ name, offset, shape }) => [
      name,
      all.slice(offset, offset + shape.reduce((a, b) => a * b, 1)),
    ]),
  );
}

/** Figures that a run should show beside "pass": `SBORA_FIGURES=1 bun test …` prints them. */
export function figure(label: string, value: number): number {
  if (process.env.SBORA_FIGURES) console.log(`    ${label}: ${value.toExponential(2)}`);
  return value;
}

export function valuesOf(rig: Rig, tensor: Tensor): Float64Array {
  return readF64(rig.device, tensor);
}

// ---- SmolLM2 ----------------------------------------------------------------------------------------------------

/** True where tests that take minutes are asked for. */
export const slow = Boolean(process.env.SBORA_SLOW);

const GGUF = resolve(import.meta.dir, "../../../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf");

/**
 * Folder of SmolLM2-135M-Instruct, or null: SBORA_SMOLLM2, else what an earlier run left in the cache, else converted
 * from ../shared/models now, which takes seconds.
 */
export function smolLm2(): `/${string}` | null {
  const given = process.env.SBORA_SMOLLM2;
  if (given) return resolve(given) as `/${string}`;
  const cached = join(cacheFolder(), "test-smollm2-135m") as `/${string}`;
  // config.json is written last
  if (existsSync(join(cached, "config.json"))) return cached;
  if (!existsSync(GGUF)) return null;
  convertGguf(GGUF, cached);
  return cached;
}
