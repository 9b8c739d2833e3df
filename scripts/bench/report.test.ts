import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../../src/errors.ts";
import {
  addCheck,
  addFigure,
  addTarget,
  appendResult,
  emptyReport,
  figureTable,
  formatFigure,
  meets,
  targetLine,
} from "./report.ts";

const folder = mkdtempSync(join(tmpdir(), "sbora-report-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("target lines", () => {
  test("at least: the median of the paired ratios decides", () => {
    const report = emptyReport("gemm");
    const target = addTarget(report, {
      name: "gemm.smollm2.bf16.products",
      unit: "GFLOP/s",
      ours: [1000, 900, 1100],
      peer: { name: "peak", samples: [1100, 1000, 1200] },
      bound: { least: 0.88 },
    });
    expect(targetLine(target)).toBe(
      "gemm.smollm2.bf16.products ours=1000GFLOP/s peer=1100GFLOP/s(peak) ratio=0.9091 target=>=0.88 ok",
    );
    expect(report.targets).toEqual([target]);
  });

  test("at most, and short of it", () => {
    const target = addTarget(emptyReport("step"), {
      name: "step.smollm2.bf16.lora/floor",
      unit: "ms",
      ours: [130],
      peer: { name: "floor", samples: [100] },
      bound: { most: 1.25 },
    });
    expect(targetLine(target)).toEndWith("ratio=1.300 target=<=1.25 short");
  });

  test("equal: the interval decides, and is shown (settled 22)", () => {
    const beside = (ours: number[]): string =>
      targetLine(
        addTarget(emptyReport("serve"), {
          name: "serve.lora/base",
          unit: "tokens/s",
          ours,
          peer: { name: "base", samples: ours.map(() => 100) },
          bound: { equal: true },
        }),
      );
    // one turn that was disturbed is no more than one turn
    expect(beside([100, 101, 99, 100, 100, 101, 99, 100, 60])).toEndWith(
      "ratio=1.000[0.9900,1.010] target=1+-0.02 ok",
    );
    // all of them faster; too uncertain to say; too few
    expect(beside([103, 103.1, 103, 103, 103, 103.2])).toEndWith("short");
    expect(beside([90, 110, 95, 105, 92, 108])).toEndWith("short");
    expect(beside([100, 100, 100, 100, 100])).toEndWith("ratio=1.000[0,Infinity] target=1+-0.02 short");
  });

  test("without a peer the bound is on our figure", () => {
    const target = { name: "start.first-token", unit: "s", ours: [0.41, 0.43, 0.6], peer: null } as const;
    const met = addTarget(emptyReport("start"), { ...target, bound: { most: 0.5 } });
    expect(targetLine(met)).toBe("start.first-token ours=0.4300s peer=- ratio=- target=<=0.5 ok");
    const short = addTarget(emptyReport("start"), { ...target, bound: { most: 0.4 } });
    expect(targetLine(short)).toEndWith("short");
  });

  test("every field is free of blanks, so that a line is cut at them", () => {
    const target = addTarget(emptyReport("decode"), {
      name: "decode.bf16.1-stream",
      unit: "tokens/s",
      ours: [150],
      peer: { name: "llama.cpp", samples: [140] },
      bound: { least: 1.25 },
    });
    expect(targetLine(target).split(" ")).toHaveLength(6);
  });

  test("bounds meet at the limit", () => {
    expect([meets(1.05, { most: 1.05 }), meets(1.0501, { most: 1.05 })]).toEqual([true, false]);
    expect([meets(2, { least: 2 }), meets(1.999, { least: 2 })]).toEqual([true, false]);
    expect([meets(0.96, { within: 0.05 }), meets(1.06, { within: 0.05 })]).toEqual([true, false]);
  });
});

test("figures have four significant digits and no exponent", () => {
  expect([1144.2, 57.312, 0.93119, 0.00012, 1234567, 0].map(formatFigure)).toEqual([
    "1144",
    "57.31",
    "0.9312",
    "0.000120",
    "1234567",
    "0",
  ]);
});

test("the table shows median, extremes, spread and count", () => {
  const report = emptyReport("gemm");
  addFigure(report, "gemm.tiny", "GFLOP/s", [90, 100, 110]);
  const [, , row] = figureTable(report.figures).split("\n");
  expect(row!.split(/\s{2,}/)).toEqual(["gemm.tiny", "100.0", "90.00", "110.0", "20.0 %", "GFLOP/s", "3"]);
});

test("a result that differs from the reference, or is NaN, is not timed", () => {
  const report = emptyReport("gemm");
  addCheck(report, { name: "forward", error: 1e-7, tolerance: 1e-5 });
  expect(report.checks).toHaveLength(1);
  for (const error of [2e-5, Number.NaN]) {
    expect(() => addCheck(report, { name: "forward", error, tolerance: 1e-5 })).toThrow(InputError);
  }
  expect(report.checks).toHaveLength(1);
});

describe("results", () => {
  test("runs are added, one a line", () => {
    const path = appendResult(folder, "gemm", { run: 1 });
    appendResult(folder, "gemm", { run: 2 });
    const text = readFileSync(path, "utf8");
    expect(JSON.parse(text)).toEqual([{ run: 1 }, { run: 2 }]);
    expect(text.trim().split("\n")).toHaveLength(4);
  });

  test("a file that is something else is left alone", () => {
    const path = join(folder, "step.json");
    writeFileSync(path, "{}");
    expect(() => appendResult(folder, "step", { run: 1 })).toThrow(path);
    expect(readFileSync(path, "utf8")).toBe("{}");
  });
});
