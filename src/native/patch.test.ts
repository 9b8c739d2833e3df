/** Patches against reading and writing through f32, on every library and instruction set. */
import { describe, expect, test } from "bun:test";
import { allocatedBytes, type Device } from "./device.ts";
import { type Bench, distinct, everyDevice, numbers, on, stream, type WeightKind } from "./ops/testing.ts";
import { createPatch, flipPatches, freePatch, type Lines, type Patch } from "./patch.ts";
import { readBytes, readF64, type Tensor } from "./tensor.ts";
import { readWeightRows, type Weight, writeWeightColumns, writeWeightRows } from "./weight.ts";

// out, in, lines
const SHAPES = [
  [1, 1, 1],
  [5, 7, 0],
  [7, 5, 5],
  [33, 64, 3],
  [64, 65, 1],
  [97, 31, 31],
  [192, 130, 64],
  [331, 200, 32],
] as const;
const KINDS: readonly WeightKind[] = [
  { dtype: "f32", compute: "f32" },
  { dtype: "f16", compute: "f32" },
  { dtype: "bf16", compute: "f32" },
  { dtype: "f32", compute: "bf16" },
];
const ALONG: readonly Lines[] = ["rows", "columns"];

interface Chosen {
  readonly along: Lines;
  readonly index: Tensor;
  readonly values: Tensor;
}

function choose(bench: Bench, weight: Weight, along: Lines, lines: number, seed: number): Chosen {
  const next = stream(seed);
  const n = Math.min(lines, along === "rows" ? weight.out : weight.in);
  const index = bench.i32([n], distinct(next, n, along === "rows" ? weight.out : weight.in));
  const shape = along === "rows" ? [n, weight.in] : [weight.out, n];
  return { along, index, values: bench.f32(shape, numbers(next, shape[0]! * shape[1]!, 4)) };
}

function allBits(bench: Bench, weight: Weight): Uint8Array {
  const rows = bench.i32(
    [weight.out],
    Array.from({ length: weight.out }, (_, i) => i),
  );
  const values = bench.out("f32", [weight.out, weight.in]);
  readWeightRows(bench.device, weight, rows, values);
  return readBytes(bench.device, values);
}

function write(device: Device, weight: Weight, { along, index, values }: Chosen): void {
  (along === "rows" ? writeWeightRows : writeWeightColumns)(device, weight, index, values);
}

function patchOf(device: Device, weight: Weight, { along, index, values }: Chosen): Patch {
  return createPatch(device, weight, along, index, values);
}

for (const [label, device] of everyDevice()) {
  describe(label, () => {
    for (const kind of KINDS) {
      test(`flipped once as if written, twice as before: ${kind.dtype} computed in ${kind.compute}`, () => {
        for (const [out, width, lines] of SHAPES) {
          for (const along of ALONG) {
            on(device, (bench) => {
              const original = numbers(stream(out + width), out * width);
              const [weight, written] = [0, 1].map(() => bench.weight(out, width, original, kind));
              const chosen = choose(bench, weight!, along, lines, 3 * out + width);
              const before = allBits(bench, weight!);
              const patch = patchOf(device, weight!, chosen);
              expect(allBits(bench, weight!)).toEqual(before);
              write(device, written!, chosen);
              flipPatches(device, [patch]);
              expect(allBits(bench, weight!)).toEqual(allBits(bench, written!));
              flipPatches(device, [patch]);
              expect(allBits(bench, weight!)).toEqual(before);
              flipPatches(device, [patch, patch]);
              expect(allBits(bench, weight!)).toEqual(before);
              freePatch(device, patch);
            });
          }
        }
      });
    }

    for (const [from, to] of [
      ["rows", "rows"],
      ["columns", "columns"],
      ["rows", "columns"],
      ["columns", "rows"],
    ] as const) {
      test(`one set of lines for another in one call, ${from} for ${to}, overlapping`, () => {
        for (const kind of KINDS) {
          on(device, (bench) => {
            const shapes = SHAPES.slice(3);
            const weights = shapes.map(([out, width]) =>
              bench.weight(out, width, numbers(stream(out), out * width), kind),
            );
            const bits = (): Uint8Array[] => weights.map((weight) => allBits(bench, weight));
            const of = (along: Lines, seed: number): Patch[] =>
              weights.map((weight, i) =>
                patchOf(device, weight, choose(bench, weight, along, shapes[i]![2], seed + i)),
              );
            const base = bits();
            const [a, b] = [of(from, 20), of(to, 50)];
            flipPatches(device, a);
            const withA = bits();
            flipPatches(device, a);
            flipPatches(device, b);
            const withB = bits();
            expect(withA).not.toEqual(base);
            expect(withB).not.toEqual(withA);
            flipPatches(device, [...b, ...a]);
            expect(bits()).toEqual(withA);
            flipPatches(device, [...a, ...b]);
            expect(bits()).toEqual(withB);
            // one weight's patches may be many
            flipPatches(device, [...a, ...a, ...b, ...a, ...a]);
            expect(bits()).toEqual(base);
            for (const patch of [...a, ...b]) freePatch(device, patch);
          });
        }
      });
    }

    test("counts its memory, and none is left", () => {
      on(device, (bench) => {
        const weight = bench.weight(64, 64, new Float64Array(64 * 64));
        const chosen = choose(bench, weight, "columns", 8, 1);
        const twice = { ...chosen, index: bench.i32([8], [0, 1, 2, 3, 4, 5, 6, 0]) };
        const before = allocatedBytes(device);
        const patch = patchOf(device, weight, chosen);
        expect(allocatedBytes(device)).toBeGreaterThanOrEqual(before + 64 * 8 * 4);
        freePatch(device, patch);
        expect(allocatedBytes(device)).toBe(before);
        expect(() => flipPatches(device, [patch])).toThrow("has been freed");
        expect(() => freePatch(device, patch)).toThrow("has been freed");
        expect(() => patchOf(device, weight, twice)).toThrow("index[7] is 0, which stands before it already");
        expect(allocatedBytes(device)).toBe(before);
      });
    });

    test("a list that cannot be done changes nothing", () => {
      on(device, (bench) => {
        const [one, other] = [0, 1].map(() => bench.weight(33, 9, numbers(stream(1), 33 * 9)));
        const patches = [one!, other!, one!].map((weight, i) =>
          patchOf(device, weight, choose(bench, weight, "rows", 4, i)),
        );
        const before = allBits(bench, one!);
        const { symbols, context } = device;
        const flip = (handles: bigint[]): string | null =>
          symbols.sb_patch_flip(context, BigInt64Array.from(handles), handles.length) === 0
            ? null
            : symbols.sb_last_error();
        const [a, b, c] = patches.map(({ handle }) => BigInt(handle)) as [bigint, bigint, bigint];
        expect(flip([a, b, c])).toContain("patches[2] is of the weight of patches[0]; expected a weight's");
        expect(flip([a, b, 0n])).toContain("patches[2] is NULL");
        expect(allBits(bench, one!)).toEqual(before);
        expect(flip([b, c, a])).toBeNull();
        expect(flip([a, c, b])).toBeNull();
        expect(allBits(bench, one!)).toEqual(before);
        for (const patch of patches) freePatch(device, patch);
      });
    });
  });
}

test("every library rounds alike: halfway values, signed zeros, in the two 16-bit types", () => {
  const values = [
    1 + 2 ** -8,
    1 + 3 * 2 ** -8,
    -(1 + 2 ** -11),
    0,
    -0,
    65519.99609375,
    2 ** -25,
    2 ** -24 * 1.5,
  ];
  for (const kind of KINDS) {
    const flipped = everyDevice().map(([, device]) =>
      on(device, (bench) => {
        const weight = bench.weight(1, values.length, new Float64Array(values.length).fill(0.5), kind);
        const [index, to] = [bench.i32([1], [0]), bench.f32([1, values.length], values)];
        const patch = createPatch(device, weight, "rows", index, to);
        flipPatches(device, [patch]);
        freePatch(device, patch);
        const held = bench.out("f32", [1, values.length]);
        readWeightRows(device, weight, index, held);
        return [...readF64(device, held)];
      }),
    );
    for (const one of flipped) expect(one).toEqual(flipped[0]!);
    expect(Object.is(flipped[0]![4], -0)).toBe(true);
  }
});
