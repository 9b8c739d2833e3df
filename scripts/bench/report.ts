/** What a benchmark found: checks, figures, and one line a target. Printing and keeping them. */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "../../src/errors.ts";
import { writeTextFile } from "../../src/formats/files.ts";
import {
  EQUAL_WITHIN,
  equalsOne,
  pairedMedian,
  pairedRatio,
  type Summary,
  summarize,
} from "../../src/reporting/statistics.ts";
import { type Table, textTable } from "../../src/reporting/table.ts";
import type { BenchmarkName } from "./options.ts";

/** A measured quantity, every sample kept. */
export interface Figure extends Summary {
  readonly name: string;
  readonly unit: string;
  readonly samples: readonly number[];
}

/** Against the reference, before anything is timed. */
export interface Check {
  readonly name: string;
  /** Largest difference relative to the largest value of the reference. */
  readonly error: number;
  readonly tolerance: number;
}

/** `least` and `most` bound the ratio from below and above; `within`: 1 ± that share; `equal`: settled 22. */
export type Bound =
  | { readonly least: number }
  | { readonly most: number }
  | { readonly within: number }
  | { readonly equal: true };

export interface TargetResult {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  /** What ours is compared with, and its figure; null where the bound is on our figure itself. */
  readonly peer: { readonly name: string; readonly value: number } | null;
  /** ours / peer, median of the pairs, and the 95 % interval of its mean; null without a peer. */
  readonly ratio: { readonly ratio: number; readonly low: number; readonly high: number } | null;
  readonly bound: Bound;
  readonly ok: boolean;
}

export interface Report {
  readonly benchmark: BenchmarkName;
  /** What every peer says of itself: versions. */
  readonly peers: Record<string, object>;
  readonly checks: Check[];
  readonly figures: Figure[];
  readonly targets: TargetResult[];
  /** Targets that this run did not measure, each with the reason. */
  readonly missing: string[];
}

export function emptyReport(benchmark: BenchmarkName): Report {
  return { benchmark, peers: {}, checks: [], figures: [], targets: [], missing: [] };
}

/** @throws InputError when the difference is beyond the tolerance: what computes something else is not timed */
export function addCheck(report: Report, check: Check): void {
  if (!(check.error <= check.tolerance)) {
    throw new InputError(
      `${check.name}: the result differs from the reference by ${check.error.toExponential(2)} of its largest value, ` +
        `more than ${check.tolerance.toExponential(0)}. Nothing was measured; run \`bun test src/native\` to see which op is wrong.`,
    );
  }
  report.checks.push(check);
}

export function addFigure(report: Report, name: string, unit: string, samples: readonly number[]): Figure {
  const figure = { name, unit, ...summarize(samples), samples: [...samples] };
  report.figures.push(figure);
  return figure;
}

export interface Comparison {
  readonly name: string;
  readonly unit: string;
  /** Measured in turn: ours[i] beside peer.samples[i]. */
  readonly ours: readonly number[];
  readonly peer: { readonly name: string; readonly samples: readonly number[] } | null;
  readonly bound: Bound;
}

export function addTarget(report: Report, comparison: Comparison): TargetResult {
  const { name, unit, bound, peer } = comparison;
  const ours = summarize(comparison.ours).median;
  const paired = "equal" in bound ? pairedMedian : pairedRatio;
  const ratio = peer ? paired(comparison.ours, peer.samples) : null;
  const result = {
    name,
    unit,
    ours,
    peer: peer ? { name: peer.name, value: summarize(peer.samples).median } : null,
    ratio,
    bound,
    ok: "equal" in bound ? ratio !== null && equalsOne(ratio) : meets(ratio?.ratio ?? ours, bound),
  };
  report.targets.push(result);
  return result;
}

export function meets(value: number, bound: Exclude<Bound, { equal: true }>): boolean {
  if ("least" in bound) return value >= bound.least;
  if ("most" in bound) return value <= bound.most;
  return Math.abs(value - 1) <= bound.within;
}

function boundText(bound: Bound): string {
  if ("least" in bound) return `>=${bound.least}`;
  if ("most" in bound) return `<=${bound.most}`;
  return "equal" in bound ? `1+-${EQUAL_WITHIN}` : `1+-${bound.within}`;
}

/** Four significant digits, no exponent: 1144, 57.31, 0.9312, 0. */
export function formatFigure(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return `${value}`;
  const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 6));
}

/** `NAME ours=… peer=… ratio=… target=… ok`, without blanks inside a field. */
export function targetLine(target: TargetResult): string {
  const { name, unit, ours, peer, ratio, bound, ok } = target;
  const fields = [
    name,
    `ours=${formatFigure(ours)}${unit}`,
    peer ? `peer=${formatFigure(peer.value)}${unit}(${peer.name})` : "peer=-",
    ratio ? `ratio=${formatFigure(ratio.ratio)}${"equal" in bound ? interval(ratio) : ""}` : "ratio=-",
    `target=${boundText(bound)}`,
    ok ? "ok" : "short",
  ];
  return fields.join(" ");
}

/** What equality is decided by. */
function interval({ low, high }: { readonly low: number; readonly high: number }): string {
  return `[${formatFigure(low)},${formatFigure(high)}]`;
}

/** Median, lowest, highest and spread of every figure. */
export function figureTable(figures: readonly Figure[]): string {
  const table: Table = {
    columns: [
      { title: "figure" },
      { title: "median", align: "right" },
      { title: "low", align: "right" },
      { title: "high", align: "right" },
      { title: "spread", align: "right" },
      { title: "unit" },
      { title: "n", align: "right" },
    ],
    rows: figures.map(({ name, unit, median, low, high, spread, samples }) => [
      name,
      formatFigure(median),
      formatFigure(low),
      formatFigure(high),
      `${(100 * spread).toFixed(1)} %`,
      unit,
      `${samples.length}`,
    ]),
  };
  return textTable(table);
}

/** Adds `entry` to the array in `<dir>/<benchmark>.json`, a new file for the first. @returns the path */
export function appendResult(dir: string, benchmark: string, entry: object): string {
  const path = join(dir, `${benchmark}.json`);
  mkdirSync(dir, { recursive: true });
  const earlier: unknown = existsSync(path) ? parseArray(path) : [];
  const entries = [...(earlier as object[]), entry];
  // One run a line: what a run adds is one line of a diff.
  writeTextFile(path, `[\n${entries.map((e) => JSON.stringify(e)).join(",\n")}\n]\n`);
  return path;
}

function parseArray(path: string): unknown[] {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch {
    value = null;
  }
  if (Array.isArray(value)) return value;
  throw new InputError(
    `${path}: expected a JSON array of earlier runs; move the file away to start a new one.`,
  );
}
