/**
 * The header of a safetensors file, checked against every rule of the format: 8 bytes length N (u64, little-endian), N
 * bytes JSON `{name: {dtype, shape, data_offsets}, __metadata__?}`, then the tensors' bytes without holes.
 */
import { InputError, messageOf, Problems } from "../errors.ts";
import { readExactly, withFile } from "./files.ts";
import { findDuplicateKey, isObject, type Json, type JsonObject, property } from "./json.ts";

/** The reference implementation's own limit. */
export const MAX_HEADER_BYTES = 100_000_000;
export const MAX_TENSORS = 1_000_000;
export const MAX_NAME_LENGTH = 1024;
export const MAX_RANK = 32;

/** Bits per element, in the reference implementation's order: its writer stores the last of them first. */
export const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type SafetensorsDtype = keyof typeof DTYPE_BITS;

/** Where one tensor lies: bytes `start` to `end` (absolute) of `file`, row-major, little-endian. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly file: string;
  readonly start: number;
  readonly end: number;
}

export interface SafetensorsFile {
  readonly path: string;
  /** Length of the whole file. */
  readonly bytes: number;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

export function isDtype(value: Json | undefined): value is SafetensorsDtype {
  return typeof value === "string" && Object.hasOwn(DTYPE_BITS, value);
}

/** Exact size of a tensor in bits; shapes from outside may be beyond what a number holds. */
export function tensorBits(dtype: SafetensorsDtype, shape: readonly number[]): bigint {
  return shape.reduce((product, size) => product * BigInt(size), BigInt(DTYPE_BITS[dtype]));
}

/** Reads and checks the header; the data is not touched. @throws InputError naming file, tensor, value, limit */
export function readSafetensorsHeader(path: string): SafetensorsFile {
  return withFile(path, (fd, bytes) => {
    if (bytes < 8) throw new InputError(`${path}: ${bytes} bytes; a safetensors file has at least 8.`);
    const first = new Uint8Array(8);
    readExactly(fd, first, 0, path);
    const header = new Uint8Array(headerLength(path, first, bytes));
    readExactly(fd, header, 8, path);
    return parseHeader(path, header, bytes);
  });
}

/**
 * The header's length out of the first 8 bytes of a file of `fileBytes`.
 * @throws InputError when no such header fits
 */
function headerLength(path: string, first8: Uint8Array, fileBytes: number): number {
  const length = new DataView(first8.buffer, first8.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new InputError(
      `${path}: the header's length is ${length} bytes, at most ${MAX_HEADER_BYTES} are allowed; is this a safetensors file?`,
    );
  }
  if (length < 2n || length + 8n > BigInt(fileBytes)) {
    throw new InputError(
      `${path}: the header's length is ${length} bytes, but the file has ${fileBytes} (8 belong to the length itself).`,
    );
  }
  return Number(length);
}

/** Parses and checks the JSON of a header; `fileBytes` is the length of the whole file. */
function parseHeader(path: string, header: Uint8Array, fileBytes: number): SafetensorsFile {
  const json = parseJson(path, header);
  const dataStart = 8 + header.length;
  const dataBytes = fileBytes - dataStart;
  const problems = new Problems();
  const entries: TensorEntry[] = [];
  const names = Object.keys(json).filter((name) => name !== "__metadata__");
  if (names.length > MAX_TENSORS) {
    throw new InputError(`${path}: ${names.length} tensors, at most ${MAX_TENSORS} are allowed.`);
  }
  for (const name of names) {
    const found = parseEntry(name, property(json, name), dataBytes);
    if (typeof found === "string") problems.add(`tensor ${shown(name)}: ${found}`);
    else
      entries.push({
        ...found,
        name,
        file: path,
        start: dataStart + found.start,
        end: dataStart + found.end,
      });
  }
  const metadata = parseMetadata(property(json, "__metadata__"), problems);
  problems.throwIfAny(path);
  checkLayout(entries, dataStart, fileBytes, problems);
  problems.throwIfAny(path, "The file is damaged or was not completely downloaded.");
  return { path, bytes: fileBytes, metadata, tensors: new Map(entries.map((entry) => [entry.name, entry])) };
}

function parseJson(path: string, header: Uint8Array): JsonObject {
  if (header[0] !== 0x7b)
    throw new InputError(`${path}: the header must start with "{"; this is no safetensors file.`);
  let text: string;
  let json: Json;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header);
    json = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: the header is not valid UTF-8 JSON (${messageOf(error)}).`);
  }
  if (!isObject(json)) throw new InputError(`${path}: the header is not a JSON object.`);
  const doubled = findDuplicateKey(text);
  if (doubled !== null) {
    throw new InputError(`${path}: the header holds the key ${shown(doubled)} twice in one object.`);
  }
  return json;
}

/** dtype, shape and offsets relative to the data, or what is wrong with them. */
function parseEntry(
  name: string,
  value: Json | undefined,
  dataBytes: number,
): string | Pick<TensorEntry, "dtype" | "shape" | "start" | "end"> {
  if (name.length > MAX_NAME_LENGTH)
    return `the name has ${name.length} characters, at most ${MAX_NAME_LENGTH} are allowed`;
  if (!name.isWellFormed()) return "the name is not valid Unicode";
  if (!isObject(value)) return `expected an object, found ${shown(value)}`;
  const dtype = property(value, "dtype");
  if (!isDtype(dtype)) return `dtype ${shown(dtype)}, expected one of ${Object.keys(DTYPE_BITS).join(", ")}`;
  const shape = property(value, "shape");
  if (!isSizes(shape)) return `shape ${shown(shape)}, expected an array of non-negative integers below 2^53`;
  if (shape.length > MAX_RANK) return `${shape.length} dimensions, at most ${MAX_RANK} are allowed`;
  const offsets = property(value, "data_offsets");
  if (!isSizes(offsets) || offsets.length !== 2)
    return `data_offsets ${shown(offsets)}, expected two non-negative integers`;
  const unknown = Object.keys(value).find((key) => !["dtype", "shape", "data_offsets"].includes(key));
  if (unknown !== undefined) return `unknown field ${shown(unknown)}`;
  const [start = 0, end = 0] = offsets;
  if (start > end) return `data_offsets [${start}, ${end}], the start lies behind the end`;
  if (end > dataBytes) return `data_offsets end at ${end}, but the file holds ${dataBytes} bytes of data`;
  const bits = tensorBits(dtype, shape);
  if (bits !== BigInt(end - start) * 8n) {
    const size = bits % 8n === 0n ? `${bits / 8n} bytes` : `${bits} bits, not whole bytes`;
    return `data_offsets hold ${end - start} bytes, but ${dtype} [${shape.join(", ")}] has ${size}`;
  }
  return { dtype, shape, start, end };
}

function isSizes(value: Json | undefined): value is number[] {
  return (
    Array.isArray(value) && value.every((n) => typeof n === "number" && Number.isSafeInteger(n) && n >= 0)
  );
}

function parseMetadata(value: Json | undefined, problems: Problems): Map<string, string> {
  const metadata = new Map<string, string>();
  if (value === undefined) return metadata;
  if (!isObject(value)) {
    problems.add(`__metadata__ is ${shown(value)}, expected an object of strings`);
    return metadata;
  }
  for (const [key, text] of Object.entries(value)) {
    if (typeof text === "string") metadata.set(key, text);
    else problems.add(`__metadata__ ${shown(key)} is ${shown(text)}, expected a string`);
  }
  return metadata;
}

/** Sorted by position, each tensor must start where the one before ends, from the first byte of data to the last. */
function checkLayout(entries: TensorEntry[], dataStart: number, fileBytes: number, problems: Problems): void {
  const sorted = [...entries].sort((a, b) => a.start - b.start || a.end - b.end);
  let end = dataStart;
  for (const entry of sorted) {
    if (entry.start !== end) {
      const what = entry.start < end ? "overlaps the tensor before it" : "leaves a hole before it";
      problems.add(
        `tensor ${shown(entry.name)}: starts at byte ${entry.start} of the file and ${what}, expected ${end}`,
      );
    }
    end = Math.max(end, entry.end);
  }
  if (end !== fileBytes) problems.add(`the tensors end at byte ${end}, but the file has ${fileBytes}`);
}

/** A foreign value in a message: quoted, and not longer than a line. */
function shown(value: Json | undefined): string {
  const text = value === undefined ? "nothing" : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
