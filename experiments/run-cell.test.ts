import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import { closeDevice, type Device, openDevice } from "../src/native/device.ts";
import { type CellFile, readCell, readLosses, readPredictions } from "./cell-file.ts";
import { inMillions, trainedParameters } from "./parameters.ts";
import { presets } from "./recipes/table3.ts";
import { runCell } from "./run-cell.ts";
import { sharedQuestions } from "./shared-questions.ts";
import { type OpenedStudy, openStudy, type StudyFlags } from "./study.ts";
import { csvReport, textReport } from "./table-report.ts";
import { arithmetic, commonsense } from "./task-tables.ts";
import { watching } from "./testing.ts";
import { tinyConfig, writeUntrainedModel } from "./tiny/base-model.ts";
import { makeWorld } from "./tiny/world.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-cells-"));
const model = join(dir, "model");
let device: Device;

beforeAll(async () => {
  device = await openDevice();
  writeUntrainedModel(model, makeWorld(1), 1);
}, 300_000);

afterAll(() => {
  closeDevice(device);
  rmSync(dir, { recursive: true, force: true });
});

function study(out: string, changes: Partial<StudyFlags> = {}): OpenedStudy {
  return openStudy(device, commonsense, presets.tiny, {
    model,
    data: null,
    methods: ["sbora-fa"],
    ranks: [4],
    seeds: [7],
    steps: 3,
    learningRate: null,
    limit: 3,
    tasks: ["boolq", "openbookqa"],
    beams: 2,
    compute: null,
    out: join(dir, out),
    ...changes,
  });
}

const withoutTiming = ({ timing: _, ...cell }: CellFile): Omit<CellFile, "timing"> => cell;

async function runAll(opened: OpenedStudy): Promise<CellFile[]> {
  const cells: CellFile[] = [];
  for (const plan of opened.cells) cells.push((await runCell(opened, plan, watching()))!);
  return cells;
}

describe("cells", () => {
  test("the same seed gives the same files but for times; finished cells are skipped", async () => {
    const first = study("first");
    const cells = await runAll(first);
    expect(first.cells.map(({ place }) => place.name)).toEqual(["model-base-r0-s7", "model-sbora-fa-r4-s7"]);
    const again = study("again");
    await runAll(again);
    for (const [i, { place }] of first.cells.entries()) {
      const other = again.cells[i]!;
      const [a, b] = [place, other.place].map((p) => JSON.parse(readFileSync(p.json, "utf8")) as CellFile);
      expect(withoutTiming(a!)).toEqual(withoutTiming(b!));
      expect(readFileSync(place.predictions, "utf8")).toBe(readFileSync(other.place.predictions, "utf8"));
      const watch = watching();
      expect(await runCell(first, { place, recipe: other.recipe }, watch)).toEqual(cells[i]!);
      expect([watch.steps, watch.tasks.size]).toEqual([[], 0]);
    }
    const [base, tuned] = cells as [CellFile, CellFile];
    expect(base.recipe.training).toBeNull();
    expect(tuned.recipe.training).toMatchObject({ method: "sbora-fa", rank: 4, alpha: 8, seed: 7, steps: 3 });
    const counted = trainedParameters(tinyConfig, "sbora-fa", 4, presets.tiny.training.targets);
    expect(tuned.manifest.trained!.parameters).toBe(counted);
    expect(base.tasks.heldOut!.merged).toBeGreaterThan(5);
    expect(tuned.tasks.heldOut!.merged).toBeLessThan(base.tasks.heldOut!.merged);
    expect(tuned.tasks.heldOut!.merged).toBeCloseTo(tuned.tasks.heldOut!.unmerged, 3);
    expect(readPredictions(first.cells[1]!.place)).toHaveLength(6);

    const report = textReport({
      table: commonsense,
      preset: presets.tiny,
      modelName: "model",
      tasks: ["boolq", "openbookqa"],
      missing: [],
      outcomes: first.cells.map(({ place }, i) => ({ cell: cells[i]!, predictions: readPredictions(place) })),
    });
    expect(report).toMatch(new RegExp(`SBoRA-FA +4 +${inMillions(counted)}`));
    expect(report).toContain("64.9ᵃ");
    const flat = report.replace(/\s+/g, " ");
    expect(flat).toContain("steps 3 (preset: 500)");
    expect(flat).toContain("test records a task 3 (preset: 100); beams 2 (preset: 4); tasks 2 (preset: 8)");
    expect(flat).not.toContain("compute f32 (preset");
  }, 120_000);

  test("Table 4's cells are made by the same code: numbers and letters are read, both AQuA rules stand side by side", async () => {
    const opened = openStudy(device, arithmetic, arithmetic.presets.tiny, {
      ...studyFlags(),
      data: null,
      methods: ["sbora-fa"],
      ranks: [4],
      steps: 2,
      limit: 2,
      beams: 2,
      tasks: ["AddSub", "AQuA"],
      out: join(dir, "sums"),
    });
    const cells = await runAll(opened);
    expect(cells.map(({ recipe }) => [recipe.table, recipe.evaluation.maxNewTokens])).toEqual([
      ["table4", 16],
      ["table4", 16],
    ]);
    const [tuned] = opened.cells.slice(1);
    expect(readPredictions(tuned!.place).map(({ task, label }) => [task, /^[A-E]$/.test(label)])).toEqual([
      ["AddSub", false],
      ["AddSub", false],
      ["AQuA", true],
      ["AQuA", true],
    ]);
    const report = textReport({
      table: arithmetic,
      preset: arithmetic.presets.tiny,
      modelName: "model",
      tasks: ["AddSub", "AQuA"],
      missing: [],
      outcomes: opened.cells.map(({ place }, i) => ({
        cell: cells[i]!,
        predictions: readPredictions(place),
      })),
      remarks: sharedQuestions(opened),
    });
    const csv = csvReport({
      ...{ table: arithmetic, preset: arithmetic.presets.tiny, modelName: "model", tasks: [], missing: [] },
      outcomes: opened.cells.map(({ place }, i) => ({
        cell: cells[i]!,
        predictions: readPredictions(place),
      })),
    }).split("\n");
    expect(csv[0]).toBe("method,rank,seed,trained,task,ruler,records,correct,accuracy,standard_error");
    const { AddSub } = cells[1]!.tasks.sets;
    const { correct, accuracy } = AddSub!.scores.generation!;
    expect(csv[3]).toStartWith(`sbora-fa,4,42,`);
    expect(csv[3]).toContain(`,AddSub,generation,2,${correct},${accuracy},`);
    expect(report).toMatch(/method +r +trained +AddSub +AQuA +Avg +± SE +Avg 3/);
    expect(report).toContain("AQuA by two rules");
    expect(report.replace(/\s+/g, " ")).toContain("AddSub 0 of 2, AQuA 0 of 2");
    // The paper's own row, without the contaminated sets among these two: AQuA alone.
    expect(report).toMatch(/LLaMA-7B +SBoRA-FA +32ᶜ +28\.0M +79\.7 +20\.1 +58\.9 +20\.1/);
  }, 120_000);

  test("stopped in training and in the evaluation, it goes on and gives the uninterrupted file", async () => {
    const opened = study("stopped");
    const plan = opened.cells[1]!;
    const training = watching(() => training.steps.length >= 1);
    expect(await runCell(opened, plan, training)).toBeNull();
    expect(training.steps).toEqual([1]);
    const evaluating = watching(() => evaluating.tasks.size > 0);
    expect(await runCell(opened, plan, evaluating)).toBeNull();
    expect([evaluating.steps, [...evaluating.tasks]]).toEqual([[2, 3], ["boolq"]]);
    expect(existsSync(plan.place.json)).toBe(false);
    const last = watching();
    const cell = (await runCell(opened, plan, last))!;
    expect([last.steps, [...last.tasks]]).toEqual([[], ["openbookqa"]]);
    // The times are those of the training, though this process did not train.
    expect(cell.timing.stepSeconds).toBeGreaterThan(0);
    expect(cell.timing.tokensPerSecond).toBeGreaterThan(0);
    if (process.platform === "linux") expect(cell.timing.peak).toBeWithin(2 ** 24, 2 ** 36);
    const whole = study("first").cells[1]!;
    expect(withoutTiming(cell)).toEqual(withoutTiming(readCell(whole.place, whole.recipe)!));
    expect(readPredictions(plan.place)).toEqual(readPredictions(whole.place));
  }, 120_000);

  test("a cell deleted and made by another recipe keeps nothing of the old one", async () => {
    const old = study("deleted").cells[1]!.place;
    for (const steps of [3, 2]) {
      const opened = study("deleted", { steps });
      expect(opened.cells[1]!.place).toEqual(old);
      const cell = (await runCell(opened, opened.cells[1]!, watching()))!;
      expect(cell.manifest.trained!.steps).toBe(steps);
      expect(readLosses(old)).toHaveLength(steps);
      rmSync(old.json);
    }
  }, 120_000);

  test("what cannot work is refused before anything is trained", () => {
    expect(() => study("refused", { ranks: [129] })).toThrow("rank 129 is too large");
    expect(() => study("refused", { tasks: ["boolk"] })).toThrow("boolk");
    expect(() => study("refused", { tasks: ["boolq", "gsm8k"] })).toThrow(
      "gsm8k, which Table 3 does not have",
    );
    expect(() => study(join("model", "config.json", "out"))).toThrow(InputError);
    expect(() => study("refused", { data: join(dir, "nowhere") })).toThrow("nowhere");
    expect(() => study("refused", { model: join(dir, "nowhere") })).toThrow("config.json");
    expect(() => openStudy(device, commonsense, presets.small, { ...studyFlags(), model: null })).toThrow(
      "--model is missing",
    );
    expect(() => openStudy(device, commonsense, presets.small, { ...studyFlags(), data: null })).toThrow(
      "--data is missing",
    );
  });
});

function studyFlags(): StudyFlags {
  return {
    model,
    data: dir,
    methods: null,
    ranks: null,
    seeds: null,
    steps: null,
    learningRate: null,
    limit: null,
    tasks: null,
    beams: null,
    compute: null,
    out: join(dir, "refused"),
  };
}
