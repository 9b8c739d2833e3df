/**
 * Whose weights a merged model has: every column (SBoRA-FB: row) that one adapter reaches must be, bit for bit, the column
 * of the model into which that adapter was merged alone, and every other one the base's.
 */
import type { AdapterFolder } from "../src/adapters/storage.ts";
import { isFloatDtype } from "../src/formats/half.ts";
import { openModelTensors, readTensorBytes, type TensorEntry } from "../src/formats/safetensors.ts";
import { bitsOf } from "../src/merging/matrix.ts";

/** Counts over all adapted matrices. */
export interface Structure {
  readonly lines: "columns" | "rows";
  readonly matrices: number;
  /** Lines that exactly one adapter reaches; each is bit-equal to its single-merged model's. */
  readonly touched: number;
  /** Lines that several adapters reach: there the merge adds up what was trained apart. */
  readonly shared: number;
  /** Lines that none reaches; each is bit-equal to the base's, and so is every matrix without an adapter. */
  readonly untouched: number;
}

/** A model into which one adapter was merged, and that adapter. */
export interface SingleMerged {
  readonly dir: string;
  readonly folder: AdapterFolder;
}

/** @throws Error where a weight is not what it must be: a fault of the merge, not of the user */
export function compareMerged(base: string, merged: string, alone: readonly SingleMerged[]): Structure {
  const lines = alone[0]!.folder.method === "sbora-fa" ? "columns" : "rows";
  const before = openModelTensors(base);
  const together = openModelTensors(merged);
  const singles = alone.map(({ dir }) => openModelTensors(dir));
  const counts = { matrices: 0, touched: 0, shared: 0, untouched: 0 };
  for (const [name, entry] of together) {
    const module = name.replace(/^model\./, "").replace(/\.weight$/, "");
    const indices = alone.map(({ folder }) => folder.modules.get(module)?.index?.values ?? []);
    const references = [before, ...singles].map((tensors) => bits(tensors.get(name)!));
    const owners = ownersOf(entry, lines, indices);
    requireEqual(entry, lines, owners, bits(entry), references);
    if (indices.every((own) => own.length === 0)) continue;
    counts.matrices++;
    counts.touched += owners.filter((owner) => owner > 0).length;
    counts.shared += owners.filter((owner) => owner === SHARED).length;
    counts.untouched += owners.filter((owner) => owner === 0).length;
  }
  return { lines, ...counts };
}

const SHARED = -1;

/** By line: 0 nobody's (the base's), i + 1 the i-th adapter's, SHARED. A vector counts as one row. */
function ownersOf(
  { shape }: TensorEntry,
  lines: Structure["lines"],
  indices: readonly (readonly number[] | Int32Array | Float32Array)[],
): Int32Array {
  const width = shape.at(-1) ?? 1;
  const out = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const owners = new Int32Array(lines === "columns" ? width : out);
  indices.forEach((own, i) => {
    for (const line of own) owners[line] = owners[line] === 0 ? i + 1 : SHARED;
  });
  return owners;
}

function requireEqual(
  { name, shape }: TensorEntry,
  lines: Structure["lines"],
  owners: Int32Array,
  merged: Bits,
  references: readonly Bits[],
): void {
  const width = shape.at(-1) ?? 1;
  for (let i = 0; i < merged.length; i++) {
    const line = lines === "columns" ? i % width : Math.floor(i / width);
    const owner = owners[line]!;
    if (owner === SHARED || merged[i] === references[owner]![i]) continue;
    const whose = owner === 0 ? "the base's" : `the model's with adapter ${owner} alone`;
    throw new Error(`tensor ${name}: ${lines.slice(0, -1)} ${line} of the merged model is not ${whose}`);
  }
}

type Bits = Uint8Array | Uint16Array | Uint32Array;

function bits(entry: TensorEntry): Bits {
  const bytes = readTensorBytes(entry);
  if (!isFloatDtype(entry.dtype))
    throw new Error(`tensor ${entry.name} is ${entry.dtype}, expected a float type`);
  return bitsOf(entry.dtype, bytes);
}
