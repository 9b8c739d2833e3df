/** Frozen matrices [out,in], held in the library's own layout behind a handle. */
import { matrix, type Real, rowsOf, typeCode, vector } from "./check.ts";
import { check, type Device, NativeError, requireCount } from "./device.ts";
import type { Tensor } from "./layout.ts";

export type WeightDtype = "f32" | "f16" | "bf16";
/** nf4: codes and scales, the values computed where they are used (`nf4.ts`). */
export type HeldDtype = WeightDtype | "nf4";

export interface Weight {
  readonly handle: number;
  readonly out: number;
  readonly in: number;
  /** Type the values are held in. */
  readonly dtype: HeldDtype;
  /** Type product operands are rounded to. */
  readonly compute: Real;
  readonly name: string;
  /** nf4: columns or rows were replaced from the start, by its folder. */
  readonly merged?: boolean;
}

/** Host memory: a buffer, or an address inside a mapping, where the caller answers for out·in values. */
export type WeightData = Uint8Array | Uint16Array | Float32Array | { readonly address: number };

export interface WeightSource {
  readonly name: string;
  readonly data: WeightData;
  readonly dtype: WeightDtype;
  readonly out: number;
  readonly in: number;
  readonly compute: Real;
}

export const CODES = { f32: 0, f16: 1, bf16: 2 } as const;
const BYTES = { f32: 4, f16: 2, bf16: 2 } as const;
const handleOut = new BigInt64Array(1);

/**
 * Copies host data [out,in] into a weight, the caller's to free. `compute` "bf16" holds bf16 (rounded to nearest even);
 * "f32" keeps the values. @throws NativeError naming the weight, row and column of a NaN or infinity
 */
export function createWeight(device: Device, source: WeightSource): Weight {
  const { name, data, dtype, out, in: width, compute } = source;
  const bytes = requireCount(`${name}: out`, out) * requireCount(`${name}: in`, width) * BYTES[dtype];
  const memory = hostMemory(name, data, `${dtype} [${out},${width}]`, bytes);
  const { symbols, context } = device;
  const status = symbols.sb_weight_create(
    context,
    memory,
    CODES[dtype],
    out,
    width,
    typeCode(name, compute),
    handleOut,
  );
  if (status !== 0) throw new NativeError(`${name}: ${symbols.sb_last_error()}`);
  const held = compute === "bf16" ? "bf16" : dtype;
  return { handle: Number(handleOut[0]), out, in: width, dtype: held, compute, name };
}

/** What a call takes for host data, which must hold `bytes` where that can be told; `what` names it. */
export function hostMemory(
  name: string,
  data: WeightData,
  what: string,
  bytes: number,
): number | Exclude<WeightData, { readonly address: number }> {
  if (!ArrayBuffer.isView(data)) {
    if (Number.isSafeInteger(data.address) && data.address > 0) return data.address;
    throw new TypeError(`${name}: ${data.address} is no address.`);
  }
  if (data.byteLength !== bytes) {
    throw new TypeError(`${name}: ${data.byteLength} bytes of data for ${what} (${bytes} bytes).`);
  }
  if (bytes === 0) throw new TypeError(`${name}: ${what} is empty.`);
  return data;
}

/** The handle for a native call; refuses a weight that was freed. */
export function handleOf(weight: Weight): number {
  if (weight.handle > 0) return weight.handle;
  throw new TypeError(`The weight ${weight.name} has been freed.`);
}

/** Frees the weight; using it afterwards throws. */
export function freeWeight(device: Device, weight: Weight): void {
  const handle = handleOf(weight);
  (weight as { handle: number }).handle = 0;
  check(device.symbols, device.symbols.sb_weight_free(device.context, handle));
}

function lines(op: string, which: Tensor, limit: number): number {
  const n = rowsOf(op, "the index tensor", which);
  if (n > limit) throw new TypeError(`${op}: ${n} indices for ${limit} lines; they must be distinct.`);
  return n;
}

/** values[n,in] f32 = rows[n] (i32) of W. */
export function readWeightRows(device: Device, weight: Weight, rows: Tensor, values: Tensor): void {
  const n = lines("readWeightRows", rows, weight.out);
  const from = vector("readWeightRows", "rows", rows, "i32", n);
  const to = matrix("readWeightRows", "values", values, "f32", n, weight.in);
  check(device.symbols, device.symbols.sb_weight_read_rows(device.context, handleOf(weight), from, n, to));
}

/** rows[n] (i32, distinct) of W = values[n,in] f32, rounded once to the type W is held in. */
export function writeWeightRows(device: Device, weight: Weight, rows: Tensor, values: Tensor): void {
  const n = lines("writeWeightRows", rows, weight.out);
  const to = vector("writeWeightRows", "rows", rows, "i32", n);
  const from = matrix("writeWeightRows", "values", values, "f32", n, weight.in);
  check(device.symbols, device.symbols.sb_weight_write_rows(device.context, handleOf(weight), to, n, from));
}

/** values[out,n] f32 = columns[n] (i32) of W. */
export function readWeightColumns(device: Device, weight: Weight, columns: Tensor, values: Tensor): void {
  const n = lines("readWeightColumns", columns, weight.in);
  const from = vector("readWeightColumns", "columns", columns, "i32", n);
  const to = matrix("readWeightColumns", "values", values, "f32", weight.out, n);
  check(device.symbols, device.symbols.sb_weight_read_columns(device.context, handleOf(weight), from, n, to));
}

/** columns[n] (i32, distinct) of W = values[out,n] f32, rounded once to the type W is held in. */
export function writeWeightColumns(device: Device, weight: Weight, columns: Tensor, values: Tensor): void {
  const n = lines("writeWeightColumns", columns, weight.in);
  const to = vector("writeWeightColumns", "columns", columns, "i32", n);
  const from = matrix("writeWeightColumns", "values", values, "f32", weight.out, n);
  check(
    device.symbols,
    device.symbols.sb_weight_write_columns(device.context, handleOf(weight), to, n, from),
  );
}

/** squares[out] f32 = Σ over in of W². */
export function weightRowSquares(device: Device, weight: Weight, squares: Tensor): void {
  const to = vector("weightRowSquares", "squares", squares, "f32", weight.out);
  check(device.symbols, device.symbols.sb_weight_row_squares(device.context, handleOf(weight), to));
}
