/**
 * Merging adapters into a model folder, tensor by tensor: a plain model comes out, with tokenizer, chat template,
 * settings, a model card and a record of what was done. Written beside `out` and renamed when the proof has passed.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, renameSync, rmdirSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { MERGE_ROWS } from "../adapters/draw.ts";
import { InputError } from "../errors.ts";
import { writeProblem, writeTextFile } from "../formats/files.ts";
import { type FloatDtype, isFloatDtype, narrow } from "../formats/half.ts";
import { copyCompanions, copyConfig, makeFolder } from "../formats/model-folder.ts";
import {
  readTensorBytes,
  type TensorEntry,
  type TensorToWrite,
  writeSafetensors,
} from "../formats/safetensors.ts";
import { writeModelTensors } from "../formats/safetensors-model-write.ts";
import { quantizationMismatch } from "../model/load-adapter.ts";
import type { Quantization } from "../model/nf4.ts";
import { planMerge } from "../model/planning.ts";
import { widestFeature } from "../model/shapes.ts";
import { createArena, freeArena } from "../native/arena.ts";
import { type Device, reserve } from "../native/device.ts";
import { fileHash } from "../reporting/manifest.ts";
import { modelCard } from "./card.ts";
import {
  type FourBit,
  type FourBitMatrix,
  fourBitOf,
  fourBitTensors,
  writeFourBitConfig,
} from "./four-bit.ts";
import { type MergedMatrix, mergeMatrix, readAsF32 } from "./matrix.ts";
import { isReversible, originalsPath, originalTensors } from "./originals.ts";
import {
  type AdapterSource,
  type Base,
  type LoadedSource,
  loadSources,
  openBase,
  type Part,
  partsByTensor,
  requireSummable,
} from "./sources.ts";
import { overlaps, requireDisjoint, touchedBy, touchedElements, union } from "./touched.ts";
import { notesOf, type Verification, verifyMerge } from "./verify.ts";

export const RECORD_FILE = "sbora-merge.json";

export interface MergeOptions {
  readonly device: Device;
  readonly modelDir: string;
  readonly adapters: readonly AdapterSource[];
  readonly out: string;
  /** Stored type of all weights; default: each as the base has it. */
  readonly dtype?: FloatDtype;
  /** Quantizes the base's linears first. */
  readonly quantize?: Quantization;
  readonly keepOriginals: boolean;
  readonly allowOverlap: boolean;
  readonly verify: boolean;
  readonly maxShardBytes?: number;
  /** Called before each tensor is written. */
  readonly onTensor?: (done: number, of: number) => void;
  /** Called between writing and proving. */
  readonly onVerify?: () => void;
  /** Remarks for the user, one paragraph each. */
  readonly onNote?: (text: string) => void;
}

export interface MatrixReport {
  readonly name: string;
  readonly elements: number;
  /** Weights the adapters reach. */
  readonly touched: number;
  /** … that f32 arithmetic changed, */
  readonly updates: number;
  /** … and that rounding to the stored type took back. */
  readonly lost: number;
  /** Weights that differ from the base's in the file; null without verification. */
  readonly changed: number | null;
}

export interface MergeReport {
  readonly base: {
    readonly name: string;
    readonly fingerprint: string;
    /** How its linears were brought into 4 bits first. */
    readonly quantize?: Quantization;
  };
  readonly adapters: readonly {
    readonly name: string;
    readonly method: string;
    readonly rank: number;
    readonly weight: number;
    readonly sha256: string;
  }[];
  readonly dtype: string;
  readonly matrices: readonly MatrixReport[];
  readonly verification: Verification | null;
}

/** @throws InputError for whatever does not fit together, and when the proof fails; `out` does not exist then */
export async function mergeModel(options: MergeOptions): Promise<MergeReport> {
  const { device, out, allowOverlap } = options;
  requireNewFolder(out);
  const base = openBase(options.modelDir, options.quantize);
  const sources = loadSources(base, options.adapters);
  requireSummable(sources);
  for (const { folder } of sources) {
    const otherBits = quantizationMismatch(folder, options.quantize);
    if (otherBits) options.onNote?.(otherBits);
  }
  if (allowOverlap) for (const sentence of overlaps(sources)) options.onNote?.(`${sentence}; they add up.`);
  else requireDisjoint(sources);
  const parts = partsByTensor(base, sources);
  const fourBit = fourBitOf(device, base, sources, parts, options.dtype);
  if (options.keepOriginals) {
    if (fourBit) requireLines(fourBit);
    else requireReversible(base, parts, options.dtype);
  }
  return intoNewFolder(out, async (dir) => {
    const written = writeMerged(dir, base, sources, parts, options, fourBit);
    if (options.keepOriginals && !fourBit) writeOriginals(dir, base, parts, options.dtype);
    options.onVerify?.();
    const verification = options.verify ? await verifyMerge(device, base, sources, dir, fourBit) : null;
    for (const note of verification ? notesOf(verification) : []) options.onNote?.(note);
    const report = reportOf(base, sources, written, verification, fourBit?.written ?? options.dtype);
    const record = { schemaVersion: 1, ...report };
    writeTextFile(join(dir, RECORD_FILE), `${JSON.stringify(record, null, 2)}\n`);
    writeTextFile(join(dir, "README.md"), modelCard(basename(resolve(out)), report, options.keepOriginals));
    return report;
  });
}

/** Refuses to write over what is there. */
export function requireNewFolder(out: string): void {
  if (!existsSync(out)) return;
  let names: string[];
  try {
    names = readdirSync(out);
  } catch {
    throw new InputError(`${out}: is no folder; choose another --out.`);
  }
  if (names.length > 0) throw new InputError(`${out}: the folder is not empty; choose another --out.`);
}

/** Lets `fill` write a folder beside `out` and renames it; when anything goes wrong, nothing is left. */
export async function intoNewFolder<T>(out: string, fill: (dir: string) => Promise<T>): Promise<T> {
  const target = existsSync(out) ? realpathSync(out) : resolve(out);
  makeFolder(dirname(target));
  const dir = join(dirname(target), `.${basename(target)}.${process.pid}.tmp`);
  rmSync(dir, { recursive: true, force: true });
  makeFolder(dir);
  try {
    const result = await fill(dir);
    // Only while it is empty still: another run may have written there meanwhile.
    if (existsSync(target)) rmdirSync(target);
    renameSync(dir, target);
    return result;
  } catch (error) {
    rmSync(dir, { recursive: true, force: true });
    throw writeProblem(target, error);
  }
}

type Written = Omit<MatrixReport, "changed">;

function writeMerged(
  dir: string,
  base: Base,
  sources: readonly LoadedSource[],
  parts: ReadonlyMap<string, readonly Part[]>,
  options: MergeOptions,
  fourBit: FourBit | null,
): Written[] {
  const { device, dtype, maxShardBytes, onTensor } = options;
  const load = { compute: "f32", positions: 1 } as const;
  const bytes = Math.max(...sources.map((source) => planMerge(base.config, load, source.options)));
  const rank = Math.max(...sources.map((source) => source.options.rank));
  reserve(device, {
    tokens: Math.max(rank, MERGE_ROWS),
    width: widestFeature(base.config),
    rank,
    vocabulary: 0,
  });
  const scratch = createArena(device, bytes);
  const written: Written[] = [];
  let done = 0;
  const record = (
    { name, out, in: width }: Pick<FourBitMatrix, "name" | "out" | "in">,
    own: readonly Part[],
    { updates, lost }: Pick<MergedMatrix, "updates" | "lost">,
  ): void => {
    const touched = touchedElements(union(own.map(touchedBy)), out, width);
    written.push({ name, elements: out * width, touched, updates, lost });
  };
  const fileOf = new Map<string, string>();
  const tensors = [...base.tensors.values()].flatMap((entry): TensorToWrite[] => {
    const own = parts.get(entry.name);
    const codes = fourBit && fourBitTensors(fourBit, entry.name, own, { device, scratch, onMerged: record });
    for (const { name } of codes ?? [entry]) fileOf.set(name, entry.file);
    if (codes) return codes;
    const stored = dtype && isFloatDtype(entry.dtype) ? dtype : entry.dtype;
    const write = (): Uint8Array => {
      onTensor?.(done++, base.tensors.size);
      if (!own)
        return stored === entry.dtype
          ? readTensorBytes(entry)
          : narrow(stored as FloatDtype, readAsF32(entry));
      const merged = mergeMatrix(device, entry, own, stored as FloatDtype, scratch);
      const [out, width] = entry.shape as [number, number];
      record({ name: entry.name, out, in: width }, own, merged);
      return merged.bytes;
    };
    return [{ name: entry.name, dtype: stored, shape: entry.shape, bytes: write }];
  });
  try {
    const groups = shardsOf(tensors.map(({ name }) => ({ name, file: fileOf.get(name)! })));
    writeModelTensors(dir, tensors, { groups, ...(maxShardBytes ? { maxShardBytes } : {}) });
  } finally {
    freeArena(scratch);
  }
  copyCompanions(base.dir, dir);
  if (fourBit) writeFourBitConfig(fourBit, base, dir);
  else copyConfig(base.dir, dir, dtype);
  return written.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

/** Tensor names by the file they lie in. */
export function shardsOf(tensors: Iterable<Pick<TensorEntry, "file" | "name">>): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const { file, name } of tensors) {
    const group = groups.get(file);
    if (group) group.push(name);
    else groups.set(file, [name]);
  }
  return groups;
}

/** @throws InputError unless codes are kept, beside which the merge can be taken out again without originals */
function requireLines({ written }: FourBit): void {
  if (written === "nf4") return;
  throw new InputError(
    "--keep-originals: the base's weights are 4-bit and the merged model's are not, so every one of them is new; keep the base's folder.",
  );
}

function requireReversible(
  base: Base,
  parts: ReadonlyMap<string, readonly Part[]>,
  dtype: FloatDtype | undefined,
): void {
  if (!dtype) return;
  for (const { name, dtype: stored } of base.tensors.values()) {
    if (parts.has(name) || !isFloatDtype(stored) || isReversible(stored, dtype)) continue;
    throw new InputError(
      `--keep-originals: the base's ${name} is ${stored}, which ${dtype} cannot give back bit by bit; keep the base's type, ` +
        `or take --dtype f32.`,
    );
  }
}

function writeOriginals(
  dir: string,
  base: Base,
  parts: ReadonlyMap<string, readonly Part[]>,
  dtype: FloatDtype | undefined,
): void {
  const tensors = [...parts].flatMap(([name, own]) =>
    originalTensors(base.tensors.get(name)!, union(own.map(touchedBy))),
  );
  const types = [...base.tensors.values()].flatMap(({ name, dtype: stored }) =>
    dtype && isFloatDtype(stored) && stored !== dtype ? [[name, stored]] : [],
  );
  writeSafetensors(originalsPath(dir), tensors, {
    schemaVersion: "1",
    base: base.fingerprint,
    baseName: base.config.nameOrPath,
    dtypes: JSON.stringify(Object.fromEntries(types)),
    config: readFileSync(join(base.dir, "config.json"), "utf8"),
  });
}

function reportOf(
  base: Base,
  sources: readonly LoadedSource[],
  written: readonly Written[],
  verification: Verification | null,
  dtype: string | undefined,
): MergeReport {
  const types = new Set([...base.tensors.values()].map((entry) => entry.dtype));
  return {
    base: {
      ...{ name: base.config.nameOrPath, fingerprint: base.fingerprint },
      ...(base.quantize ? { quantize: base.quantize } : {}),
    },
    adapters: sources.map(({ dir, weight, folder, options }) => ({
      name: basename(resolve(dir)),
      method: options.method.name,
      rank: options.rank,
      weight,
      sha256: fileHash(folder.file),
    })),
    dtype: dtype ?? [...types].sort().join("+"),
    matrices: written.map((matrix) => ({ ...matrix, changed: verification?.changed[matrix.name] ?? null })),
    verification,
  };
}
