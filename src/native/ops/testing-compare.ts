/** How test values are compared and how a difference is printed. */

/** Allowed absolute error: one number for all, or one an element. */
export type Tolerance = number | ArrayLike<number>;

const SHOWN = 5;

interface Miss {
  readonly index: number;
  readonly kind: "tolerance" | "NaN" | "Inf";
}

function kindOf(actual: number, expected: number, allowed: number): Miss["kind"] | null {
  if (Number.isNaN(actual) || Number.isNaN(expected)) {
    return Number.isNaN(actual) && Number.isNaN(expected) ? null : "NaN";
  }
  if (!Number.isFinite(actual) || !Number.isFinite(expected)) return actual === expected ? null : "Inf";
  return Math.abs(actual - expected) <= allowed ? null : "tolerance";
}

/** Null when every element is within its tolerance; else counts by kind and the first five misses. */
export function compareValues(
  label: string,
  actual: Float64Array,
  expected: Float64Array,
  allowed: Tolerance,
): string | null {
  if (actual.length !== expected.length) {
    return `${label}: ${actual.length} values, expected ${expected.length}`;
  }
  const allowedAt = (index: number) => (typeof allowed === "number" ? allowed : (allowed[index] ?? 0));
  const misses: Miss[] = [];
  for (let index = 0; index < actual.length; index++) {
    const kind = kindOf(actual[index]!, expected[index]!, allowedAt(index));
    if (kind !== null) misses.push({ index, kind });
  }
  if (misses.length === 0) return null;
  const count = (kind: Miss["kind"]) => misses.filter((miss) => miss.kind === kind).length;
  const lines = misses.slice(0, SHOWN).map(({ index, kind }) => {
    const [a, e] = [actual[index]!, expected[index]!];
    return `  [${index}] ${a} expected ${e}, off by ${Math.abs(a - e)}, allowed ${allowedAt(index)} (${kind})`;
  });
  return (
    `${label}: ${misses.length} of ${actual.length} differ ` +
    `(${count("tolerance")} beyond tolerance, ${count("NaN")} NaN, ${count("Inf")} Inf)\n${lines.join("\n")}`
  );
}

/** Per-element tolerances: `relative` · scale[i] + `absolute`. */
export function relativeTo(scale: ArrayLike<number>, relative: number, absolute = 1e-30): Float64Array {
  return Float64Array.from(scale, (value) => Math.abs(value) * relative + absolute);
}

/** Sum of per-element tolerances. */
export function sumOf(...tolerances: ArrayLike<number>[]): Float64Array {
  return Float64Array.from(tolerances[0]!, (_, i) => tolerances.reduce((sum, one) => sum + one[i]!, 0));
}

/** Largest magnitude, at least 1e-30. */
export function largest(values: ArrayLike<number>): number {
  let most = 1e-30;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}

/** Relative spacing of bf16: a result that rounds the other way is this far off. */
export const BF16_STEP = 2 ** -7;
