import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type GgufFile, readGguf, readGgufTensor } from "./gguf.ts";
import { inputErrorOf, withFiles } from "./testing.ts";
import { concat, f32Tensor, type GgufParts, ggufBytes, type Typed, text, u32, u64 } from "./testing-gguf.ts";

const METADATA: [string, Typed][] = [
  ["general.architecture", { text: "llama" }],
  ["llama.block_count", { u32: 2 }],
  ["half", { f32: 0.5 }],
  ["yes", { bool: true }],
  ["words", { texts: ["a", "", "日本"] }],
  ["big", { u64: 2n ** 63n }],
];
const TENSORS = [f32Tensor("w", [2, 3], [1, 2, 3, 4, 5, 6]), f32Tensor("v", [4], [7, 8, 9, 10])];
const VALID: GgufParts = { metadata: METADATA, tensors: TENSORS };

function open<T>(bytes: Uint8Array, use: (file: GgufFile) => T): T {
  return withFiles({ "m.gguf": bytes }, (dir) => use(readGguf(join(dir, "m.gguf"))));
}

const message = (bytes: Uint8Array): string => inputErrorOf(() => open(bytes, () => undefined));
const made = (over: GgufParts): Uint8Array => ggufBytes({ ...VALID, ...over });

describe("readGguf", () => {
  test.each([2, 3])("the valid twin, version %d", (version) => {
    open(made({ version }), (file) => {
      expect(file.version).toBe(version);
      expect(file.metadata.get("llama.block_count")).toBe(2);
      expect(file.metadata.get("half")).toBe(0.5);
      expect(file.metadata.get("yes")).toBe(true);
      expect(file.metadata.get("words")).toEqual(["a", "", "日本"]);
      expect(file.metadata.get("big")).toBe(2n ** 63n);
      const w = file.tensors.get("w")!;
      // The file names the innermost size first.
      expect(w.shape).toEqual([3, 2]);
      expect(w.type.name).toBe("F32");
      const values = (name: string): number[] => [
        ...new Float32Array(readGgufTensor(file, file.tensors.get(name)!).buffer as ArrayBuffer),
      ];
      expect(values("w")).toEqual([1, 2, 3, 4, 5, 6]);
      expect(values("v")).toEqual([7, 8, 9, 10]);
    });
  });

  test("another alignment", () => {
    const metadata: [string, Typed][] = [...METADATA, ["general.alignment", { u32: 64 }]];
    open(ggufBytes({ ...VALID, metadata, alignment: 64 }), (file) => {
      expect(file.tensors.get("w")!.start % 64).toBe(0);
      expect(file.tensors.get("v")!.start % 64).toBe(0);
    });
  });

  test("no tensors, no metadata", () => {
    open(ggufBytes({}), (file) => expect([file.tensors.size, file.metadata.size]).toEqual([0, 0]));
  });

  test("cut anywhere, it is refused and never read beyond its end", () => {
    const bytes = made({});
    for (let length = 0; length < bytes.length; length++) {
      const said = message(bytes.slice(0, length));
      expect(said).toMatch(/m\.gguf: /);
    }
  });

  const one = (over: object): GgufParts => ({ tensors: [{ ...TENSORS[0]!, ...over }] });
  const extra = (key: string, value: Typed): GgufParts => ({ metadata: [...METADATA, [key, value]] });

  test.each<[string, Uint8Array, RegExp]>([
    ["another magic", made({ magic: "GGML" }), /does not start with "GGUF"/],
    ["version 1", made({ version: 1 }), /GGUF version 1, expected 2 or 3/],
    ["a big-endian file", made({ version: 3 << 24 }), /the file is big-endian/],
    ["a huge number of tensors", made({ tensorCount: 2n ** 40n }), /1099511627776 tensors, at most 262144/],
    ["a huge number of entries", made({ metadataCount: 2n ** 63n }), /metadata entries, at most 65536/],
    ["more tensors than there are", made({ tensorCount: 9n }), /cut or damaged|tensor|name/],
    [
      "a string beyond the file",
      made(extra("s", { raw: concat([u32(8), u64(1 << 20)]) })),
      /needs 1048576 bytes at \d+/,
    ],
    [
      "a string beyond the limit",
      made(extra("s", { raw: concat([u32(8), u64(2n ** 62n)]) })),
      /has 4611686018427387904 bytes, at most/,
    ],
    [
      "text that is no UTF-8",
      made(extra("s", { raw: concat([u32(8), u64(1), Uint8Array.of(0xff)]) })),
      /metadata "s" is not valid UTF-8/,
    ],
    [
      "an array beyond the file",
      made(extra("a", { raw: concat([u32(9), u32(4), u64(2n ** 50n)]) })),
      /has 1125899906842624 elements, at most \d+ are possible/,
    ],
    [
      "arrays in arrays in arrays in arrays",
      made(
        extra("a", {
          raw: concat([u32(9), ...Array.from({ length: 4 }, () => concat([u32(9), u64(1)])), u32(4), u64(0)]),
        }),
      ),
      /nests arrays deeper than 3/,
    ],
    [
      "an unknown value type",
      made(extra("x", { raw: u32(13) })),
      /metadata "x" has the unknown value type 13/,
    ],
    ["a boolean of 2", made(extra("b", { bool: 2 })), /a boolean with the byte 2/],
    ["the same key twice", made(extra("yes", { bool: false })), /the metadata key "yes" stands twice/],
    [
      "an alignment of 24",
      made(extra("general.alignment", { u32: 24 })),
      /general\.alignment is 24, expected a power of two/,
    ],
    ["an alignment of 0", made(extra("general.alignment", { u32: 0 })), /general\.alignment is 0/],
    [
      "an alignment that is text",
      made(extra("general.alignment", { text: "32" })),
      /general\.alignment is 32/,
    ],
    ["an unknown tensor type", made(one({ type: 99 })), /tensor "w" has the unknown type 99/],
    ["a type that was taken out of ggml", made(one({ type: 4 })), /unknown type 4/],
    ["five dimensions", made(one({ sizes: [1, 1, 1, 1, 6] })), /5 dimensions, at most 4/],
    [
      "rows that are no whole blocks",
      made(one({ type: 2, sizes: [33, 1], bytes: new Uint8Array(64) })),
      /rows of 33 elements, Q4_0 needs a multiple of 32/,
    ],
    ["sizes beyond the file", made(one({ sizes: [2, 4] })), /tensor w ends at byte \d+, but the file has/],
    ["sizes that overflow", made(one({ sizes: [2n ** 62n, 2n ** 62n] })), /tensor w has \d+ bytes, at most/],
    ["an offset that is not aligned", made(one({ offset: 4 })), /tensor w lies at 4, not a multiple of 32/],
    [
      "the same tensor twice",
      made({ tensors: [TENSORS[0]!, { ...TENSORS[1]!, name: "w" }] }),
      /tensor w stands twice/,
    ],
    [
      "overlapping tensors",
      made({
        tensors: [
          { ...TENSORS[0]!, sizes: [9], bytes: new Uint8Array(36) },
          { ...TENSORS[1]!, offset: 32 },
        ],
      }),
      /tensors w and v overlap/,
    ],
    [
      "a name beyond the limit",
      made(one({ name: "n".repeat(1025) })),
      /the name of tensor 0 has 1025 bytes, at most 1024/,
    ],
  ])("refuses %s", (_, bytes, expected) => {
    expect(message(bytes)).toMatch(expected);
  });

  test("an array that claims one element per byte left of the file stays bounded", () => {
    const bytes = made(extra("a", { raw: concat([u32(9), u32(8), u64(4), text("x")]) }));
    expect(message(bytes)).toMatch(/m\.gguf: /);
  });
});
