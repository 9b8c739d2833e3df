import { describe, expect, test } from "bun:test";
import { apart, curveChart } from "./curves.ts";
import { scaleOf, shownBy, ticksOf } from "./svg.ts";

describe("scales", () => {
  test("round ends around all values, about five steps", () => {
    expect(scaleOf([101.3, 148])).toEqual({ low: 100, high: 150, step: 10 });
    expect(ticksOf(scaleOf([101.3, 148]))).toEqual([100, 110, 120, 130, 140, 150]);
    const small = scaleOf([0, 0.0042]);
    expect(small.step).toBeCloseTo(0.001, 12);
    expect(small.high).toBeCloseTo(0.005, 12);
  });

  test("one value, none, and values that are no numbers", () => {
    const { low, high } = scaleOf([5, 5]);
    expect(low).toBeLessThan(5);
    expect(high).toBeGreaterThan(5);
    expect(scaleOf([])).toEqual({ low: 0, high: 1, step: 0.5 });
    expect(scaleOf([Number.NaN, 1, 2]).low).toBe(1);
  });

  test("numbers have the decimals their step needs", () => {
    expect([shownBy(10, 120), shownBy(0.5, 1.5), shownBy(0.02, 0.1)]).toEqual(["120", "1.5", "0.10"]);
  });
});

describe("labels", () => {
  test("those with room stay where they are", () => {
    expect(apart([10, 40, 90], 16)).toEqual([10, 40, 90]);
  });

  test("close ones move apart around their middle, and push on", () => {
    expect(apart([50, 50], 16)).toEqual([42, 58]);
    const moved = apart([10, 12, 14, 30], 16);
    for (let i = 1; i < moved.length; i++)
      expect(moved[i]! - moved[i - 1]!).toBeGreaterThanOrEqual(16 - 1e-9);
    expect(moved.reduce((sum, y) => sum + y, 0)).toBeCloseTo(66, 9);
  });
});

describe("curveChart", () => {
  const chart = curveChart({
    title: "Memory & time",
    x: "seconds",
    y: "MiB",
    panels: [
      {
        title: "r = 64",
        curves: [
          {
            colour: 1,
            label: "LoRA <64>",
            points: [
              [0, 100],
              [10, 200],
            ],
          },
          {
            colour: 4,
            label: "FA",
            points: [
              [0, 100],
              [5, 150],
            ],
          },
        ],
      },
      { title: "r = 32", curves: [] },
    ],
    note: "a note",
  });

  test("curves run from their first to their last point inside the plot, higher is up", () => {
    const paths = [...chart.matchAll(/<polyline class="line l(\d)" points="([^"]+)"/g)];
    expect(paths.map(([, colour]) => colour)).toEqual(["1", "4"]);
    const placed = paths.map(([, , points]) => points!.split(" ").map((pair) => pair.split(",").map(Number)));
    const [first, last] = placed[0] as [[number, number], [number, number]];
    expect([last[0] - first[0], first[1] - last[1]]).toEqual([360, 260]);
    // Five of ten seconds, the middle of the scale.
    const [, shorter] = placed[1] as [[number, number], [number, number]];
    expect([shorter[0] - first[0], first[1] - shorter[1]]).toEqual([180, 130]);
  });

  test("text is escaped, colours follow dark mode, and nothing is loaded", () => {
    expect(chart).toContain("Memory &amp; time");
    expect(chart).toContain("LoRA &lt;64&gt;");
    expect(chart).toContain("prefers-color-scheme:dark");
    expect(chart.replace("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:|url\(|@import/);
    expect(chart).toStartWith("<svg");
    expect(chart.trimEnd()).toEndWith("</svg>");
  });
});
