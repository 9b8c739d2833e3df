import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32, deflateRawSync } from "node:zlib";
import { leftovers, someBytes, withFiles } from "./testing.ts";
import { concat, u32 } from "./testing-gguf.ts";
import { extractFromZip } from "./zip.ts";

const u16 = (value: number): Uint8Array => Uint8Array.of(value & 255, value >> 8);

interface Part {
  readonly name: string;
  readonly data: Uint8Array;
  readonly method: number;
}

/** An archive with an extra field in each local header and a comment at its end. */
function zip(parts: readonly Part[], over: { directoryStart?: number } = {}): Uint8Array {
  const locals: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const { name, data, method } of parts) {
    const packed = method === 8 ? deflateRawSync(data) : data;
    const label = new TextEncoder().encode(name);
    const sizes = [u32(crc32(data)), u32(packed.length), u32(data.length)];
    const local = concat([
      u32(0x04034b50),
      u16(20),
      u16(0),
      u16(method),
      u32(0),
      ...sizes,
      u16(label.length),
      u16(5),
      label,
      new Uint8Array(5),
      packed,
    ]);
    const entry = [
      u32(0x02014b50),
      u16(20),
      u16(20),
      u16(0),
      u16(method),
      u32(0),
      ...sizes,
      u16(label.length),
    ];
    directory.push(concat([...entry, u16(0), u16(0), u16(0), u16(0), u32(0), u32(at), label]));
    locals.push(local);
    at += local.length;
  }
  const list = concat(directory);
  const count = u16(parts.length);
  const end = [
    u32(0x06054b50),
    u16(0),
    u16(0),
    count,
    count,
    u32(list.length),
    u32(over.directoryStart ?? at),
    u16(3),
  ];
  return concat([...locals, list, ...end, Uint8Array.of(1, 2, 3)]);
}

const DATA = someBytes(100_000, 3).map((b) => b & 15);
const PARTS: Part[] = [
  { name: "pkg/__init__.py", data: Uint8Array.of(1), method: 0 },
  { name: "pkg/model.gguf", data: DATA, method: 8 },
];

async function extract(
  archive: Uint8Array,
): Promise<{ said: string; file: Uint8Array | null; left: string[] }> {
  return withFiles({ "a.whl": archive }, async (dir) => {
    const target = join(dir, "out.gguf");
    const said = await extractFromZip(join(dir, "a.whl"), ".gguf", target).then(
      () => "",
      (error: Error) => `${error.name} ${error.message}`,
    );
    return {
      said,
      file: existsSync(target) ? new Uint8Array(readFileSync(target)) : null,
      left: leftovers(dir),
    };
  });
}

describe("extractFromZip", () => {
  test.each([0, 8])("method %d", async (method) => {
    const got = await extract(zip([PARTS[0]!, { ...PARTS[1]!, method }]));
    expect(got.said).toBe("");
    expect(got.file).toEqual(DATA);
  });

  const good = zip(PARTS);
  const damaged = good.map((b, i) => (i > 500 && i < 600 ? 0xff : b));
  test.each<[string, Uint8Array, RegExp]>([
    ["no archive", DATA, /InputError .*a\.whl: no end record, expected a ZIP archive/],
    ["an empty file", new Uint8Array(0), /no end record/],
    ["a cut archive", good.slice(0, -40), /no end record/],
    ["no such entry", zip([PARTS[0]!]), /0 entries end with "\.gguf", expected one/],
    ["two such entries", zip([PARTS[1]!, { ...PARTS[1]!, name: "b.gguf" }]), /2 entries end with/],
    ["an unknown method", zip([{ ...PARTS[1]!, method: 12 }]), /packed by method 12, expected 0 or 8/],
    ["damaged data", damaged, /cannot be unpacked .*download the archive again/],
    [
      "a flipped bit in stored data",
      zip([{ ...PARTS[1]!, method: 0 }]).map((b, i) => (i === 500 ? b ^ 1 : b)),
      /CRC-32/,
    ],
    ["a directory outside", zip(PARTS, { directoryStart: 2 ** 30 }), /points outside the archive/],
  ])("refuses %s", async (_, archive, message) => {
    const got = await extract(archive);
    expect(got.said).toMatch(message);
    expect(got.file).toBeNull();
    expect(got.left).toEqual([]);
  });
});
