/** Held-out validation records. */
import { InputError } from "../errors.ts";
import { permutation } from "./shuffle.ts";

/** Record numbers of both parts, each in file order. */
export interface Split {
  readonly train: readonly number[];
  readonly validation: readonly number[];
}

/**
 * Draws `valSize` of `count` records for validation. The protocol's seed-42 split is NumPy's and cannot be had here;
 * this one differs from it, and the manifest says so (settled 26).
 * @throws InputError when nothing would be left to train on.
 */
export function splitValidation(count: number, valSize: number, seed: number): Split {
  if (!Number.isSafeInteger(valSize) || valSize < 0) {
    throw new InputError(`valSize is ${valSize}, expected a whole number of at least 0`);
  }
  if (valSize > 0 && valSize >= count) {
    throw new InputError(
      `valSize is ${valSize}, but there are only ${count} records and some must be left to train on. ` +
        `Use a smaller validation set (0 for none) or more data.`,
    );
  }
  const held = new Set(valSize > 0 ? permutation(count, seed, "split").subarray(0, valSize) : []);
  const all = Array.from({ length: count }, (_, i) => i);
  return { train: all.filter((i) => !held.has(i)), validation: all.filter((i) => held.has(i)) };
}
