/** GGUF's primitive values, read one after the other through a window over the file; each read is checked against its end. */
import { InputError, messageOf } from "../errors.ts";
import { readExactly } from "./files.ts";

export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

export const MAX_STRING_BYTES = 1 << 24;
export const MAX_ARRAY_LENGTH = 1 << 24;
export const MAX_ARRAY_DEPTH = 3;
const WINDOW_BYTES = 1 << 20;

export interface Cursor {
  readonly path: string;
  readonly fd: number;
  /** Length of the file. */
  readonly bytes: number;
  position: number;
  /** Bytes of the file from `windowStart` on. */
  window: Uint8Array;
  windowStart: number;
}

export function openCursor(path: string, fd: number, bytes: number): Cursor {
  return { path, fd, bytes, position: 0, window: new Uint8Array(0), windowStart: 0 };
}

/** The next `length` bytes as a view that is valid until the next read. */
function take(cursor: Cursor, length: number, what: string): DataView {
  const { position } = cursor;
  if (length > cursor.bytes - position) {
    throw new InputError(
      `${cursor.path}: ${what} needs ${length} bytes at ${position}, but the file has ${cursor.bytes}; it is cut or damaged.`,
    );
  }
  if (position < cursor.windowStart || position + length > cursor.windowStart + cursor.window.length) {
    const size = Math.min(Math.max(length, WINDOW_BYTES), cursor.bytes - position);
    cursor.window = new Uint8Array(size);
    cursor.windowStart = position;
    readExactly(cursor.fd, cursor.window, position, cursor.path);
  }
  cursor.position = position + length;
  return new DataView(cursor.window.buffer, position - cursor.windowStart, length);
}

export function readU32(cursor: Cursor, what: string): number {
  return take(cursor, 4, what).getUint32(0, true);
}

export function readU64(cursor: Cursor, what: string): bigint {
  return take(cursor, 8, what).getBigUint64(0, true);
}

/** u64 length and UTF-8 bytes. */
export function readString(cursor: Cursor, what: string, limit = MAX_STRING_BYTES): string {
  const length = readU64(cursor, what);
  if (length > BigInt(limit)) {
    throw new InputError(`${cursor.path}: ${what} has ${length} bytes, at most ${limit} are allowed.`);
  }
  const bytes = take(cursor, Number(length), what);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new InputError(`${cursor.path}: ${what} is not valid UTF-8 (${messageOf(error)}).`);
  }
}

type ReadScalar = (cursor: Cursor, what: string) => GgufValue;

/** Readers by type number; 9 is the array. 64-bit integers become numbers where a number holds them exactly. */
const SCALARS: ReadonlyMap<number, ReadScalar> = new Map<number, ReadScalar>([
  [0, (c, what) => take(c, 1, what).getUint8(0)],
  [1, (c, what) => take(c, 1, what).getInt8(0)],
  [2, (c, what) => take(c, 2, what).getUint16(0, true)],
  [3, (c, what) => take(c, 2, what).getInt16(0, true)],
  [4, (c, what) => take(c, 4, what).getUint32(0, true)],
  [5, (c, what) => take(c, 4, what).getInt32(0, true)],
  [6, (c, what) => take(c, 4, what).getFloat32(0, true)],
  [7, readBool],
  [8, (c, what) => readString(c, what)],
  [10, (c, what) => narrow(take(c, 8, what).getBigUint64(0, true))],
  [11, (c, what) => narrow(take(c, 8, what).getBigInt64(0, true))],
  [12, (c, what) => take(c, 8, what).getFloat64(0, true)],
]);

const ARRAY = 9;

function readBool(cursor: Cursor, what: string): boolean {
  const byte = take(cursor, 1, what).getUint8(0);
  if (byte > 1)
    throw new InputError(`${cursor.path}: ${what} is a boolean with the byte ${byte}, expected 0 or 1.`);
  return byte === 1;
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** A type number and the value behind it. */
export function readValue(cursor: Cursor, what: string): GgufValue {
  return readTyped(cursor, what, readU32(cursor, what), 0);
}

function readTyped(cursor: Cursor, what: string, type: number, depth: number): GgufValue {
  if (type !== ARRAY) {
    const read = SCALARS.get(type);
    if (!read) throw new InputError(`${cursor.path}: ${what} has the unknown value type ${type}.`);
    return read(cursor, what);
  }
  if (depth >= MAX_ARRAY_DEPTH) {
    throw new InputError(`${cursor.path}: ${what} nests arrays deeper than ${MAX_ARRAY_DEPTH}.`);
  }
  const element = readU32(cursor, what);
  const length = readU64(cursor, what);
  // Every element takes at least one byte (an inner array more), so a count beyond the file is refused at once.
  const room = BigInt(Math.min(MAX_ARRAY_LENGTH, cursor.bytes - cursor.position));
  if (length > room)
    throw new InputError(`${cursor.path}: ${what} has ${length} elements, at most ${room} are possible.`);
  const values: GgufValue[] = [];
  for (let i = 0; i < length; i++) values.push(readTyped(cursor, what, element, depth + 1));
  return values;
}
