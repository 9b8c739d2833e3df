/** SBoRA's fixed factor written out, as PEFT stores it: rows (A) or columns (B) of the identity. */

/** A [r,width] (`rows`) or B [width,r] with a one at each index. */
export function oneHot(index: Int32Array, width: number, rows: boolean): Float32Array {
  const dense = new Float32Array(index.length * width);
  index.forEach((at, j) => {
    dense[rows ? j * width + at : at * index.length + j] = 1;
  });
  return dense;
}

/** The indices of such a factor; null for any other matrix. */
export function indicesOfOneHot(
  values: Float32Array | Int32Array,
  shape: readonly number[],
  rows: boolean,
): Int32Array | null {
  const [rank, width] = rows ? shape : [shape[1], shape[0]];
  if (shape.length !== 2 || !rank || !width) return null;
  const index = new Int32Array(rank).fill(-1);
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value === 0) continue;
    const [j, at] = rows ? [Math.floor(i / width), i % width] : [i % rank, Math.floor(i / rank)];
    if (value !== 1 || index[j] !== -1) return null;
    index[j] = at;
  }
  return index.includes(-1) || new Set(index).size < rank ? null : index;
}
