import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import type { TrainRecipe } from "../src/training/recipe.ts";
import { figure3 } from "./memory-recipe.ts";
import { memoryClaims, memoryCsv, memoryJson, memoryPicture, memorySections } from "./memory-report.ts";
import { parseMachine, parseStatus, thinned } from "./memory-sample.ts";
import { type CurveFile, type MemoryFlags, openMemoryStudy, readCurve, runCurve } from "./memory-study.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-memory-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface Measured {
  readonly mebibytes: number;
  readonly step: number;
  readonly others?: number;
}

/** A curve of six steps; every step takes about `step` seconds. */
function curve(method: TrainRecipe["method"], { mebibytes, step, others = 0 }: Measured): CurveFile {
  const steps = [9, 1, 1.01, 0.99, 1.02, 0.98].map((factor) => factor * step);
  return {
    recipe: { training: { method, rank: 32 } },
    manifest: { processor: "P", isa: "i", parameters: 1000 },
    timing: {
      samples: [[0.1, mebibytes * 2 ** 19] as const, [1, mebibytes * 2 ** 20] as const],
      steps,
      seconds: 6 * step,
      peak: mebibytes * 2 ** 20,
      foreseen: mebibytes * 2 ** 20,
      processorSeconds: step,
      othersShare: others,
      threads: 2,
    },
  } as unknown as CurveFile;
}

const claimed = (curves: readonly CurveFile[]): string[][] =>
  memoryClaims(curves).map(({ claim, verdict }) => [claim.replace("r=32: ", ""), verdict]);

describe("claims", () => {
  const dora = curve("dora", { mebibytes: 120, step: 2.5 });
  const lora = curve("lora", { mebibytes: 110, step: 1.1 });

  test("clear differences hold or do not", () => {
    const curves = [lora, dora, curve("sbora-fa", { mebibytes: 90, step: 1 })];
    expect(claimed(curves)).toEqual([
      ["SBoRA-FA needs less memory than LoRA", "holds"],
      ["LoRA needs less memory than DoRA", "holds"],
      ["SBoRA-FA takes less time than LoRA", "holds"],
      ["SBoRA-FA takes less than half of DoRA's time", "holds"],
    ]);
    const slow = [lora, dora, curve("sbora-fb", { mebibytes: 115, step: 1.5 })];
    expect(claimed(slow).map(([, verdict]) => verdict)).toEqual([
      "does not hold",
      "holds",
      "does not hold",
      "does not hold",
    ]);
  });

  test("equal memory, a shared machine or other numbers of steps decide nothing", () => {
    const near = curve("sbora-fa", { mebibytes: 110.5, step: 1, others: 0.3 });
    expect(claimed([lora, near])).toEqual([
      ["SBoRA-FA needs less memory than LoRA", "cannot be told"],
      ["SBoRA-FA takes less time than LoRA", "cannot be told"],
    ]);
    const short = curve("sbora-fa", { mebibytes: 90, step: 1 });
    const cut = { ...short, timing: { ...short.timing, steps: [1, 1, 1] } };
    expect(claimed([lora, cut])[1]![1]).toBe("cannot be told");
  });

  test("the first steps are no part of a time: caches warm up", () => {
    const [, { here }] = memoryClaims([lora, curve("sbora-fa", { mebibytes: 90, step: 1 })]) as [
      unknown,
      { here: string },
    ];
    expect(here).toStartWith("0.91 of its step time (0.91 to 0.91)");
  });
});

describe("samples", () => {
  test("/proc as Linux writes it", () => {
    const status = "Name:\tbun\nVmPeak:\t  9000 kB\nVmHWM:\t  2080 kB\nVmRSS:\t  2000 kB\nRssAnon:\t 1 kB\n";
    expect(parseStatus(status)).toEqual({ resident: 2000 * 1024, most: 2080 * 1024 });
    expect(parseStatus("Name:\tzombie\n")).toBeNull();
    expect(parseMachine("cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3 4\n")).toEqual({ busy: 81, total: 531 });
  });

  test("thinned to what a picture can show: no peak is lost, the last sample stays", () => {
    const samples = Array.from({ length: 1000 }, (_, i): [number, number] => [i, i === 437 ? 5000 : i % 7]);
    const kept = thinned(samples, 50);
    expect(kept.length).toBeLessThanOrEqual(50);
    expect(kept).toContainEqual([437, 5000]);
    expect(kept.at(-1)).toEqual([999, samples[999]![1]]);
    expect(kept.map(([x]) => x)).toEqual([...kept.map(([x]) => x)].sort((a, b) => a - b));
    expect(thinned(samples.slice(0, 3), 50)).toEqual(samples.slice(0, 3));
  });
});

test("table, picture, CSV and JSON are made from the same curves", () => {
  const curves = [
    curve("lora", { mebibytes: 110, step: 1.1, others: 0.2 }),
    curve("sbora-fa", { mebibytes: 90, step: 1 }),
  ];
  const report = { figure: figure3, preset: figure3.presets.tiny, modelName: "tiny", curves };
  const [table, claims] = memorySections(report);
  expect(table!.table!.rows[1]).toEqual([
    "SBoRA-FA",
    "32",
    "1.0k",
    "90",
    "90",
    "6",
    "6.0",
    "1000",
    "1 h 1 min",
    "1.0",
    "0",
  ]);
  expect(table!.paragraphs.join()).toContain("The machine was shared");
  expect(claims!.title).toBe("The paper's claims on Figure 3");
  expect(memoryCsv(curves).split("\n")[3]).toBe(`sbora-fa,32,0.1,${90 * 2 ** 19}`);
  expect(JSON.parse(memoryJson(report))).toMatchObject({
    curves: [{ method: "lora" }, { peakBytes: 90 * 2 ** 20 }],
  });
  expect(memoryPicture(report)).toContain("SBoRA-FA 6.0 s");
});

const flags: MemoryFlags = {
  model: null,
  data: null,
  methods: ["sbora-fa"],
  ranks: [4],
  seed: null,
  steps: 2,
  compute: null,
  threads: 1,
  out: join(dir, "out"),
};

describe.skipIf(!existsSync("/proc/self/status"))("a curve", () => {
  test("is measured in a process of its own, found finished again, and refused under another recipe", async () => {
    const study = openMemoryStudy(figure3, figure3.presets.tiny, flags);
    const [plan] = study.curves;
    const watched: number[] = [];
    const watch = { onStep: (step: number) => void watched.push(step), shouldStop: () => false };
    const measured = (await runCurve(study, plan!, watch))!;
    expect(watched).toEqual([1, 2]);
    expect(measured.timing.steps).toHaveLength(2);
    const resident = measured.timing.samples.map(([, bytes]) => bytes);
    expect(Math.min(...resident)).toBeGreaterThan(20e6);
    expect(Math.max(...resident)).toBeLessThanOrEqual(measured.timing.peak);
    expect(measured.timing.seconds).toBeGreaterThanOrEqual(measured.timing.steps[1]!);
    expect(measured.timing.othersShare).toBeWithin(0, 1.0001);
    expect(await runCurve(study, plan!, watch)).toEqual(measured);
    expect(watched).toEqual([1, 2]);
    const other = openMemoryStudy(figure3, figure3.presets.tiny, { ...flags, steps: 3 });
    expect(() => readCurve(other.curves[0]!)).toThrow("training.steps (2, now 3)");
  }, 300_000);

  test("a run that fails says what the child said, and leaves no file", async () => {
    const study = openMemoryStudy(figure3, figure3.presets.tiny, { ...flags, out: join(dir, "bad") });
    const [plan] = study.curves;
    const broken = { ...study, dataFile: join(dir, "nowhere.json") };
    const watch = { onStep: () => {}, shouldStop: () => false };
    const failed = runCurve(broken, plan!, watch);
    expect(failed).rejects.toThrow(InputError);
    expect(failed).rejects.toThrow("nowhere.json");
    await failed.catch(() => null);
    expect(existsSync(plan!.json)).toBe(false);
  }, 120_000);

  test("rank and method are checked before anything runs", () => {
    const open = (changes: Partial<MemoryFlags>) => () =>
      openMemoryStudy(figure3, figure3.presets.tiny, { ...flags, ...changes });
    expect(open({ ranks: [65], methods: ["sbora-fb"] })).toThrow("65");
    expect(open({ methods: ["lorra"] })).toThrow("lorra");
    const { curves } = open({ ranks: [8, 4], methods: ["lora", "dora", "lora"] })();
    expect(curves.map(({ name }) => name)).toEqual([
      "tiny-lora-r8-s42",
      "tiny-dora-r8-s42",
      "tiny-lora-r4-s42",
      "tiny-dora-r4-s42",
    ]);
    expect(readFileSync(openMemoryStudy(figure3, figure3.presets.tiny, flags).dataFile, "utf8")).toContain(
      "plums",
    );
  });
});
