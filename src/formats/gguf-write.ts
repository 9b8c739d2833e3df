/** Writes GGUF files, version 3: metadata, tensor infos, then the tensors' data, one tensor in memory at a time. */
import { replaceFile, writeFully } from "./files.ts";
import { GGML_TYPES } from "./gguf-quants.ts";
import { bytesOf } from "./half.ts";

/** A metadata value with the type it is written as. */
export type GgufMetadata =
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly text: string }
  | { readonly texts: readonly string[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] };

export interface GgufTensorToWrite {
  readonly name: string;
  /** Row-major, outermost first. */
  readonly shape: readonly number[];
  /** Name of a ggml type ("F32", "Q8_0"); rows must be whole blocks. */
  readonly type: string;
  /** Called once, when the tensor's turn comes. */
  readonly bytes: () => Uint8Array;
}

const ALIGNMENT = 32;
const VERSION = 3;

/** Writes `path` atomically. @throws InputError when the disk is full or the folder unwritable */
export function writeGguf(
  path: string,
  metadata: Readonly<Record<string, GgufMetadata>>,
  tensors: readonly GgufTensorToWrite[],
): void {
  let offset = 0;
  const placed = tensors.map((tensor) => {
    const size = sizeOf(tensor);
    const start = offset;
    offset += padded(size);
    return { ...tensor, size, start };
  });
  const head = concat([
    new TextEncoder().encode("GGUF"),
    u32(VERSION),
    u64(tensors.length),
    u64(Object.keys(metadata).length),
    ...Object.entries(metadata).flatMap(([key, value]) => [text(key), ...typed(value)]),
    ...placed.flatMap(({ name, shape, type, start }) => [
      text(name),
      u32(shape.length),
      ...[...shape].reverse().map(u64),
      u32(typeNumber(type)),
      u64(start),
    ]),
  ]);
  replaceFile(path, (fd) => {
    writeFully(fd, head);
    writeFully(fd, new Uint8Array(padded(head.length) - head.length));
    for (const { name, size, bytes } of placed) {
      const data = bytes();
      if (data.length !== size)
        throw new Error(`${path}: tensor ${name} was given ${data.length} bytes, not ${size}`);
      writeFully(fd, data);
      writeFully(fd, new Uint8Array(padded(size) - size));
    }
  });
}

function padded(size: number): number {
  return Math.ceil(size / ALIGNMENT) * ALIGNMENT;
}

function typeNumber(name: string): number {
  for (const [number, type] of GGML_TYPES) if (type.name === name) return number;
  throw new Error(`${name} is no ggml type`);
}

/** Bytes of a tensor. */
function sizeOf({ name, shape, type }: GgufTensorToWrite): number {
  const { elements, bytes } = GGML_TYPES.get(typeNumber(type))!;
  const width = shape.at(-1) ?? 1;
  if (width % elements !== 0) throw new Error(`tensor ${name}: rows of ${width} are no whole ${type} blocks`);
  return (shape.reduce((a, b) => a * b, 1) / elements) * bytes;
}

const u32 = (value: number): Uint8Array => bytesOf(Uint32Array.of(value));
const u64 = (value: number): Uint8Array => bytesOf(BigUint64Array.of(BigInt(value)));

function text(value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  return concat([u64(bytes.length), bytes]);
}

/** Type number and value; 9 is an array with the type of its elements. */
function typed(value: GgufMetadata): Uint8Array[] {
  if ("u32" in value) return [u32(4), u32(value.u32)];
  if ("f32" in value) return [u32(6), bytesOf(Float32Array.of(value.f32))];
  if ("bool" in value) return [u32(7), Uint8Array.of(value.bool ? 1 : 0)];
  if ("text" in value) return [u32(8), text(value.text)];
  if ("texts" in value) return [u32(9), u32(8), u64(value.texts.length), ...value.texts.map(text)];
  if ("i32s" in value) return [u32(9), u32(5), u64(value.i32s.length), bytesOf(Int32Array.from(value.i32s))];
  return [u32(9), u32(6), u64(value.f32s.length), bytesOf(Float32Array.from(value.f32s))];
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
