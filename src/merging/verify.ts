/**
 * The proof of a merge (settled 30). Of the weights: those outside the adapters are bit-equal to the base's, those inside
 * are W + ΔW to the last place of their type and change in every matrix, none is NaN or infinite. Of the whole: the merged
 * model's logits are those of base + adapter, as near as the type allows. One model in memory at a time.
 *
 * Logits alone prove little of a merge into 16 bits, where rounding moves them by as much as a small adapter does: the
 * weights are the proof. The logits must not move by more than rounding can explain, nor by more than the adapter does;
 * where rounding takes more than half of the adapter, the user is told.
 */
import { Problems } from "../errors.ts";
import { type FloatDtype, isFloatDtype, narrow } from "../formats/half.ts";
import { openModelTensors, readTensorBytes, type TensorEntry } from "../formats/safetensors.ts";
import type { Device } from "../native/device.ts";
import { deviations, isIdle } from "./expected.ts";
import type { FourBit } from "./four-bit.ts";
import { compareLogits, type LogitComparison } from "./live.ts";
import { bitsOf, countNonFinite, readAsF32 } from "./matrix.ts";
import { type Base, type LoadedSource, type Part, partsByTensor } from "./sources.ts";
import { reachOf, touchedBy, union } from "./touched.ts";
import { type Counts, compareFourBit } from "./verify-four-bit.ts";

export interface Verification {
  /** Changed weights of each adapted matrix. */
  readonly changed: Readonly<Record<string, number>>;
  /** Weights outside the adapters that were compared bit by bit, all of them equal. */
  readonly untouched: number;
  /** Weights inside that were compared with W + ΔW in float64, all of them right to the last place. */
  readonly recomputed: number;
  /** Adapted matrices that stayed as they were because a factor is zero. */
  readonly idle: readonly string[];
  readonly logits: LogitComparison;
}

/**
 * What rounding the weights of a whole model to a type moves its logits at most, of the largest one; in f32 it is the
 * order of summation that differs. Measured on the tiny model over all methods: 3e-6, 4e-3, 4e-2.
 */
const TOLERANCE: Readonly<Record<FloatDtype, number>> = { F32: 1e-4, F16: 1.2e-2, BF16: 1e-1 };
/** Below this, of the largest logit, nobody cares which of rounding and adapter does more. */
const NEGLIGIBLE = 1e-3;

/** @throws InputError naming everything that is not as it must be */
export async function verifyMerge(
  device: Device,
  base: Base,
  sources: readonly LoadedSource[],
  merged: string,
  fourBit: FourBit | null = null,
): Promise<Verification> {
  const problems = new Problems();
  const parts = partsByTensor(base, sources);
  const after = openModelTensors(merged);
  const changed: Record<string, number> = {};
  const idle: string[] = [];
  const lost: string[] = [];
  let untouched = 0;
  let recomputed = 0;
  for (const [name, before] of base.tensors) {
    const own = parts.get(name);
    const codes = fourBit && compareFourBit(fourBit, name, after, own ?? []);
    const now = after.get(name);
    if (!codes && now?.shape.join() !== before.shape.join()) {
      problems.add(`tensor ${name} is missing or has another shape`);
      continue;
    }
    const counts = codes ?? compareTensor(before, now!, own ?? []);
    if (counts.bad > 0) problems.add(`tensor ${name}: ${counts.bad} values are infinite or NaN`);
    if (counts.outside > 0)
      problems.add(`tensor ${name}: ${counts.outside} weights changed that no adapter reaches`);
    if (counts.wrong > 0)
      problems.add(
        `tensor ${name}: ${counts.wrong} of ${counts.recomputed} weights are not the base's plus the adapter's`,
      );
    untouched += counts.untouched;
    recomputed += counts.recomputed;
    if (!own) continue;
    changed[name] = counts.changed;
    if (counts.changed === 0) (own.every(isIdle) ? idle : lost).push(name);
  }
  if (Object.values(changed).every((count) => count === 0)) {
    problems.add("no weight changed: the adapters are as they started, or every update was lost to rounding");
  } else if (lost.length > 0) {
    problems.add(`no weight of ${listed(lost)} changed: every update was lost to rounding`);
  }
  problems.throwIfAny(FAILED, lost.length > 0 ? "Merge with --dtype f32 to keep all of them." : "");
  const logits = await compareLogits(device, base, sources, merged);
  checkLogits(logits, coarsest(after.values()), problems);
  problems.throwIfAny(FAILED);
  return { changed, untouched, recomputed, idle, logits };
}

const FAILED = "the merge failed its proof, nothing was kept";

function checkLogits(logits: LogitComparison, dtype: FloatDtype, problems: Problems): void {
  const { difference, effect } = logits;
  const largest = Math.max(1, logits.largest);
  const found =
    `logits of the merged model differ by ${difference.toPrecision(3)} from base + adapter (the adapter itself changes them ` +
    `by ${effect.toPrecision(3)})`;
  const limit = TOLERANCE[dtype] * largest;
  if (!(difference <= limit)) {
    problems.add(`${found}, expected at most ${limit.toPrecision(3)} in ${dtype}`);
  } else if (dtype !== "F32" && difference > Math.max(effect, NEGLIGIBLE * largest)) {
    problems.add(`${found}: rounding to ${dtype} does more than the adapter; merge with --dtype f32`);
  }
}

/** The coarsest type among the tensors. */
function coarsest(tensors: Iterable<TensorEntry>): FloatDtype {
  const types = new Set([...tensors].map(({ dtype }) => dtype));
  return (["BF16", "F16"] as const).find((dtype) => types.has(dtype)) ?? "F32";
}

/** Holds a merged tensor against the base's, rounded where the stored type changed, and against its adapters. */
function compareTensor(before: TensorEntry, now: TensorEntry, own: readonly Part[]): Counts {
  const counts = { changed: 0, outside: 0, untouched: 0, bad: 0, wrong: 0, recomputed: 0 };
  const bytes = readTensorBytes(now);
  if (!isFloatDtype(now.dtype)) {
    counts.outside = Buffer.compare(bytes, readTensorBytes(before)) === 0 ? 0 : 1;
    return counts;
  }
  counts.bad = countNonFinite(now.dtype, bytes);
  const touched = own.length > 0 ? union(own.map(touchedBy)) : null;
  const current = bitsOf(now.dtype, bytes);
  const original = bitsOf(now.dtype, storedAs(now.dtype, before));
  const width = now.shape.at(-1) ?? 1;
  const reaches = reachOf(touched, current.length / width, width);
  for (let row = 0, i = 0; i < current.length; row++) {
    for (let column = 0; column < width; column++, i++) {
      const different = current[i] !== original[i];
      if (reaches(row, column)) counts.changed += different ? 1 : 0;
      else {
        counts.outside += different ? 1 : 0;
        counts.untouched++;
      }
    }
  }
  if (!touched) return counts;
  const { checked, wrong } = deviations(readAsF32(before), bytes, now.dtype, own, touched);
  return { ...counts, recomputed: checked, wrong };
}

function storedAs(dtype: FloatDtype, entry: TensorEntry): Uint8Array {
  return entry.dtype === dtype ? readTensorBytes(entry) : narrow(dtype, readAsF32(entry));
}

/** What the user should know of a merge that passed, a sentence each. */
export function notesOf({ idle, logits: { difference, effect } }: Verification): string[] {
  const notes: string[] = [];
  if (idle.length > 0)
    notes.push(
      `the adapter does nothing in ${listed(idle)}: a factor is zero there, the base's weights stay.`,
    );
  if (difference > effect / 2) {
    notes.push(
      `rounding took more than half of the adapter's effect: logits differ by ${difference.toPrecision(3)} where the adapter ` +
        `changes them by ${effect.toPrecision(3)}. Merge with --dtype f32 to keep all of it.`,
    );
  }
  return notes;
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, 4).map((name) => name.replace(/^model\.|\.weight$/g, ""));
  return `${shown.join(", ")}${names.length > 4 ? `, … ${names.length} matrices in all` : ""}`;
}
