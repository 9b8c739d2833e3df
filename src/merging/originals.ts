/**
 * What a merge overwrote, kept beside the merged model so that it can be taken back bit by bit: for each adapted matrix
 * `<name>.columns` int32 [r] and `<name>.values` [out,r] (SBoRA-FB: `.rows`, values [r,in]), or `<name>` as a whole.
 */
import { join } from "node:path";
import { isFloatDtype } from "../formats/half.ts";
import { readTensorBytes, type TensorEntry, type TensorToWrite } from "../formats/safetensors.ts";
import type { Touched, TouchedLines } from "./touched.ts";

export function originalsPath(dir: string): string {
  return join(dir, "originals.safetensors");
}

/** The tensors that say what `entry` was where `touched` reaches it. */
export function originalTensors(entry: TensorEntry, touched: Touched): TensorToWrite[] {
  const { name, dtype, shape } = entry;
  if (touched.kind === "all") return [{ name, dtype, shape, bytes: () => readTensorBytes(entry) }];
  const [out, width] = shape as [number, number];
  const { kind, index } = touched;
  const values = kind === "columns" ? [out, index.length] : [index.length, width];
  const indexBytes = new Uint8Array(index.buffer, index.byteOffset, index.byteLength);
  return [
    { name: `${name}.${kind}`, dtype: "I32", shape: [index.length], bytes: indexBytes },
    { name: `${name}.values`, dtype, shape: values, bytes: () => gather(entry, touched) },
  ];
}

function gather(entry: TensorEntry, lines: TouchedLines): Uint8Array {
  return gatherLines(readTensorBytes(entry), lines, entry.shape as [number, number]);
}

/** Bytes of the touched columns or rows of a whole matrix, in ascending order. */
export function gatherLines(
  all: Uint8Array,
  { kind, index }: TouchedLines,
  [out, width]: readonly [number, number],
): Uint8Array {
  const size = all.length / (out * width);
  const taken = new Uint8Array(index.length * (kind === "columns" ? out : width) * size);
  forEachPiece(kind, index, out, width, (at, from, length) => {
    taken.set(all.subarray(from * size, (from + length) * size), at * size);
  });
  return taken;
}

/** Puts gathered bytes back into the whole matrix. */
export function scatter(
  all: Uint8Array,
  values: Uint8Array,
  { kind, index }: TouchedLines,
  [out, width]: readonly [number, number],
): void {
  const size = all.length / (out * width);
  forEachPiece(kind, index, out, width, (from, at, length) => {
    all.set(values.subarray(from * size, (from + length) * size), at * size);
  });
}

/** Element offsets of each run, in the gathered values and in the matrix. */
function forEachPiece(
  kind: "columns" | "rows",
  index: Int32Array,
  out: number,
  width: number,
  visit: (gathered: number, matrix: number, length: number) => void,
): void {
  if (kind === "rows") {
    index.forEach((row, j) => {
      visit(j * width, row * width, width);
    });
    return;
  }
  for (let row = 0; row < out; row++) {
    for (let j = 0; j < index.length; j++) visit(row * index.length + j, row * width + index[j]!, 1);
  }
}

/** Whether values of the first type can be stored in the second and read back as they were. */
export function isReversible(from: string, to: string): boolean {
  return from === to || (to === "F32" && isFloatDtype(from));
}
