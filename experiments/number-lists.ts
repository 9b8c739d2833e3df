/** `--seeds 1..5` and `--ranks 8,16`: whole numbers of a list, ranges included. */
import { listFlag } from "../scripts/arguments.ts";
import { InputError } from "../src/errors.ts";

/** A range as long as this is a typing mistake. */
const LONGEST_RANGE = 1000;

/** Each once, in the order they stand; null when the flag is not given. */
export function wholeList(args: Record<string, unknown>, flag: string, least: number): number[] | null {
  const parts = listFlag(args, flag);
  if (parts === undefined) return null;
  const values = parts.flatMap(rangeOf);
  const legal = (value: number): boolean => Number.isSafeInteger(value) && value >= least;
  if (values.length > 0 && values.every(legal)) return [...new Set(values)];
  throw new InputError(
    `--${flag} is "${String(args[flag])}"; expected whole numbers of at least ${least} with commas between them, or a ` +
      `range like ${least}..${least + 4}.`,
  );
}

/** "1..3" -> 1, 2, 3; "7" -> 7; NaN where it is neither. */
function rangeOf(part: string): number[] {
  const match = /^(\d+)\.\.(\d+)$/.exec(part);
  if (!match) return [/^\d+$/.test(part) ? Number(part) : Number.NaN];
  const [first, last] = [Number(match[1]), Number(match[2])];
  if (last < first || last - first >= LONGEST_RANGE) return [Number.NaN];
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
