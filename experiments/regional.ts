/** What a merge changed of a matrix, read from the two files and nothing else: which columns, which rows, how much. */
import { InputError } from "../src/errors.ts";
import { readTensorAsF32, type TensorEntry } from "../src/formats/safetensors.ts";

export interface Region {
  readonly rows: number;
  readonly columns: number;
  /** Elements whose bits differ. */
  readonly changed: number;
  /** Rows and columns with at least one of them, ascending. */
  readonly changedRows: readonly number[];
  readonly changedColumns: readonly number[];
  /** |after - before| of every element, row after row. */
  readonly magnitude: Float32Array;
}

export function regionOf(before: TensorEntry, after: TensorEntry): Region {
  const [rows, columns] = before.shape as [number, number];
  if (before.shape.length !== 2 || after.shape.join() !== before.shape.join()) {
    throw new InputError(
      `${after.file}: ${after.name} is [${after.shape.join(",")}], the base's is [${before.shape.join(",")}]; expected the same matrix.`,
    );
  }
  const [old, now] = [readTensorAsF32(before), readTensorAsF32(after)];
  const magnitude = new Float32Array(old.length);
  const [inRows, inColumns] = [new Uint8Array(rows), new Uint8Array(columns)];
  let changed = 0;
  for (let row = 0, i = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, i++) {
      // Both are widened from what the files hold, so equal numbers are equal bits (but for the sign of a zero).
      if (now[i] === old[i]) continue;
      changed++;
      inRows[row] = 1;
      inColumns[column] = 1;
      magnitude[i] = Math.abs(now[i]! - old[i]!);
    }
  }
  return { rows, columns, changed, changedRows: ones(inRows), changedColumns: ones(inColumns), magnitude };
}

function ones(mask: Uint8Array): number[] {
  return [...mask.keys()].filter((i) => mask[i] === 1);
}

/** From 0 to 1, by the largest. */
export function relative(magnitude: Float32Array): Float32Array {
  const largest = magnitude.reduce((most, value) => Math.max(most, value), 0);
  return largest === 0 ? magnitude : magnitude.map((value) => value / largest);
}
