/**
 * OA, Orthogonal Adaptation (paper §3, protocol §1.4): A is r rows of an orthogonal basis, frozen. The official
 * repository has no code for it; we orthonormalise r Gaussian vectors, which has the same distribution as r rows of one
 * random orthogonal matrix.
 */
import { randomNormal } from "../native/ops/index.ts";
import { streamKey } from "../native/streams.ts";
import { readF64, writeF32 } from "../native/tensor.ts";
import { factor } from "./adapter.ts";
import { frozenA } from "./frozen-a.ts";

export const oa = frozenA({
  name: "oa",
  title: "OA",
  summary: "A = r orthonormal rows, frozen; trains B [out,r]",
  maxRank: (site) => site.in,
  initialise(device, adapter, _weight, draw) {
    const { rank, in: width, module } = adapter.site;
    const A = factor(adapter.frozen, "A");
    randomNormal(device, streamKey(draw.seed, "init", module), A);
    writeF32(device, A, orthonormalRows(readF64(device, A), rank, width));
  },
});

/** Gram-Schmidt over the rows of a[rank,width], each row swept twice so that A·Aᵀ = I to float64 rounding. */
export function orthonormalRows(a: Float64Array, rank: number, width: number): Float64Array {
  const row = (i: number): Float64Array => a.subarray(i * width, (i + 1) * width);
  for (let i = 0; i < rank; i++) {
    const current = row(i);
    for (let sweep = 0; sweep < 2; sweep++) {
      for (let j = 0; j < i; j++) {
        const basis = row(j);
        const overlap = dot(current, basis);
        for (let k = 0; k < width; k++) current[k]! -= overlap * basis[k]!;
      }
    }
    const norm = Math.sqrt(dot(current, current));
    for (let k = 0; k < width; k++) current[k]! /= norm;
  }
  return a;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += a[k]! * b[k]!;
  return sum;
}
