/**
 * Reads GGUF files, versions 2 and 3, little-endian: magic, version, counts, metadata (key, type, value), tensor infos
 * (name, sizes, type, offset), then the tensors' data, aligned. Nothing of the data is read here but by `readGgufTensor`.
 */
import { InputError, Problems } from "../errors.ts";
import { readExactly, withFile } from "./files.ts";
import { GGML_TYPES, type GgmlType } from "./gguf-quants.ts";
import {
  type Cursor,
  type GgufValue,
  openCursor,
  readString,
  readU32,
  readU64,
  readValue,
} from "./gguf-values.ts";

export type { GgufValue } from "./gguf-values.ts";

export const MAX_METADATA = 65_536;
export const MAX_TENSORS = 262_144;
export const MAX_KEY_BYTES = 65_535;
export const MAX_TENSOR_NAME_BYTES = 1024;
export const MAX_DIMENSIONS = 4;
export const MAX_ALIGNMENT = 1 << 20;
const MAX_TENSOR_BYTES = 2n ** 32n;
const VERSIONS = [2, 3];

export interface GgufTensor {
  readonly name: string;
  /** Row-major, outermost first: a matrix is [out, in]. (The file states them the other way round.) */
  readonly shape: readonly number[];
  readonly type: GgmlType;
  /** Absolute byte offsets in the file. */
  readonly start: number;
  readonly end: number;
}

export interface GgufFile {
  readonly path: string;
  readonly bytes: number;
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/** @throws InputError naming the file, the key or tensor, the value and the limit */
export function readGguf(path: string): GgufFile {
  return withFile(path, (fd, bytes) => {
    const cursor = openCursor(path, fd, bytes);
    const version = readStart(cursor);
    const tensorCount = count(cursor, "tensors", MAX_TENSORS);
    const metadataCount = count(cursor, "metadata entries", MAX_METADATA);
    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < metadataCount; i++) {
      const key = readString(cursor, `the key of metadata entry ${i}`, MAX_KEY_BYTES);
      if (metadata.has(key))
        throw new InputError(`${path}: the metadata key ${JSON.stringify(key)} stands twice.`);
      metadata.set(key, readValue(cursor, `metadata ${JSON.stringify(key)}`));
    }
    const infos = Array.from({ length: tensorCount }, (_, i) => readInfo(cursor, i));
    const tensors = placeTensors(cursor, infos, alignmentOf(path, metadata));
    return { path, bytes, version, metadata, tensors };
  });
}

/** The tensor's bytes as they lie in the file. */
export function readGgufTensor(file: GgufFile, tensor: GgufTensor): Uint8Array {
  const bytes = new Uint8Array(tensor.end - tensor.start);
  withFile(file.path, (fd) => readExactly(fd, bytes, tensor.start, file.path));
  return bytes;
}

function readStart(cursor: Cursor): number {
  const magic = readU32(cursor, "the magic number");
  if (magic !== 0x46554747) throw new InputError(`${cursor.path}: the file does not start with "GGUF".`);
  const version = readU32(cursor, "the version");
  if (VERSIONS.includes(version)) return version;
  const bigEndian = (version & 0xffff) === 0 ? " (the file is big-endian)" : "";
  throw new InputError(
    `${cursor.path}: GGUF version ${version}${bigEndian}, expected ${VERSIONS.join(" or ")}.`,
  );
}

function count(cursor: Cursor, what: string, limit: number): number {
  const value = readU64(cursor, `the number of ${what}`);
  if (value <= BigInt(limit)) return Number(value);
  throw new InputError(`${cursor.path}: ${value} ${what}, at most ${limit} are allowed.`);
}

function alignmentOf(path: string, metadata: ReadonlyMap<string, GgufValue>): number {
  const value = metadata.get("general.alignment") ?? 32;
  if (typeof value === "number" && value >= 8 && value <= MAX_ALIGNMENT && Number.isInteger(Math.log2(value)))
    return value;
  throw new InputError(
    `${path}: general.alignment is ${value}, expected a power of two from 8 to ${MAX_ALIGNMENT}.`,
  );
}

interface TensorInfo {
  readonly name: string;
  readonly sizes: readonly bigint[];
  readonly type: GgmlType;
  readonly offset: bigint;
}

function readInfo(cursor: Cursor, i: number): TensorInfo {
  const name = readString(cursor, `the name of tensor ${i}`, MAX_TENSOR_NAME_BYTES);
  const what = `tensor ${JSON.stringify(name)}`;
  const dimensions = readU32(cursor, what);
  if (dimensions > MAX_DIMENSIONS) {
    throw new InputError(
      `${cursor.path}: ${what} has ${dimensions} dimensions, at most ${MAX_DIMENSIONS} are allowed.`,
    );
  }
  const sizes = Array.from({ length: dimensions }, () => readU64(cursor, what));
  const id = readU32(cursor, what);
  const type = GGML_TYPES.get(id);
  if (!type) throw new InputError(`${cursor.path}: ${what} has the unknown type ${id}.`);
  return { name, sizes, type, offset: readU64(cursor, what) };
}

/** Absolute positions of all tensors, checked for size, alignment, overlap and the end of the file. */
function placeTensors(
  cursor: Cursor,
  infos: readonly TensorInfo[],
  alignment: number,
): Map<string, GgufTensor> {
  const dataStart = BigInt(Math.ceil(cursor.position / alignment) * alignment);
  const problems = new Problems();
  const tensors = new Map<string, GgufTensor>();
  for (const { name, sizes, type, offset } of infos) {
    const start = dataStart + offset;
    const row = sizes[0] ?? 1n;
    const elements = sizes.reduce((a, b) => a * b, 1n);
    const bytes = (elements / BigInt(type.elements)) * BigInt(type.bytes);
    if (tensors.has(name)) problems.add(`tensor ${name} stands twice`);
    if (row % BigInt(type.elements) !== 0n) {
      problems.add(
        `tensor ${name} has rows of ${row} elements, ${type.name} needs a multiple of ${type.elements}`,
      );
    }
    if (offset % BigInt(alignment) !== 0n)
      problems.add(`tensor ${name} lies at ${offset}, not a multiple of ${alignment}`);
    if (bytes > MAX_TENSOR_BYTES)
      problems.add(`tensor ${name} has ${bytes} bytes, at most ${MAX_TENSOR_BYTES} are allowed`);
    else if (start + bytes > BigInt(cursor.bytes)) {
      problems.add(`tensor ${name} ends at byte ${start + bytes}, but the file has ${cursor.bytes}`);
    }
    const shape = sizes.map(Number).reverse();
    tensors.set(name, { name, shape, type, start: Number(start), end: Number(start + bytes) });
  }
  problems.throwIfAny(cursor.path, "The file is damaged or was not completely downloaded.");
  const sorted = [...tensors.values()].sort((a, b) => a.start - b.start || a.end - b.end);
  sorted.forEach((tensor, i) => {
    const before = sorted[i - 1];
    if (before && before.end > tensor.start)
      problems.add(`tensors ${before.name} and ${tensor.name} overlap`);
  });
  problems.throwIfAny(cursor.path);
  return tensors;
}
