import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bytesOf } from "./half.ts";
import {
  openModelTensors,
  readSafetensorsHeader,
  readTensorAsF32,
  readTensorBytes,
  type TensorToWrite,
  writeSafetensors,
} from "./safetensors.ts";
import { inputErrorOf, leftovers, safetensorsBytes, withFiles } from "./testing.ts";

const entry = (start: number, end: number, over: object = {}): object => ({
  dtype: "F32",
  shape: [(end - start) / 4],
  data_offsets: [start, end],
  ...over,
});

/** The valid twin of every malformed file below: two tensors, 12 bytes of data. */
const VALID = safetensorsBytes({ a: entry(0, 8), b: entry(8, 12), __metadata__: { format: "pt" } }, 12);

function read(bytes: Uint8Array) {
  return withFiles({ "m.safetensors": bytes }, (dir) => readSafetensorsHeader(join(dir, "m.safetensors")));
}

function message(bytes: Uint8Array): string {
  return inputErrorOf(() => read(bytes));
}

describe("readSafetensorsHeader", () => {
  test("the valid twin", () => {
    const file = read(VALID);
    expect([...file.tensors.keys()]).toEqual(["a", "b"]);
    const dataStart = VALID.length - 12;
    expect(file.tensors.get("b")).toMatchObject({
      dtype: "F32",
      shape: [1],
      start: dataStart + 8,
      end: dataStart + 12,
    });
    expect(file.metadata.get("format")).toBe("pt");
    expect(file.bytes).toBe(VALID.length);
  });

  test.each([
    ["no tensors at all", {}, 0],
    ["empty tensors", { a: { dtype: "F32", shape: [0, 7], data_offsets: [0, 0] } }, 0],
    ["rank 0", { a: { dtype: "F64", shape: [], data_offsets: [0, 8] } }, 8],
    ["4 bits filling whole bytes", { a: { dtype: "F4", shape: [6], data_offsets: [0, 3] } }, 3],
    ["names that are no plain keys", '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1],
    ["spaces behind the header", `${JSON.stringify({ a: entry(0, 4) })}   `, 4],
    ["tensors listed out of order", { b: entry(4, 8), a: entry(0, 4) }, 8],
  ])("takes %s", (_, header, data) => {
    expect(() => read(safetensorsBytes(header, data))).not.toThrow();
  });

  test("a tensor called __proto__ or 7 is found", () => {
    const header =
      '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"7":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}';
    expect([...read(safetensorsBytes(header, 2)).tensors.keys()].sort()).toEqual(["7", "__proto__"]);
  });

  test.each<[string, Uint8Array, RegExp]>([
    ["a file of 5 bytes", VALID.slice(0, 5), /5 bytes; a safetensors file has at least 8/],
    ["an empty file", new Uint8Array(0), /0 bytes/],
    ["a cut file", VALID.slice(0, -1), /data_offsets end at 12, but the file holds 11 bytes/],
    [
      "bytes behind the last tensor",
      safetensorsBytes({ a: entry(0, 8) }, 9),
      /the tensors end at byte \d+, but the file has/,
    ],
    ["data without a tensor", safetensorsBytes({}, 4), /the tensors end at byte/],
    [
      "a header longer than the file",
      safetensorsBytes({ a: entry(0, 4) }, 4, 5000n),
      /the header's length is 5000 bytes, but the file has/,
    ],
    [
      "a header above the limit",
      safetensorsBytes({ a: entry(0, 4) }, 4, 100_000_001n),
      /at most 100000000 are allowed/,
    ],
    [
      "a length of 2^64 - 1",
      safetensorsBytes({ a: entry(0, 4) }, 4, 2n ** 64n - 1n),
      /is this a safetensors file/,
    ],
    ["a header of one byte", safetensorsBytes("{}", 8, 1n), /length is 1 bytes/],
    ["a header that is no JSON", safetensorsBytes('{"a": ', 4), /JSON/],
    ["an array as header", safetensorsBytes("[1, 2]", 0), /\{|object/],
    [
      "a header that starts with a space",
      safetensorsBytes(` ${JSON.stringify({ a: entry(0, 4) })}`, 4),
      /\{/,
    ],
    ["a header that is no UTF-8", safetensorsBytes("{}", 0).map((b, i) => (i === 9 ? 0xff : b)), /UTF-8/],
    [
      "the same name twice",
      safetensorsBytes(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
      ),
      /"a"/,
    ],
    [
      "an unknown dtype",
      safetensorsBytes({ a: entry(0, 4, { dtype: "F33" }) }, 4),
      /tensor "a": dtype "F33", expected one of/,
    ],
    [
      "a dtype that objects inherit",
      safetensorsBytes({ a: entry(0, 4, { dtype: "constructor" }) }, 4),
      /dtype "constructor"/,
    ],
    ["no dtype", safetensorsBytes({ a: { shape: [1], data_offsets: [0, 4] } }, 4), /dtype nothing/],
    ["a negative size", safetensorsBytes({ a: entry(0, 4, { shape: [-1] }) }, 4), /shape \[-1\], expected/],
    ["a fractional size", safetensorsBytes({ a: entry(0, 4, { shape: [1.5] }) }, 4), /shape \[1\.5\]/],
    [
      "a size beyond 2^53",
      safetensorsBytes('{"a":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,4]}}', 4),
      /shape/,
    ],
    [
      "a product that overflows",
      safetensorsBytes({ a: entry(0, 4, { shape: [2 ** 40, 2 ** 40] }) }, 4),
      /hold 4 bytes, but F32 \[1099511627776, 1099511627776\] has/,
    ],
    [
      "too many dimensions",
      safetensorsBytes({ a: entry(0, 4, { shape: Array(33).fill(1) }) }, 4),
      /33 dimensions, at most 32/,
    ],
    [
      "offsets that do not match the shape",
      safetensorsBytes({ a: entry(0, 8, { shape: [1] }) }, 8),
      /data_offsets hold 8 bytes, but F32 \[1\] has 4 bytes/,
    ],
    [
      "sub-byte elements that end inside a byte",
      safetensorsBytes({ a: { dtype: "F4", shape: [3], data_offsets: [0, 2] } }, 2),
      /12 bits, not whole bytes/,
    ],
    [
      "offsets the wrong way round",
      safetensorsBytes({ a: entry(4, 0, { shape: [0] }) }, 4),
      /the start lies behind the end/,
    ],
    [
      "three offsets",
      safetensorsBytes({ a: entry(0, 4, { data_offsets: [0, 4, 4] }) }, 4),
      /expected two non-negative integers/,
    ],
    [
      "overlapping tensors",
      safetensorsBytes({ a: entry(0, 8), b: entry(4, 12) }, 12),
      /tensor "b": starts at byte \d+ of the file and overlaps/,
    ],
    [
      "a hole between tensors",
      safetensorsBytes({ a: entry(0, 4), b: entry(8, 12) }, 12),
      /tensor "b": .*leaves a hole before it/,
    ],
    ["a hole before the first tensor", safetensorsBytes({ a: entry(4, 8) }, 8), /leaves a hole before it/],
    [
      "an unknown field",
      safetensorsBytes({ a: entry(0, 4, { strides: [1] }) }, 4),
      /unknown field "strides"/,
    ],
    ["a tensor that is a number", safetensorsBytes({ a: 7 }, 0), /expected an object, found 7/],
    [
      "metadata that is no string",
      safetensorsBytes({ __metadata__: { n: 3 } }, 0),
      /__metadata__ "n" is 3, expected a string/,
    ],
    [
      "metadata that is a list",
      safetensorsBytes({ __metadata__: [1] }, 0),
      /__metadata__ is \[1\], expected an object/,
    ],
    ["a name of 1025 characters", safetensorsBytes({ ["x".repeat(1025)]: entry(0, 4) }, 4), /name/],
  ])("refuses %s", (_, bytes, expected) => {
    const text = message(bytes);
    expect(text).toMatch(expected);
    expect(text).toContain("m.safetensors: ");
  });

  test("all problems come at once, a bounded number of them in words", () => {
    const many = Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [`t${i}`, entry(0, 4, { dtype: "X" })]),
    );
    expect(message(safetensorsBytes(many, 4))).toMatch(/tensor "t0".*tensor "t7".*and 12 more/);
  });

  test("no file, a folder", () => {
    withFiles({}, (dir) => {
      const read = (path: string): string => inputErrorOf(() => readSafetensorsHeader(path));
      expect(read(join(dir, "x.safetensors"))).toContain("there is no such file");
      expect(read(dir)).toContain("not a regular file");
    });
  });
});

function bytesIn(path: string): Uint8Array {
  return new Uint8Array(readFileSync(path));
}

const tensors: TensorToWrite[] = [
  { name: "z", dtype: "U8", shape: [3], bytes: Uint8Array.of(1, 2, 3) },
  { name: "b", dtype: "F32", shape: [2, 1], bytes: bytesOf(Float32Array.of(1.5, Number.NaN)) },
  { name: "a", dtype: "F32", shape: [], bytes: () => bytesOf(Float32Array.of(-0)) },
  { name: "half", dtype: "F16", shape: [2], bytes: bytesOf(Uint16Array.of(0x3c00, 0xfc00)) },
  { name: "brain", dtype: "BF16", shape: [1], bytes: bytesOf(Uint16Array.of(0xbf80)) },
  { name: "index", dtype: "I64", shape: [1], bytes: bytesOf(BigInt64Array.of(-7n)) },
  { name: "none", dtype: "F32", shape: [0], bytes: new Uint8Array(0) },
];

describe("writeSafetensors", () => {
  test("what was written is read, in the reference implementation's order", () =>
    withFiles({}, (dir) => {
      const path = join(dir, "x.safetensors");
      writeSafetensors(path, tensors, { format: "pt" });
      const file = readSafetensorsHeader(path);
      const byPlace = [...file.tensors.values()].sort((p, q) => p.start - q.start || p.end - q.end);
      expect(byPlace.map((t) => t.name)).toEqual(["index", "a", "b", "none", "brain", "half", "z"]);
      expect(byPlace[0]!.start % 8).toBe(0);
      for (const { name, dtype, shape, bytes } of tensors) {
        const found = file.tensors.get(name)!;
        expect({ dtype: found.dtype, shape: found.shape }).toEqual({ dtype, shape });
        expect(readTensorBytes(found)).toEqual(
          Uint8Array.from(typeof bytes === "function" ? bytes() : bytes),
        );
      }
      expect(Object.is(readTensorAsF32(file.tensors.get("a")!)[0], -0)).toBe(true);
      expect([...readTensorAsF32(file.tensors.get("half")!)]).toEqual([1, -Infinity]);
      expect([...readTensorAsF32(file.tensors.get("brain")!)]).toEqual([-1]);
      expect(inputErrorOf(() => readTensorAsF32(file.tensors.get("index")!))).toContain("I64; expected F32");
    }));

  test("the bytes are those of the reference implementation", () =>
    withFiles({}, (dir) => {
      // safetensors 0.8 (Rust): save_file({"b": int8[2], "a": float32[1]}, metadata={"k": "v"}).
      const path = join(dir, "x.safetensors");
      writeSafetensors(
        path,
        [
          { name: "b", dtype: "I8", shape: [2], bytes: Uint8Array.of(1, 255) },
          { name: "a", dtype: "F32", shape: [1], bytes: bytesOf(Float32Array.of(1)) },
        ],
        { k: "v" },
      );
      const header =
        '{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"I8","shape":[2],"data_offsets":[4,6]}}';
      const padded = header.padEnd(Math.ceil(header.length / 8) * 8);
      expect(bytesIn(path)).toEqual(safetensorsBytes(padded, Uint8Array.of(0, 0, 128, 63, 1, 255)));
    }));

  test("a failure leaves the older file and nothing else", () =>
    withFiles({ "x.safetensors": VALID }, (dir) => {
      const path = join(dir, "x.safetensors");
      const wrong = [{ name: "a", dtype: "F32", shape: [2], bytes: new Uint8Array(4) } as const];
      expect(() => writeSafetensors(path, wrong)).toThrow(/tensor a was given 4 bytes, its shape has 8/);
      const failing = [
        {
          name: "a",
          dtype: "U8",
          shape: [1],
          bytes: () => {
            throw new Error("no");
          },
        } as const,
      ];
      expect(() => writeSafetensors(path, failing)).toThrow("no");
      expect(bytesIn(path)).toEqual(VALID);
      expect(leftovers(dir)).toEqual([]);
    }));

  test("names that no reader takes", () =>
    withFiles({}, (dir) => {
      for (const names of [["a", "a"], ["__metadata__"], ["x".repeat(1025)], ["\ud800"]]) {
        const list = names.map(
          (name) => ({ name, dtype: "U8", shape: [0], bytes: new Uint8Array(0) }) as const,
        );
        expect(() => writeSafetensors(join(dir, "x"), list)).toThrow(
          /cannot be a tensor's name, or stands twice/,
        );
      }
    }));

  test("a folder that does not exist is said so", () => {
    withFiles({}, (dir) => {
      const path = join(dir, "nowhere", "x.safetensors");
      expect(inputErrorOf(() => writeSafetensors(path, []))).toContain(
        `${join(dir, "nowhere")} does not exist`,
      );
    });
  });
});

describe("openModelTensors", () => {
  const part = (...names: string[]): Uint8Array =>
    safetensorsBytes(
      Object.fromEntries(names.map((name, i) => [name, entry(4 * i, 4 * i + 4)])),
      4 * names.length,
    );
  const index = (map: object): object => ({ metadata: { total_size: 8 }, weight_map: map });
  const open = (files: Record<string, Uint8Array | object>): Map<string, unknown> =>
    withFiles(files, openModelTensors);
  const INDEX = "model.safetensors.index.json";

  test("one file, or shards by their index", () => {
    expect([...open({ "model.safetensors": part("a", "b") }).keys()]).toEqual(["a", "b"]);
    const shards = { "s1.safetensors": part("a"), "s2.safetensors": part("b", "extra") };
    const found = open({ ...shards, [INDEX]: index({ a: "s1.safetensors", b: "s2.safetensors" }) });
    expect([...found.keys()].sort()).toEqual(["a", "b"]);
  });

  test.each<[string, Record<string, Uint8Array | object>, RegExp]>([
    [
      "a missing shard",
      { "s1.safetensors": part("a"), [INDEX]: index({ a: "s1.safetensors", b: "s2.safetensors" }) },
      /s2\.safetensors is missing \(1 tensors\).*download the model again/,
    ],
    [
      "a tensor that is not in its shard",
      { "s1.safetensors": part("a"), [INDEX]: index({ b: "s1.safetensors" }) },
      /tensor b is not in s1\.safetensors/,
    ],
    [
      "a way out of the folder",
      { [INDEX]: index({ a: "../s1.safetensors" }) },
      /tensor a: file "\.\.\/s1\.safetensors", expected the plain name/,
    ],
    ["an absolute path", { [INDEX]: index({ a: "/etc/x.safetensors" }) }, /expected the plain name/],
    ["a shard of another kind", { [INDEX]: index({ a: "s1.bin" }) }, /expected the plain name/],
    ["an index without a map", { [INDEX]: { metadata: {} } }, /weight_map is missing/],
    ["an empty map", { [INDEX]: index({}) }, /weight_map names no file/],
    ["only a GGUF file", { "x.gguf": new Uint8Array(1) }, /GGUF file\. Convert it: .*--from .*x\.gguf/],
    ["only PyTorch files", { "pytorch_model.bin": new Uint8Array(1) }, /only PyTorch files/],
    ["an adapter", { "adapter_model.safetensors": part("a") }, /an adapter's folder/],
    ["nothing", {}, /Expected a Hugging Face model folder/],
  ])("%s", (_, files, expected) => {
    expect(inputErrorOf(() => open(files))).toMatch(expected);
  });

  test("a file that was cut after it was opened", () =>
    withFiles({ "model.safetensors": VALID }, (dir) => {
      const [a] = openModelTensors(dir).values();
      writeFileSync(join(dir, "model.safetensors"), VALID.slice(0, -12));
      expect(inputErrorOf(() => readTensorBytes(a!))).toMatch(/the file ends at byte \d+.*cut or replaced/);
    }));
});
