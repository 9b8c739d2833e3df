import { describe, expect, test } from "bun:test";
import { type BarChart, barChart } from "./bars.ts";

const chart: BarChart = {
  title: "A < B & C",
  series: ["base", "alone"],
  rows: [
    {
      label: "right, %",
      top: 100,
      panels: [
        { title: "one", groups: [{ title: "PIQA", bars: [{ value: 25 }, { value: 50, error: 5 }] }] },
        { title: "two", groups: [{ title: "PIQA", bars: [null, { value: 120 }] }] },
      ],
    },
    {
      label: "loss",
      panels: [{ title: "one", groups: [{ title: "PIQA", bars: [{ value: 0.31 }, { value: 0.62 }] }] }],
    },
  ],
};

/** Number attributes of every element of a kind, in order. */
function elements(svg: string, name: string): Record<string, number>[] {
  return [...svg.matchAll(new RegExp(`<${name} ([^>]*?)/?>`, "g"))].map(([, attributes]) =>
    Object.fromEntries(
      [...attributes!.matchAll(/([\w-]+)="(-?[\d.]+)"/g)].map(([, key, value]) => [key!, Number(value)]),
    ),
  );
}

describe("bars", () => {
  const svg = barChart(chart);
  const bars = elements(svg, "rect").filter(({ height, y }) => y !== undefined && height !== 14);

  test("it is well-formed: every element is closed, signs are escaped", () => {
    const open: string[] = [];
    for (const [, end, name, self] of svg.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)) {
      if (end) expect(open.pop()).toBe(name!);
      else if (!self) open.push(name!);
    }
    expect(open).toEqual([]);
    expect(svg).toContain("A &lt; B &amp; C");
    expect(svg).toContain("prefers-color-scheme:dark");
  });

  test("heights are in proportion to the values; what is above the scale ends at its top; nothing where null stands", () => {
    const heights = bars.map(({ height }) => height!);
    expect(heights).toHaveLength(5);
    const [quarter, half, over, low, high] = heights as [number, number, number, number, number];
    expect(half).toBeCloseTo(2 * quarter, 0);
    expect(over).toBeCloseTo(4 * quarter, 0);
    expect(high).toBeCloseTo(2 * low, 0);
  });

  test("a scale without a top ends at the first round number above every bar", () => {
    const labels = [...svg.matchAll(/text-anchor="end">([^<]+)</g)].map(([, label]) => label);
    expect(labels).toEqual(["0", "20", "40", "60", "80", "100", "0.0", "0.2", "0.4", "0.6", "0.8"]);
  });

  test("nothing lies outside the picture, and the whisker spans its error", () => {
    const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(svg)!.map(Number);
    for (const { x, y, width: w = 0, height: h = 0 } of [
      ...elements(svg, "rect"),
      ...elements(svg, "text"),
    ]) {
      expect((x ?? 0) + w).toBeLessThanOrEqual(width!);
      expect((y ?? 0) + h).toBeLessThanOrEqual(height!);
      expect(Math.min(x ?? 0, y ?? 0)).toBeGreaterThanOrEqual(0);
    }
    const whisker = [...svg.matchAll(/<line class="error" [^>]*y1="([\d.]+)" [^>]*y2="([\d.]+)"/g)];
    expect(whisker).toHaveLength(1);
    const [, bottom, top] = whisker[0]!.map(Number);
    // ± 5 of 100 on the scale on which 25 has the first bar's height
    expect(bottom! - top!).toBeCloseTo((10 / 25) * bars[0]!.height!, 0);
  });

  test("bars without a value make an empty scale, and too many series are refused", () => {
    const empty: BarChart = {
      title: "t",
      series: ["a"],
      rows: [{ label: "l", panels: [{ title: "p", groups: [{ title: "g", bars: [null] }] }] }],
    };
    expect(barChart(empty)).toContain("</svg>");
    const series = ["a", "b", "c", "d", "e", "f", "g", "h"];
    expect(() => barChart({ ...empty, series })).toThrow("8 series");
  });
});
