/**
 * Tables 1 and 2 as formulas of one linear W [out,in] and a rank r, for the methods the paper lists. As printed, and
 * corrected where it is wrong (protocol §6.1, §6.2). The paper writes W as d×k in Table 1 and k×d in Table 2; here out and in
 * are what they are.
 */
import type { MethodName } from "../src/adapters/adapter.ts";

export interface LayerSize {
  readonly out: number;
  readonly in: number;
  readonly rank: number;
}

/** A formula as it is read, and as it is computed. */
export interface Formula {
  readonly text: string;
  readonly value: (size: LayerSize) => number;
}

const formula = (text: string, value: Formula["value"]): Formula => ({ text, value });

/** Numbers stored and trained, Table 1. `printed`: where the paper has another total. */
export interface StorageRow {
  readonly method: MethodName;
  readonly trained: Formula;
  readonly total: Formula;
  readonly printed: Formula | null;
  readonly gradient: Formula;
}

const both = formula("r·(in+out)", ({ in: width, out, rank }) => rank * (width + out));
const onOut = formula("r·out", ({ out, rank }) => rank * out);
const onIn = formula("r·in", ({ in: width, rank }) => rank * width);

export const table1: readonly StorageRow[] = [
  { method: "lora", trained: both, total: both, printed: null, gradient: both },
  {
    method: "sbora-fa",
    trained: onOut,
    total: formula("r + r·out", ({ out, rank }) => rank + rank * out),
    printed: formula("r + r·in", ({ in: width, rank }) => rank + rank * width),
    gradient: onOut,
  },
  {
    method: "sbora-fb",
    trained: onIn,
    total: formula("r + r·in", ({ in: width, rank }) => rank + rank * width),
    printed: formula("r + r·out", ({ out, rank }) => rank + rank * out),
    gradient: onIn,
  },
];

/** Multiplications and additions for one vector, Table 2; the multiplication by s is left out. */
export interface OperationRow {
  readonly method: MethodName;
  readonly multiplications: Formula;
  readonly additions: Formula;
}

export const table2: readonly OperationRow[] = [
  {
    method: "lora",
    multiplications: formula(
      "out·in + (in+out)·r",
      ({ in: width, out, rank }) => out * width + (width + out) * rank,
    ),
    additions: formula(
      "out·(in-1) + r·(in-1) + out·(r-1) + out",
      ({ in: width, out, rank }) => out * (width - 1) + rank * (width - 1) + out * (rank - 1) + out,
    ),
  },
  {
    method: "sbora-fa",
    multiplications: formula("out·in + out·r", ({ in: width, out, rank }) => out * width + out * rank),
    additions: formula(
      "out·(in-1) + out·(r-1) + out",
      ({ in: width, out, rank }) => out * (width - 1) + out * (rank - 1) + out,
    ),
  },
  {
    method: "sbora-fb",
    multiplications: formula("out·in + in·r", ({ in: width, out, rank }) => out * width + width * rank),
    additions: formula(
      "out·(in-1) + r·(in-1) + r",
      ({ in: width, out, rank }) => out * (width - 1) + rank * (width - 1) + rank,
    ),
  },
];
