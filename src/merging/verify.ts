/**
 * The proof of a merge (settled 30): every weight outside the adapters is bit-equal to the base's, some inside changed,
 * none is NaN or infinite, and the merged model's logits are those of base + adapter. One model in memory at a time.
 */
import { Problems } from "../errors.ts";
import { type FloatDtype, isFloatDtype, narrow } from "../formats/half.ts";
import { openModelTensors, readTensorBytes, type TensorEntry } from "../formats/safetensors.ts";
import type { Device } from "../native/device.ts";
import { compareLogits, type LogitComparison } from "./live.ts";
import { bitsOf, countNonFinite, readAsF32 } from "./matrix.ts";
import { type Base, type LoadedSource, partsByTensor } from "./sources.ts";
import { type Touched, touchedBy, union } from "./touched.ts";

export interface Verification {
  /** Changed weights of each adapted matrix. */
  readonly changed: Readonly<Record<string, number>>;
  /** Weights outside the adapters that were compared bit by bit, all of them equal. */
  readonly untouched: number;
  readonly logits: LogitComparison;
}

/** f32 logits of two orders of summation differ by this much of the largest logit at most; measured: 1e-5. */
const F32_TOLERANCE = 1e-4;
/** A tiny update's rounding to 16 bits may move them further than the update did. */
const ROUNDED_TOLERANCE = 1e-3;

/** @throws InputError naming everything that is not as it must be */
export async function verifyMerge(
  device: Device,
  base: Base,
  sources: readonly LoadedSource[],
  merged: string,
): Promise<Verification> {
  const problems = new Problems();
  const parts = partsByTensor(base, sources);
  const after = openModelTensors(merged);
  const changed: Record<string, number> = {};
  let untouched = 0;
  for (const [name, before] of base.tensors) {
    const now = after.get(name);
    if (!now || now.shape.join() !== before.shape.join()) {
      problems.add(`tensor ${name} is missing or has another shape`);
      continue;
    }
    const own = parts.get(name);
    const counts = compareTensor(before, now, own ? union(own.map(touchedBy)) : null);
    if (counts.bad > 0) problems.add(`tensor ${name}: ${counts.bad} values are infinite or NaN`);
    if (counts.outside > 0)
      problems.add(`tensor ${name}: ${counts.outside} weights changed that no adapter reaches`);
    untouched += counts.untouched;
    if (own) changed[name] = counts.changed;
  }
  if (Object.values(changed).every((count) => count === 0)) {
    problems.add("no weight changed: the adapters are as they started, or every update was lost to rounding");
  }
  problems.throwIfAny(FAILED);
  const logits = await compareLogits(device, base, sources, merged);
  checkLogits(logits, [...after.values()], problems);
  problems.throwIfAny(FAILED);
  return { changed, untouched, logits };
}

const FAILED = "the merge failed its proof, nothing was kept";

function checkLogits(
  { largest, difference, effect }: LogitComparison,
  after: readonly TensorEntry[],
  problems: Problems,
): void {
  const rounded = after.some(({ dtype }) => dtype !== "F32");
  const floor = (rounded ? ROUNDED_TOLERANCE : F32_TOLERANCE) * Math.max(1, largest);
  // 16 bits drop part of the updates (settled 20), but must not lead further away than the base is.
  const limit = rounded ? Math.max(floor, effect) : floor;
  if (!(difference <= limit)) {
    problems.add(
      `logits of the merged model differ by ${difference.toPrecision(3)} from base + adapter (the adapter itself changes them ` +
        `by ${effect.toPrecision(3)}), expected at most ${limit.toPrecision(3)}`,
    );
  }
}

interface Counts {
  changed: number;
  outside: number;
  untouched: number;
  bad: number;
}

/** Holds a merged tensor against the base's, rounded where the stored type changed; `touched` null: no adapter. */
function compareTensor(before: TensorEntry, now: TensorEntry, touched: Touched | null): Counts {
  const counts = { changed: 0, outside: 0, untouched: 0, bad: 0 };
  const bytes = readTensorBytes(now);
  if (!isFloatDtype(now.dtype)) {
    counts.outside = Buffer.compare(bytes, readTensorBytes(before)) === 0 ? 0 : 1;
    return counts;
  }
  counts.bad = countNonFinite(now.dtype, bytes);
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
  return counts;
}

function storedAs(dtype: FloatDtype, entry: TensorEntry): Uint8Array {
  return entry.dtype === dtype ? readTensorBytes(entry) : narrow(dtype, readAsF32(entry));
}

function reachOf(
  touched: Touched | null,
  rows: number,
  width: number,
): (row: number, column: number) => boolean {
  if (touched === null) return () => false;
  if (touched.kind === "all") return () => true;
  const mask = new Uint8Array(touched.kind === "columns" ? width : rows);
  for (const i of touched.index) mask[i] = 1;
  return touched.kind === "columns" ? (_, column) => mask[column] === 1 : (row) => mask[row] === 1;
}

/** A sentence where rounding took more than half of what the adapter does; else null. */
export function roundingWarning({ difference, effect }: LogitComparison): string | null {
  if (difference <= effect / 2) return null;
  return (
    `rounding took more than half of the adapter's effect: logits differ by ${difference.toPrecision(3)} where the adapter ` +
    `changes them by ${effect.toPrecision(3)}. Merge with --dtype f32 to keep all of it.`
  );
}
