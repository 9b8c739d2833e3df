/**
 * What every wrapper checks before a native call. A check returns the tensor's address, so that checking and passing are
 * one expression. A matrix may have any trailing shape: [T,N,D] is [T, N·D].
 */
import { addressOf, type Dtype, describeTensor, sizeOf, type Tensor } from "./layout.ts";

export type Real = "f32" | "bf16";
/** "real": f32 or bf16. */
export type Expected = Dtype | "real";

const CODES = { f32: 0, bf16: 2 } as const;

/** `sb_dtype` of a type that products and blocks take. */
export function typeCode(op: string, type: Dtype): number {
  if (type === "i32") throw new TypeError(`${op}: i32 where f32 or bf16 is expected.`);
  return CODES[type];
}

function mismatch(op: string, name: string, tensor: Tensor, expected: Expected, shape: string): never {
  const type = expected === "real" ? "f32 or bf16" : expected;
  throw new TypeError(`${op}: ${name} is ${describeTensor(tensor)}; expected ${type} [${shape}].`);
}

function fits(type: Dtype, expected: Expected): boolean {
  return type === expected || (expected === "real" && type !== "i32");
}

/** First dimension; a scalar has none. */
export function rowsOf(op: string, name: string, tensor: Tensor): number {
  const rows = tensor.shape[0];
  if (rows === undefined) throw new TypeError(`${op}: ${name} is a scalar; expected rows.`);
  return rows;
}

/** Product of all dimensions after the first. */
export function columnsOf(tensor: Tensor): number {
  let columns = 1;
  for (let i = 1; i < tensor.shape.length; i++) columns *= tensor.shape[i]!;
  return columns;
}

/** Address of a tensor that must be `rows` × `columns`. */
export function matrix(
  op: string,
  name: string,
  tensor: Tensor,
  expected: Expected,
  rows: number,
  columns: number,
): number {
  if (!fits(tensor.dtype, expected) || tensor.shape[0] !== rows || columnsOf(tensor) !== columns) {
    mismatch(op, name, tensor, expected, `${rows},${columns}`);
  }
  return addressOf(tensor);
}

/** Address of a tensor that must hold `n` elements in any shape. */
export function vector(op: string, name: string, tensor: Tensor, expected: Expected, n: number): number {
  if (!fits(tensor.dtype, expected) || sizeOf(tensor) !== n) mismatch(op, name, tensor, expected, `${n}`);
  return addressOf(tensor);
}

/** Address of a tensor that may be left out: null stays null. */
export function optionalVector(
  op: string,
  name: string,
  tensor: Tensor | null | undefined,
  expected: Expected,
  n: number,
): number | null {
  return tensor === null || tensor === undefined ? null : vector(op, name, tensor, expected, n);
}

/** Like `matrix`, null for a tensor that is left out. */
export function optionalMatrix(
  op: string,
  name: string,
  tensor: Tensor | null | undefined,
  expected: Expected,
  rows: number,
  columns: number,
): number | null {
  return tensor === null || tensor === undefined ? null : matrix(op, name, tensor, expected, rows, columns);
}

/** A number that is neither NaN nor infinite. */
export function finite(op: string, name: string, value: number): number {
  if (Number.isFinite(value)) return value;
  throw new TypeError(`${op}: ${name} is ${value}; expected a finite number.`);
}

/** A whole number in [low, high]. */
export function whole(op: string, name: string, value: number, low: number, high: number): number {
  if (Number.isInteger(value) && value >= low && value <= high) return value;
  throw new TypeError(`${op}: ${name} is ${value}; expected a whole number from ${low} to ${high}.`);
}

const KEY_END = 1n << 64n;

/** A 64-bit Philox key. */
export function randomKey(op: string, key: bigint): bigint {
  if (key >= 0n && key < KEY_END) return key;
  throw new TypeError(`${op}: the key ${key} does not fit 64 bits.`);
}
