import { describe, expect, test } from "bun:test";
import { canDequantize, dequantize, GGML_TYPES, type GgmlType } from "./gguf-quants.ts";
import { bytesOf, f32ToF16 } from "./half.ts";
import { inputErrorOf, someBytes } from "./testing.ts";

function typeNamed(name: string): GgmlType {
  const type = [...GGML_TYPES.values()].find((t) => t.name === name);
  if (!type) throw new Error(`no type ${name}`);
  return type;
}

const f16 = (value: number): Uint8Array => bytesOf(f32ToF16(Float32Array.of(value)));
const join = (...parts: (Uint8Array | readonly number[])[]): Uint8Array =>
  Uint8Array.from(parts.flatMap((p) => [...p]));
const sixteen = (first: number): number[] => [first, ...Array<number>(15).fill(0)];

describe("blocks computed by hand", () => {
  test("Q4_0: d (q - 8), low halves first", () => {
    // Code 0xf1: low half 1 -> element 0, high half 15 -> element 16; codes 0 are -8.
    const out = dequantize(typeNamed("Q4_0"), join(f16(0.5), sixteen(0xf1)));
    expect(out).toHaveLength(32);
    expect([out[0], out[1], out[16], out[17]]).toEqual([-3.5, -4, 3.5, -4]);
  });

  test("Q4_1: d q + m", () => {
    const out = dequantize(typeNamed("Q4_1"), join(f16(0.5), f16(-1), sixteen(0xf1)));
    expect([out[0], out[1], out[16], out[31]]).toEqual([-0.5, -1, 6.5, -1]);
  });

  test("Q5_0: the fifth bits are element by element", () => {
    // Bit 0 -> element 0, bit 16 -> element 16: q = 1 + 16, 15 + 16; the others are 0 - 16.
    const out = dequantize(typeNamed("Q5_0"), join(f16(0.5), [1, 0, 1, 0], sixteen(0xf1)));
    expect([out[0], out[1], out[16], out[17]]).toEqual([0.5, -8, 7.5, -8]);
  });

  test("Q5_1", () => {
    const out = dequantize(typeNamed("Q5_1"), join(f16(0.5), f16(2), [1, 0, 0, 0x80], sixteen(0xf1)));
    expect([out[0], out[1], out[16], out[31]]).toEqual([10.5, 2, 9.5, 10]);
  });

  test("Q8_0: signed bytes", () => {
    const out = dequantize(typeNamed("Q8_0"), join(f16(0.25), [127, 128, 255, ...Array<number>(29).fill(0)]));
    expect([...out.slice(0, 4)]).toEqual([31.75, -32, -0.25, 0]);
  });

  test("F32, F16, BF16, several blocks, and bytes at an odd place", () => {
    const f32 = bytesOf(Float32Array.of(1.5, -2));
    const odd = new Uint8Array(9);
    odd.set(f32, 1);
    expect([...dequantize(typeNamed("F32"), odd.subarray(1))]).toEqual([1.5, -2]);
    expect([...dequantize(typeNamed("F16"), join(f16(1.5), f16(-2)))]).toEqual([1.5, -2]);
    expect([...dequantize(typeNamed("BF16"), bytesOf(Uint16Array.of(0x3fc0, 0xc000)))]).toEqual([1.5, -2]);
    const two = dequantize(
      typeNamed("Q8_0"),
      join(f16(1), Array<number>(32).fill(1), f16(2), Array<number>(32).fill(1)),
    );
    expect([two[31], two[32]]).toEqual([1, 2]);
  });
});

/** Type, places of its f16 scales, elements by index, sum of all: from the Python package gguf 0.19, for random bytes. */
const GOLDEN: [string, number[], Record<number, number>, number][] = [
  [
    "Q4_0",
    [0],
    { 0: 0.024597168, 1: 0.073791504, 15: -0.049194336, 16: -0.049194336, 17: -0.036895752, 31: 0.06149292 },
    -0.9592896,
  ],
  [
    "Q4_1",
    [0, 2],
    { 0: 0.07019043, 1: 0.082489014, 15: 0.10708618, 16: 0.18087769, 17: 0.07019043, 31: 0.082489014 },
    4.029388,
  ],
  [
    "Q5_0",
    [0],
    { 0: -0.012298584, 1: -0.12298584, 15: -0.15988159, 16: 0.049194336, 17: -0.18447876, 31: 0.18447876 },
    -0.442749,
  ],
  [
    "Q5_1",
    [0, 2],
    { 0: 0.32846069, 1: 0.42684937, 15: 0.26696777, 16: 0.41455078, 17: 0.13168335, 31: 0.1685791 },
    6.96875,
  ],
  [
    "Q8_0",
    [0],
    { 0: 0.086090088, 1: -1.5250244, 15: -0.34436035, 16: 1.3651428, 17: -0.41815186, 31: 1.38974 },
    3.984741,
  ],
  [
    "Q2_K",
    [80, 82],
    {
      0: -0.10858154,
      1: -0.18237305,
      31: -0.22735596,
      32: -0.35394287,
      100: -0.41033936,
      127: -0.5189209,
      128: -0.49072266,
      200: -0.091186523,
      255: -0.17156982,
    },
    -67.35239,
  ],
  [
    "Q3_K",
    [108],
    {
      0: -0.28286743,
      1: -0.28286743,
      31: -0.33206177,
      32: -0.78710938,
      100: 1.1806641,
      127: 0.3074646,
      128: -0.19677734,
      200: 0.14758301,
      255: -1.0699768,
    },
    9.014862,
  ],
  [
    "Q4_K",
    [0, 2],
    {
      0: 2.730957,
      1: -2.1884766,
      31: -1.5735474,
      32: -2.2508545,
      100: 1.9785767,
      127: 4.0939331,
      128: 2.0248413,
      200: -0.064758301,
      255: 0.15689087,
    },
    538.251,
  ],
  [
    "Q5_K",
    [0, 2],
    {
      0: 5.2962646,
      1: -1.5909424,
      31: 5.640625,
      32: 8.358551,
      100: 2.3692017,
      127: 4.4353638,
      128: 9.9246826,
      200: 3.0621338,
      255: 10.861816,
    },
    1271.238,
  ],
  [
    "Q6_K",
    [208],
    {
      0: 35.973358,
      1: -14.389343,
      31: -2.1153564,
      32: 16.049652,
      100: 1.5127258,
      127: 22.998352,
      128: 3.0992432,
      200: 21.178162,
      255: 0.72561646,
    },
    378.3659,
  ],
];

describe("random blocks agree with ggml's Python reader", () => {
  test.each(GOLDEN)("%s", (name, scales, elements, sum) => {
    const type = typeNamed(name);
    const bytes = someBytes(type.bytes, 100 + GOLDEN.findIndex((g) => g[0] === name));
    for (const [k, at] of scales.entries()) bytes.set(f16([0.0123, 0.0456][k]!), at);
    const out = dequantize(type, bytes);
    expect(out).toHaveLength(type.elements);
    for (const [i, value] of Object.entries(elements)) expect(out[Number(i)]!).toBeCloseTo(value, 6);
    const total = out.reduce((a, b) => a + b, 0);
    expect(Math.abs(total - sum)).toBeLessThan(1e-5 * Math.abs(sum));
  });
});

test("types known by size only are refused by name", () => {
  const type = typeNamed("IQ4_NL");
  expect(canDequantize(type)).toBe(false);
  expect(inputErrorOf(() => dequantize(type, new Uint8Array(18)))).toMatch(
    /type IQ4_NL cannot be dequantized; expected one of F32, F16, Q4_0/,
  );
});
