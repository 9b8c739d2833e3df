/** The weights' part of a merge's proof (`verify.ts`) where the base's linears are 4-bit. */
import { narrow, widen } from "../formats/half.ts";
import { isNf4Part } from "../formats/nf4.ts";
import { readTensorBytes, type TensorEntry, type TensorToWrite } from "../formats/safetensors.ts";
import { deviations } from "./expected.ts";
import { type FourBit, writtenValues } from "./four-bit.ts";
import type { Part } from "./sources.ts";
import { reachOf, touchedBy, union } from "./touched.ts";

/** What was found about one tensor. */
export interface Counts {
  changed: number;
  outside: number;
  untouched: number;
  bad: number;
  recomputed: number;
  wrong: number;
}

/** Null: the tensor is none of the 4-bit ones. */
export function compareFourBit(
  fourBit: FourBit,
  name: string,
  after: ReadonlyMap<string, TensorEntry>,
  own: readonly Part[],
): Counts | null {
  const counts = { changed: 0, outside: 0, untouched: 0, bad: 0, recomputed: 0, wrong: 0 };
  const matrix = fourBit.matrices.get(name);
  if (!matrix) return isNf4Part(name) ? counts : null;
  const stored = fourBit.written === "nf4" ? "BF16" : fourBit.written;
  const before = matrix.values();
  const now = writtenValues(fourBit, name, after);
  if (!now || now.length !== before.length) return { ...counts, outside: before.length };
  if (fourBit.written === "nf4") counts.outside += differentParts(matrix.tensors(), after);
  // A model without codes holds the dequantized base rounded; codes hold it as it is.
  const expected = fourBit.written === "nf4" ? before : widen(stored, narrow(stored, before));
  const touched = own.length > 0 ? union(own.map(touchedBy)) : null;
  const reaches = reachOf(touched, matrix.out, matrix.in);
  for (let row = 0, i = 0; row < matrix.out; row++) {
    for (let column = 0; column < matrix.in; column++, i++) {
      const different = now[i] !== expected[i];
      if (!Number.isFinite(now[i])) counts.bad++;
      if (reaches(row, column)) counts.changed += different ? 1 : 0;
      else {
        counts.outside += different ? 1 : 0;
        counts.untouched++;
      }
    }
  }
  if (!touched) return counts;
  const { checked, wrong } = deviations(before, narrow(stored, now), stored, own, touched);
  return { ...counts, recomputed: checked, wrong };
}

/** Codes, scales and states that are not byte for byte what they were. */
function differentParts(tensors: readonly TensorToWrite[], after: ReadonlyMap<string, TensorEntry>): number {
  return tensors.filter(({ name, bytes }) => {
    const entry = after.get(name);
    const wanted = typeof bytes === "function" ? bytes() : bytes;
    return !entry || Buffer.compare(readTensorBytes(entry), wanted) !== 0;
  }).length;
}
