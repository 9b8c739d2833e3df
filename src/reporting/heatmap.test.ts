import { expect, test } from "bun:test";
import { inflateSync } from "node:zlib";
import { heatmapChart } from "./heatmap.ts";
import { pngBytes } from "./png.ts";

/** Width, height and the pixels of a file of ours. */
function readPng(bytes: Uint8Array): { width: number; height: number; pixels: number[][] } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts = new Map<string, Uint8Array>();
  for (let at = 8; at < bytes.length; ) {
    const length = view.getUint32(at);
    const body = bytes.subarray(at + 4, at + 8 + length);
    expect(view.getUint32(at + 8 + length)).toBe(Bun.hash.crc32(body));
    parts.set(new TextDecoder().decode(body.subarray(0, 4)), body.subarray(4));
    at += 12 + length;
  }
  expect([...parts.keys()]).toEqual(["IHDR", "IDAT", "IEND"]);
  const header = parts.get("IHDR")!;
  const sizes = new DataView(header.buffer, header.byteOffset, 8);
  const [width, height] = [sizes.getUint32(0), sizes.getUint32(4)];
  const rows = inflateSync(parts.get("IDAT")!);
  const pixels: number[][] = [];
  for (let y = 0; y < height; y++) {
    expect(rows[y * (4 * width + 1)]).toBe(0);
    for (let x = 0; x < width; x++) {
      const at = y * (4 * width + 1) + 1 + 4 * x;
      pixels.push([...rows.subarray(at, at + 4)]);
    }
  }
  return { width, height, pixels };
}

test("a PNG holds its pixels, row after row, every part with its checksum", () => {
  const bytes = pngBytes(2, 1, Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8]));
  expect([...bytes.subarray(0, 8)]).toEqual([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  expect(readPng(bytes)).toEqual({
    width: 2,
    height: 1,
    pixels: [
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ],
  });
  expect(() => pngBytes(2, 2, new Uint8Array(4))).toThrow("2×2");
});

const panel = (rows: number, columns: number, values: Float32Array) => ({
  title: "a < b",
  caption: "c",
  rows,
  columns,
  values,
});
const pictureIn = (svg: string): Uint8Array =>
  new Uint8Array(Buffer.from(/base64,([^"]+)"/.exec(svg)![1]!, "base64"));

test("nothing where a value is 0, stronger where it is larger", () => {
  const chart = heatmapChart({
    title: "t",
    columns: "in",
    rows: "out",
    panels: [panel(1, 3, Float32Array.from([0, 0.5, 1]))],
  });
  const alphas = readPng(pictureIn(chart)).pixels.map(([, , , alpha]) => alpha!);
  expect(alphas[0]).toBe(0);
  expect(alphas[1]).toBeGreaterThan(80);
  expect(alphas[1]).toBeLessThan(alphas[2]!);
  expect(alphas[2]).toBe(255);
  expect(chart).toContain("a &lt; b");
  expect(chart.replace("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:/);
});

test("a matrix larger than the picture loses no changed line: neighbours show the largest of them", () => {
  const values = new Float32Array(4 * 2048);
  for (let row = 0; row < 4; row++) values[row * 2048 + 1234] = 1;
  const chart = heatmapChart({ title: "t", columns: "", rows: "", panels: [panel(4, 2048, values)] });
  const { width, height, pixels } = readPng(pictureIn(chart));
  expect([width, height]).toEqual([256, 4]);
  const seen = pixels.flatMap(([, , , alpha], i) => (alpha === 255 ? [i % 256] : []));
  expect(seen).toEqual([154, 154, 154, 154]);
});
