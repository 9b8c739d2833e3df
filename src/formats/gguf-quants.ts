/**
 * ggml's tensor types: how many elements a block has, how many bytes it takes, and how it becomes f32. A new type is one
 * line in the table and, where it is quantized, one function of a block. Scales are f16 (`d`, `m`), codes are packed.
 */
import { InputError } from "../errors.ts";
import { q2K, q3K, q4K, q5K, q6K } from "./gguf-kquants.ts";
import { bf16ToF32, f16At } from "./half.ts";

/** Writes the elements of the block at `bytes[at]` to `out[to]` on. */
export type DequantizeBlock = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;

export interface GgmlType {
  readonly name: string;
  /** Elements of a block. */
  readonly elements: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Null for types that are known by size only. */
  readonly block: DequantizeBlock | null;
}

/** d · (q − 8); the low halves of 16 bytes come first, then the high halves. */
function q4_0(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at);
  for (let i = 0; i < 16; i++) {
    const code = bytes[at + 2 + i]!;
    out[to + i] = d * ((code & 15) - 8);
    out[to + 16 + i] = d * ((code >> 4) - 8);
  }
}

/** d · q + m. */
function q4_1(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at);
  const m = f16At(bytes, at + 2);
  for (let i = 0; i < 16; i++) {
    const code = bytes[at + 4 + i]!;
    out[to + i] = d * (code & 15) + m;
    out[to + 16 + i] = d * (code >> 4) + m;
  }
}

/** As q4_0 with a fifth bit per element in 4 bytes before the codes. */
function q5_0(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at);
  for (let i = 0; i < 16; i++) {
    const code = bytes[at + 6 + i]!;
    out[to + i] = d * ((code & 15) + 16 * bit(bytes, at + 2, i) - 16);
    out[to + 16 + i] = d * ((code >> 4) + 16 * bit(bytes, at + 2, 16 + i) - 16);
  }
}

/** As q4_1 with a fifth bit per element in 4 bytes before the codes. */
function q5_1(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at);
  const m = f16At(bytes, at + 2);
  for (let i = 0; i < 16; i++) {
    const code = bytes[at + 8 + i]!;
    out[to + i] = d * ((code & 15) + 16 * bit(bytes, at + 4, i)) + m;
    out[to + 16 + i] = d * ((code >> 4) + 16 * bit(bytes, at + 4, 16 + i)) + m;
  }
}

function bit(bytes: Uint8Array, at: number, i: number): number {
  return (bytes[at + (i >> 3)]! >> (i & 7)) & 1;
}

/** d · q with signed bytes q. */
function q8_0(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at);
  for (let i = 0; i < 32; i++) out[to + i] = d * ((bytes[at + 2 + i]! << 24) >> 24);
}

function f16(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  out[to] = f16At(bytes, at);
}

/** By the number in the file; sizes are those of ggml's own table. */
export const GGML_TYPES: ReadonlyMap<number, GgmlType> = new Map([
  [0, { name: "F32", elements: 1, bytes: 4, block: null }],
  [1, { name: "F16", elements: 1, bytes: 2, block: f16 }],
  [2, { name: "Q4_0", elements: 32, bytes: 18, block: q4_0 }],
  [3, { name: "Q4_1", elements: 32, bytes: 20, block: q4_1 }],
  [6, { name: "Q5_0", elements: 32, bytes: 22, block: q5_0 }],
  [7, { name: "Q5_1", elements: 32, bytes: 24, block: q5_1 }],
  [8, { name: "Q8_0", elements: 32, bytes: 34, block: q8_0 }],
  [10, { name: "Q2_K", elements: 256, bytes: 84, block: q2K }],
  [11, { name: "Q3_K", elements: 256, bytes: 110, block: q3K }],
  [12, { name: "Q4_K", elements: 256, bytes: 144, block: q4K }],
  [13, { name: "Q5_K", elements: 256, bytes: 176, block: q5K }],
  [14, { name: "Q6_K", elements: 256, bytes: 210, block: q6K }],
  [16, { name: "IQ2_XXS", elements: 256, bytes: 66, block: null }],
  [17, { name: "IQ2_XS", elements: 256, bytes: 74, block: null }],
  [18, { name: "IQ3_XXS", elements: 256, bytes: 98, block: null }],
  [19, { name: "IQ1_S", elements: 256, bytes: 50, block: null }],
  [20, { name: "IQ4_NL", elements: 32, bytes: 18, block: null }],
  [21, { name: "IQ3_S", elements: 256, bytes: 110, block: null }],
  [22, { name: "IQ2_S", elements: 256, bytes: 82, block: null }],
  [23, { name: "IQ4_XS", elements: 256, bytes: 136, block: null }],
  [24, { name: "I8", elements: 1, bytes: 1, block: null }],
  [25, { name: "I16", elements: 1, bytes: 2, block: null }],
  [26, { name: "I32", elements: 1, bytes: 4, block: null }],
  [27, { name: "I64", elements: 1, bytes: 8, block: null }],
  [28, { name: "F64", elements: 1, bytes: 8, block: null }],
  [29, { name: "IQ1_M", elements: 256, bytes: 56, block: null }],
  [30, { name: "BF16", elements: 1, bytes: 2, block: null }],
]);

/** Whether `dequantize` takes the type. */
export function canDequantize(type: GgmlType): boolean {
  return type.block !== null || type.name === "F32" || type.name === "BF16";
}

/** Whole tensor to f32. `bytes` holds whole blocks. @throws InputError for a type we only know the size of */
export function dequantize(type: GgmlType, bytes: Uint8Array): Float32Array {
  // A copy starts at offset 0, as typed arrays of wider elements need.
  if (type.name === "F32") return new Float32Array(bytes.slice().buffer);
  if (type.name === "BF16") return bf16ToF32(new Uint16Array(bytes.slice().buffer));
  if (type.block === null) {
    const known = [...GGML_TYPES.values()].filter(canDequantize).map((t) => t.name);
    throw new InputError(
      `tensors of type ${type.name} cannot be dequantized; expected one of ${known.join(", ")}.`,
    );
  }
  const blocks = bytes.length / type.bytes;
  const out = new Float32Array(blocks * type.elements);
  for (let b = 0; b < blocks; b++) type.block(bytes, b * type.bytes, out, b * type.elements);
  return out;
}
