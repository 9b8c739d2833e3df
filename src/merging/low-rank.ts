/** Any adapter but DoRA's magnitude as a plain LoRA: ΔW = scaling · B[out,r] · A[r,in], SBoRA with its one-hot factor. */
import type { AdapterSite, Method } from "../adapters/adapter.ts";
import { oneHot } from "../adapters/one-hot.ts";
import type { StoredFactors } from "../adapters/storage.ts";
import type { Part } from "./sources.ts";

export interface LowRank {
  readonly rank: number;
  readonly scaling: number;
  /** [r,in] */
  readonly A: Float32Array;
  /** [out,r] */
  readonly B: Float32Array;
}

export function lowRankOf(method: Method, site: AdapterSite, stored: StoredFactors): LowRank {
  const { rank, scaling } = site;
  const index = stored.index?.values as Int32Array | undefined;
  const A = method.name === "sbora-fa" ? oneHot(index!, site.in, true) : stored.A!.values;
  const B = method.name === "sbora-fb" ? oneHot(index!, site.out, false) : stored.B!.values;
  return { rank, scaling, A: A as Float32Array, B: B as Float32Array };
}

/** The same ΔW with more rows in A and columns in B (zeros), and with another scaling. */
export function reshaped(factors: LowRank, rank: number, scaling: number): LowRank {
  const { A, B } = factors;
  const width = A.length / factors.rank;
  const out = B.length / factors.rank;
  const wide = { rank, scaling, A: new Float32Array(rank * width), B: new Float32Array(out * rank) };
  place(wide, factors, 0, factors.scaling / scaling);
  return wide;
}

/** Σ ΔW of several adapters of one matrix as one LoRA of scaling 1. */
export function summed(parts: readonly Part[]): LowRank {
  const { in: width, out } = parts[0]!.site;
  const rank = parts.reduce((sum, { site }) => sum + site.rank, 0);
  const sum = { rank, scaling: 1, A: new Float32Array(rank * width), B: new Float32Array(out * rank) };
  let first = 0;
  for (const { method, site, stored } of parts) {
    place(sum, lowRankOf(method, site, stored), first, site.scaling);
    first += site.rank;
  }
  return sum;
}

/** Copies factors to rows (A) and columns (B) `first` … of larger ones, B times `factor`. */
function place(into: LowRank, { rank, A, B }: LowRank, first: number, factor: number): void {
  const width = A.length / rank;
  const out = B.length / rank;
  into.A.set(A, first * width);
  for (let row = 0; row < out; row++) {
    for (let j = 0; j < rank; j++) into.B[row * into.rank + first + j] = B[row * rank + j]! * factor;
  }
}
