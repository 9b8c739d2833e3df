import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { leftovers, someBytes, withFiles } from "./testing.ts";
import { type ZipPart, zip } from "./testing-zip.ts";
import { extractFromZip } from "./zip.ts";

const DATA = someBytes(100_000, 3).map((b) => b & 15);
const PARTS: ZipPart[] = [
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
    [
      "more than its directory says",
      zip([{ name: "a.gguf", data: new Uint8Array(1 << 22), method: 8, bytes: 1000 }]),
      /more than 1000 bytes/,
    ],
    ["a directory outside", zip(PARTS, { directoryStart: 2 ** 30 }), /points outside the archive/],
  ])("refuses %s", async (_, archive, message) => {
    const got = await extract(archive);
    expect(got.said).toMatch(message);
    expect(got.file).toBeNull();
    expect(got.left).toEqual([]);
  });
});
