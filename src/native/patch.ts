/** Lines of a frozen matrix in two states: a switch between them is bit for bit, and touches nothing else. */
import { matrix, rowsOf, vector } from "./check.ts";
import { check, type Device } from "./device.ts";
import type { Tensor } from "./layout.ts";
import { handleOf, type Weight } from "./weight.ts";

export interface Patch {
  readonly handle: number;
  readonly weight: Weight;
}

export type Lines = "rows" | "columns";

const handleOut = new BigInt64Array(1);

/**
 * A patch for lines index[n] (i32, distinct) of W, the caller's to free before the weight is: one state is what W holds
 * now, the other `values` ([n,in] for rows, [out,n] for columns; f32), rounded once to the type W is held in.
 */
export function createPatch(
  device: Device,
  weight: Weight,
  along: Lines,
  index: Tensor,
  values: Tensor,
): Patch {
  const byColumns = along === "columns";
  const n = rowsOf("createPatch", "the index tensor", index);
  const lines = vector("createPatch", "index", index, "i32", n);
  const shape = byColumns ? ([weight.out, n] as const) : ([n, weight.in] as const);
  const to = matrix("createPatch", "values", values, "f32", ...shape);
  const { symbols, context } = device;
  const handle = handleOf(weight);
  check(symbols, symbols.sb_patch_create(context, handle, byColumns ? 1 : 0, lines, n, to, handleOut));
  return { handle: Number(handleOut[0]), weight };
}

function patchHandle({ handle, weight }: Patch): number {
  handleOf(weight);
  if (handle > 0) return handle;
  throw new TypeError(`A patch of the weight ${weight.name} has been freed.`);
}

/** Frees the patch; using it afterwards throws. The weight stays in the state it is in. */
export function freePatch(device: Device, patch: Patch): void {
  const handle = patchHandle(patch);
  (patch as { handle: number }).handle = 0;
  check(device.symbols, device.symbols.sb_patch_free(device.context, handle));
}

/** Each patch's lines change to the other of their two states; all of them, or none where this throws. */
export function flipPatches(device: Device, patches: readonly Patch[]): void {
  // The library wants those of one weight side by side.
  const ordered = [...patches].sort((a, b) => a.weight.handle - b.weight.handle);
  const handles = BigInt64Array.from(ordered, (patch) => BigInt(patchHandle(patch)));
  check(device.symbols, device.symbols.sb_patch_flip(device.context, handles, handles.length));
}
