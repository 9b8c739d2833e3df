/** What merging costs, paired on the same records, and which claims that decides. Numbers only, no layout. */
import { isRight } from "../src/evaluation/score.ts";
import { mean, studentQuantile } from "../src/reporting/statistics.ts";
import type { StoredPrediction } from "./cell-file.ts";
import { aboveZero, type Verdict } from "./claims.ts";
import type { MultiCell } from "./multi-sbora-cell.ts";
import type { Variant } from "./multi-sbora-study.ts";
import { errorOfMean } from "./summary.ts";

export interface MultiOutcome {
  readonly cell: MultiCell;
  readonly predictions: readonly StoredPrediction[];
}

/** One seed of a variant. */
export interface Run {
  readonly base: MultiOutcome;
  readonly alone: ReadonlyMap<string, MultiOutcome>;
  readonly merged: MultiOutcome;
}

export interface VariantRuns {
  readonly variant: Variant;
  /** By seed, ascending as the study has them: run i of two variants belongs together. */
  readonly runs: readonly Run[];
}

/** Right generated answers in percent, or nats a token of the held-out responses. */
export type MultiRuler = "accuracy" | "loss";
export const multiRulers = ["accuracy", "loss"] as const;

/** A difference on the same records, averaged over tasks, in the ruler's unit. */
export interface Contrast {
  readonly value: number;
  /** From the records. */
  readonly standardError: number;
  /** Half of the 95 % interval; with several seeds their spread is in it. */
  readonly halfWidth: number;
}

/** A sum of a run's models on one task, each with its factor. */
type Term = readonly [factor: number, outcome: MultiOutcome];
type Terms = (run: Run, task: string) => readonly Term[];

/** What the adapters gained alone over the base; above 0 is better, by either ruler. */
export function gained(of: VariantRuns, tasks: readonly string[], ruler: MultiRuler): Contrast {
  return contrast(of.runs, tasks, ruler, (run, task) => better(ruler, run.alone.get(task)!, run.base));
}

/** What merging took from them: alone minus merged, above 0 is a loss, by either ruler. */
export function lost(of: VariantRuns, tasks: readonly string[], ruler: MultiRuler): Contrast {
  return contrast(of.runs, tasks, ruler, (run, task) => better(ruler, run.alone.get(task)!, run.merged));
}

/** Percent of the gain that merging took; null where nothing was gained beyond doubt, so that there is nothing to lose. */
export function shareLost(of: VariantRuns, tasks: readonly string[], ruler: MultiRuler): Contrast | null {
  const share = shareOf(of, tasks, ruler);
  return share && { ...contrast(of.runs, tasks, ruler, share.deviation), value: share.percent };
}

/** By how many points of percent more the second variant lost of its gain than the first did. */
export function shareLostLess(
  of: VariantRuns,
  than: VariantRuns,
  tasks: readonly string[],
  ruler: MultiRuler,
): Contrast | null {
  const [own, other] = [shareOf(of, tasks, ruler), shareOf(than, tasks, ruler)];
  if (!own || !other) return null;
  const partner = new Map(of.runs.map((run, i) => [run, than.runs[i]!]));
  const spread = contrast(of.runs, tasks, ruler, (run, task) => [
    ...other.deviation(partner.get(run)!, task),
    ...scaled(-1, own.deviation(run, task)),
  ]);
  return { ...spread, value: other.percent - own.percent };
}

/**
 * The share L/G of two means, and the sum (ℓ − (L/G)·g)/G whose mean is 0 and whose error is the share's to first order
 * (the delta method).
 */
function shareOf(
  of: VariantRuns,
  tasks: readonly string[],
  ruler: MultiRuler,
): { percent: number; deviation: Terms } | null {
  const gain = gained(of, tasks, ruler);
  if (!(gain.value - gain.halfWidth > 0)) return null;
  const share = lost(of, tasks, ruler).value / gain.value;
  return {
    percent: 100 * share,
    deviation: (run, task) => {
      const alone = run.alone.get(task)!;
      return scaled(100 / gain.value, [
        ...better(ruler, alone, run.merged),
        ...scaled(-share, better(ruler, alone, run.base)),
      ]);
    },
  };
}

function scaled(by: number, terms: readonly Term[]): Term[] {
  return terms.map(([factor, outcome]) => [by * factor, outcome]);
}

/** a minus b where more is better, b minus a where less is. */
function better(ruler: MultiRuler, a: MultiOutcome, b: MultiOutcome): Term[] {
  const sign = ruler === "accuracy" ? 1 : -1;
  return [
    [sign, a],
    [-sign, b],
  ];
}

const NORMAL_975 = 1.96;

function contrast(runs: readonly Run[], tasks: readonly string[], ruler: MultiRuler, terms: Terms): Contrast {
  const perTask = tasks.map((task) => taskContrast(runs, task, ruler, terms));
  const standardError = Math.hypot(...perTask.map((own) => own.standardError)) / tasks.length;
  const perRun = runs.map((_, i) => mean(perTask.map((own) => own.perRun[i]!)));
  const seedError = errorOfMean(perRun);
  const fromSeeds = seedError === null ? 0 : studentQuantile(runs.length - 1) * seedError;
  return {
    value: mean(perRun),
    standardError,
    halfWidth: Math.hypot(NORMAL_975 * standardError, fromSeeds),
  };
}

/** Σ values / Σ weights, and the standard error of that ratio from the records' residuals (weights 1: of the mean). */
function taskContrast(
  runs: readonly Run[],
  task: string,
  ruler: MultiRuler,
  terms: Terms,
): { perRun: number[]; standardError: number } {
  const byRecord = new Map<number, { values: number[]; weight: number }>();
  let largest = 0;
  const perRun = runs.map((run) => {
    const sums = { value: 0, weight: 0 };
    const sum = terms(run, task);
    largest = Math.max(largest, ...sum.map(([factor]) => Math.abs(factor)));
    for (const [record, { value, weight }] of combined(sum, task, ruler)) {
      sums.value += value;
      sums.weight += weight;
      const known = byRecord.get(record);
      if (known) known.values.push(value);
      else byRecord.set(record, { values: [value], weight });
    }
    return sums.value / sums.weight;
  });
  const records = [...byRecord.values()].map(({ values, weight }) => ({ value: mean(values), weight }));
  const n = records.length;
  const total = records.reduce((sum, { weight }) => sum + weight, 0);
  const ratio = records.reduce((sum, { value }) => sum + value, 0) / total;
  const squares = records.reduce((sum, { value, weight }) => sum + (value - ratio * weight) ** 2, 0);
  const spread = n > 1 ? Math.sqrt((squares * n) / (n - 1)) / total : Number.POSITIVE_INFINITY;
  // Records that all agree do not make an error of zero: one of them could have come out the other way.
  return { perRun, standardError: ruler === "accuracy" ? Math.max(spread, (100 * largest) / n) : spread };
}

interface Entry {
  readonly value: number;
  readonly weight: number;
}

function combined(terms: readonly Term[], task: string, ruler: MultiRuler): Map<number, Entry> {
  const entries = terms.map(([factor, outcome]) => ({ factor, own: entriesOf(outcome, task, ruler) }));
  const [first] = entries;
  const sums = new Map<number, Entry>();
  for (const [record, { weight }] of first!.own) {
    const values = entries.map(({ factor, own }) => factor * (own.get(record)?.value ?? Number.NaN));
    sums.set(record, { value: values.reduce((sum, value) => sum + value, 0), weight });
  }
  return sums;
}

/** By record: 100 or 0 with weight 1, or nats with tokens. */
function entriesOf({ cell, predictions }: MultiOutcome, task: string, ruler: MultiRuler): Map<number, Entry> {
  if (ruler === "accuracy") {
    const own = predictions.filter((prediction) => prediction.task === task);
    return new Map(
      own.map((p) => [p.record, { value: isRight(p, "generation") ? 100 : 0, weight: 1 }] as const),
    );
  }
  const { record, nats, tokens } = cell.tasks.heldOut[task]!;
  return new Map(record.map((id, i) => [id, { value: nats[i]!, weight: tokens[i]! }] as const));
}

/** Percent of the gain that a merge may cost and still count as keeping it. */
export const TOLERATED = 5;

/** "Merged, the tasks keep 95 % of what their adapters gained." */
export function keeps(share: Contrast | null): Verdict {
  if (!share) return "cannot be told";
  if (share.value + share.halfWidth <= TOLERATED) return "holds";
  return share.value - share.halfWidth > TOLERATED ? "does not hold" : "cannot be told";
}

export interface MultiClaim {
  readonly claim: string;
  /** Percent of the gain; null: nothing was gained. */
  readonly by: Readonly<Record<MultiRuler, { readonly found: Contrast | null; readonly verdict: Verdict }>>;
}

export function claimsOf(variants: readonly VariantRuns[], tasks: readonly string[]): MultiClaim[] {
  const judged = (
    found: (ruler: MultiRuler) => Contrast | null,
    verdict: (found: Contrast | null) => Verdict,
  ): MultiClaim["by"] => {
    const [accuracy, loss] = [found("accuracy"), found("loss")];
    return {
      accuracy: { found: accuracy, verdict: verdict(accuracy) },
      loss: { found: loss, verdict: verdict(loss) },
    };
  };
  const kept = variants.map(
    (own): MultiClaim => ({
      claim: `${own.variant.title}: merged, the tasks keep ${100 - TOLERATED} % of what they gained`,
      by: judged((ruler) => shareLost(own, tasks, ruler), keeps),
    }),
  );
  const compared = variants
    .filter(({ variant }) => variant.draw === "disjoint")
    .flatMap((own) => rivalsOf(own, variants).map((rival) => ({ own, rival })))
    .map(
      ({ own, rival }): MultiClaim => ({
        claim: `${own.variant.title} loses less of its gain than ${rival.variant.title}`,
        by: judged(
          (ruler) => shareLostLess(own, rival, tasks, ruler),
          (found) => (found ? aboveZero(found) : "cannot be told"),
        ),
      }),
    );
  return [...kept, ...compared];
}

/** Its own method with independent indices, and the methods that reach every weight. */
function rivalsOf({ variant }: VariantRuns, all: readonly VariantRuns[]): VariantRuns[] {
  return all.filter(
    ({ variant: other }) =>
      other.draw === null || (other.draw === "independent" && other.method === variant.method),
  );
}
