import { describe, expect, test } from "bun:test";
import { bf16ToF32, f16At, f16ToF32, f32ToBf16, f32ToF16 } from "./half.ts";

const bits = (...words: number[]): Float32Array => new Float32Array(Uint32Array.from(words).buffer);

describe("bf16", () => {
  test("widening and narrowing again keeps every one of the 65,536 patterns but NaN's payload", () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const back = f32ToBf16(bf16ToF32(all));
    const differing = all.filter((pattern, i) => back[i] !== pattern);
    // Only signalling NaNs change: they become quiet ones.
    expect(differing.every((p) => (p & 0x7f80) === 0x7f80 && (p & 0x7f) !== 0 && (p & 0x40) === 0)).toBe(
      true,
    );
    expect(differing).toHaveLength(2 * 63);
  });

  test.each([
    ["below the middle goes down", 0x3f800000 + 0x7fff, 0x3f80],
    ["the middle goes to the even one, down", 0x3f808000, 0x3f80],
    ["the middle goes to the even one, up", 0x3f818000, 0x3f82],
    ["above the middle goes up", 0x3f808001, 0x3f81],
    ["a carry runs into the exponent", 0x3fffffff, 0x4000],
    ["beyond the largest is infinite", 0x7f7fffff, 0x7f80],
    ["a NaN whose bits lie low stays a NaN", 0x7f800001, 0x7fc0],
    ["a NaN that rounding would carry away stays one", 0xffffffff, 0xffff],
    ["minus zero", 0x80000000, 0x8000],
    ["a subnormal", 0x00018000, 0x0002],
  ])("%s", (_, word, expected) => {
    expect(f32ToBf16(bits(word))[0]).toBe(expected);
  });

  test("a window of a larger buffer", () => {
    expect([...f32ToBf16(Float32Array.of(9, 1, 2).subarray(1))]).toEqual([0x3f80, 0x4000]);
  });
});

describe("f16", () => {
  test("every finite pattern survives the way to f32 and back", () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((p) => (p & 0x7c00) !== 0x7c00);
    expect(f32ToF16(f16ToF32(all))).toEqual(all);
  });

  test.each([
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [65520, 0x7c00],
    [2 ** -24, 0x0001],
    [2 ** -25, 0x0000],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
  ])("%d", (value, pattern) => {
    expect(f32ToF16(Float32Array.of(value))[0]).toBe(pattern);
  });

  test("one value out of bytes", () => {
    expect(f16At(Uint8Array.of(0, 0x00, 0x3c), 1)).toBe(1);
    expect(f16At(Uint8Array.of(0x01, 0x80), 0)).toBe(-(2 ** -24));
  });
});
