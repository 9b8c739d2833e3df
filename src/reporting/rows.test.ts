import { describe, expect, test } from "bun:test";
import { ROW_WIDTH, type RowChart, rowChart, rowCharts } from "./rows.ts";

const chart: RowChart = {
  title: "A & B",
  unit: "right, %",
  mark: "bar",
  digits: 1,
  rows: [
    { label: "base", colour: 0, value: 20 },
    { label: "LoRA <32>", colour: 1, value: 40, error: 5, parts: [38, 42] },
    { label: "none", colour: 2, value: null },
  ],
  lines: [{ label: "majority class", value: 45 }],
};

/** Number attributes of every element of a kind, in order. */
function elements(svg: string, name: string): Record<string, number>[] {
  return [...svg.matchAll(new RegExp(`<${name} ([^>]*?)/?>`, "g"))].map(([, attributes]) =>
    Object.fromEntries(
      [...attributes!.matchAll(/(\w+)="(-?[\d.]+)"/g)].map(([, key, value]) => [key!, Number(value)]),
    ),
  );
}

describe("bars", () => {
  const svg = rowChart(chart);
  const bars = elements(svg, "rect").filter(({ height }) => height === 13);

  test("lengths are in proportion to the values; nothing where null stands; values are written out", () => {
    expect(bars).toHaveLength(2);
    expect(bars[1]!.width!).toBeCloseTo(2 * bars[0]!.width!, 0);
    expect(svg).toContain(">40.0</text>");
    expect(svg).toContain(">–</text>");
    expect(svg).toContain("<title>LoRA &lt;32&gt;: 40.0 ± 5.0</title>");
  });

  test("the whisker spans its error, parts lie around their mean, the line stands at its value", () => {
    const perUnit = bars[0]!.width! / 20;
    const [whisker] = [...svg.matchAll(/<line class="error" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"/g)];
    expect(Number(whisker![2]) - Number(whisker![1])).toBeCloseTo(10 * perUnit, 0);
    const parts = elements(svg, "circle").map(({ cx }) => cx!);
    expect(parts[1]! - parts[0]!).toBeCloseTo(4 * perUnit, 0);
    const [, x] = /<line class="mark" x1="([\d.]+)"/.exec(svg)!;
    expect(Number(x) - bars[0]!.x!).toBeCloseTo(45 * perUnit, 0);
    expect(svg).toContain("majority class 45.0");
  });
});

describe("dots", () => {
  const loss: RowChart = {
    ...chart,
    mark: "dot",
    digits: 3,
    rows: [
      { label: "a", colour: 1, value: 0.154 },
      { label: "b", colour: 2, value: 0.158 },
    ],
    lines: [{ label: "base", value: 2.817 }],
  };

  test("the scale is around the values; a line far from them is named with an arrow", () => {
    const svg = rowChart(loss);
    expect(svg).toContain("base 2.817, off the scale →");
    expect(svg).not.toContain('class="mark"');
    const [a, b] = elements(svg, "circle").map(({ cx }) => cx!);
    expect(b! - a!).toBeGreaterThan(100);
    const near = rowChart({ ...loss, lines: [{ label: "base", value: 0.15 }] });
    expect(near).toContain('class="mark"');
  });

  test("one value, and none", () => {
    expect(rowChart({ ...loss, rows: loss.rows.slice(0, 1), lines: [] })).not.toContain("NaN");
    const empty = { label: "x", colour: 1, value: null };
    for (const mark of ["bar", "dot"] as const) {
      const svg = rowChart({ ...loss, mark, rows: [empty], lines: [] });
      expect(svg).not.toMatch(/NaN|Infinity/);
    }
  });
});

test("several charts stand beside each other, notes below them, nothing outside", () => {
  const svg = rowCharts("Both", [chart, { ...chart, title: "Second" }], ["A note, < 1 line"]);
  const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(svg)!.map(Number);
  expect(width!).toBeGreaterThan(2 * ROW_WIDTH);
  const [first, second] = [...svg.matchAll(/<text x="([\d.]+)"[^>]*class="panel"/g)].map(([, x]) =>
    Number(x),
  );
  expect(second! - first!).toBeGreaterThan(ROW_WIDTH);
  for (const { x = 0, y = 0 } of [...elements(svg, "text"), ...elements(svg, "circle")]) {
    expect(x).toBeLessThanOrEqual(width!);
    expect(y).toBeLessThanOrEqual(height!);
  }
  expect(svg).toContain("A note, &lt; 1 line");
  expect(svg.match(/<style>/g)).toHaveLength(1);
});
