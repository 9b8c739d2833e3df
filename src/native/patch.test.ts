/** Patches against reading and writing through f32, on every library and instruction set. */
import { describe, expect, test } from "bun:test";
import { allocatedBytes, type Device, sync } from "./device.ts";
import { embeddingForward, headLoss, linearBackward, linearForward } from "./ops/index.ts";
import { type Bench, distinct, everyDevice, numbers, on, stream, type WeightKind } from "./ops/testing.ts";
import { createPatch, flipPatches, freePatch, type Lines, type Patch } from "./patch.ts";
import { readBytes, readF64, type Tensor } from "./tensor.ts";
import {
  readWeightColumns,
  readWeightRows,
  type Weight,
  weightRowSquares,
  writeWeightColumns,
  writeWeightRows,
} from "./weight.ts";

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

/** Rows of a product: one tile, several, and so many that two threads share the panels of a narrow matrix. */
const ROWS = [1, 5, 20, 300];

/** What each op that reads a weight makes of it, by name. */
function readers(bench: Bench, out: number, width: number): Record<string, (weight: Weight) => Uint8Array> {
  const { device } = bench;
  const next = stream(out);
  const bytes = (tensor: Tensor, fill: () => void): Uint8Array => {
    fill();
    return readBytes(device, tensor);
  };
  const products = ROWS.map((T): [string, (weight: Weight) => Uint8Array] => {
    const x = bench.f32([T, width], numbers(next, T * width));
    const y = bench.out("f32", [T, out]);
    return [`linearForward of ${T}`, (weight) => bytes(y, () => linearForward(device, weight, x, y))];
  });
  const [z, u] = [bench.f32([3, 4], numbers(next, 12)), bench.f32([out, 4], numbers(next, 4 * out))];
  const x = bench.f32([3, width], numbers(next, 3 * width));
  const y = bench.out("f32", [3, out]);
  const dx = bench.out("f32", [out, width]);
  const identity = bench.f32(
    [out, out],
    Float64Array.from({ length: out * out }, (_, i) => (i % (out + 1) === 0 ? 1 : 0)),
  );
  const every = bench.i32([width], [...Array(width).keys()]);
  const columns = bench.out("f32", [out, width]);
  const ids = bench.i32([out], [...Array(out).keys()]);
  const embedded = bench.out("f32", [out, width]);
  const squares = bench.out("f32", [out]);
  const [targets, weights] = [bench.i32([3], [0, out - 1, 0]), bench.f32([3], [1, 1, 1])];
  const loss = bench.out("f32", [3]);
  return {
    ...Object.fromEntries(products),
    "linearForward with a tail": (weight) =>
      bytes(y, () => linearForward(device, weight, x, y, { tail: { z, u, scale: 2 } })),
    linearBackward: (weight) => bytes(dx, () => linearBackward(device, weight, identity, dx)),
    readWeightColumns: (weight) => bytes(columns, () => readWeightColumns(device, weight, every, columns)),
    embeddingForward: (weight) => bytes(embedded, () => embeddingForward(device, weight, ids, embedded)),
    weightRowSquares: (weight) => bytes(squares, () => weightRowSquares(device, weight, squares)),
    headLoss: (weight) => bytes(loss, () => headLoss(device, weight, x, targets, weights, loss)),
  };
}

for (const [label, device] of everyDevice().filter(([name]) => name.startsWith("cpu"))) {
  describe(`${label}: flips wait for whoever reads the weight first`, () => {
    for (const along of ALONG) {
      test(`and every op sees them: ${along}`, () => {
        for (const kind of KINDS)
          for (const [out, width, lines] of [SHAPES[3], [97, 200, 31]] as const) {
            on(device, (bench) => {
              const original = numbers(stream(out + width), out * width);
              for (const [name, read] of Object.entries(readers(bench, out, width))) {
                const [weight, written] = [0, 1].map(() => bench.weight(out, width, original, kind));
                const chosen = choose(bench, weight!, along, lines, 9);
                const patch = patchOf(device, weight!, chosen);
                const before = read(weight!);
                write(device, written!, chosen);
                flipPatches(device, [patch]);
                const after = read(weight!);
                expect({ name, after }).toEqual({ name, after: read(written!) });
                expect(after).not.toEqual(before);
                expect(allBits(bench, weight!)).toEqual(allBits(bench, written!));
                // Freed while its flip waits: the bits change first.
                flipPatches(device, [patch]);
                freePatch(device, patch);
                expect({ name, after: read(weight!) }).toEqual({ name, after: before });
              }
            });
          }
      });
    }

    test("taken back before anybody looks, or carried out by sync", () => {
      on(device, (bench) => {
        const [a, b] = [0, 1].map(() => bench.weight(97, 65, numbers(stream(3), 97 * 65)));
        const patches = [a!, b!].map((weight) =>
          patchOf(device, weight, choose(bench, weight, "rows", 9, 4)),
        );
        const before = allBits(bench, a!);
        flipPatches(device, patches);
        flipPatches(device, [patches[1]!]);
        sync(device);
        expect(allBits(bench, a!)).not.toEqual(before);
        expect(allBits(bench, b!)).toEqual(before);
        flipPatches(device, [patches[0]!]);
        for (const patch of patches) freePatch(device, patch);
        sync(device);
        expect(allBits(bench, a!)).toEqual(before);
      });
    });
  });
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
