import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAdapter } from "../src/adapters/storage.ts";
import { InputError } from "../src/errors.ts";
import { closeDevice, type Device, openDevice } from "../src/native/device.ts";
import { openPlanningDevice } from "../src/native/planning-device.ts";
import { cellPlace, readCell, readPredictions } from "./cell-file.ts";
import { runMmluCell } from "./mmlu-cell.ts";
import type { MmluCell } from "./mmlu-cell-file.ts";
import { writeMmluFiles } from "./mmlu-files.ts";
import { mmluText } from "./mmlu-report.ts";
import { type MmluFlags, type MmluStudy, openMmluStudy, reopenMmluCell } from "./mmlu-study.ts";
import { mmluCsv } from "./mmlu-subjects.ts";
import { type MmluRow, oneLetter } from "./mmlu-summary.ts";
import { inMillions, trainedParameters } from "./parameters.ts";
import { mmluPresets } from "./recipes/table5.ts";
import { watching } from "./testing.ts";
import { tinyConfig, writeUntrainedModel } from "./tiny/base-model.ts";
import { writeTinyMmlu } from "./tiny/mmlu.ts";
import { makeWorld } from "./tiny/world.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-table5-"));
const model = join(dir, "model");
const data = join(dir, "data");
let device: Device;

beforeAll(async () => {
  device = await openDevice();
  writeUntrainedModel(model, makeWorld(1), 1);
  writeTinyMmlu(data);
}, 300_000);

afterAll(() => {
  closeDevice(device);
  rmSync(dir, { recursive: true, force: true });
});

const none: MmluFlags = {
  ...{ model: null, data: null, sets: null, methods: null, ranks: null, seeds: null, steps: null },
  ...{ learningRate: null, limit: null, subjects: null, overlong: null, doraNorm: null, compute: null },
  out: dir,
};

function study(out: string, changes: Partial<MmluFlags> = {}): MmluStudy {
  return openMmluStudy(device, mmluPresets.tiny, {
    ...none,
    ...{ model, data, sets: ["alpaca"], methods: ["dora", "sbora-fa"], ranks: [4], seeds: [7] },
    ...{ steps: 3, limit: 2, subjects: ["daily_routines", "people_and_animals"], out: join(dir, out) },
    ...changes,
  });
}

const withoutTiming = ({ timing: _, ...cell }: MmluCell): Omit<MmluCell, "timing"> => cell;

async function runAll(opened: MmluStudy): Promise<MmluCell[]> {
  const cells: MmluCell[] = [];
  for (const plan of opened.cells) cells.push((await runMmluCell(opened, plan, watching()))!);
  return cells;
}

describe("the study", () => {
  test("eight rows and the base for each set, seed by seed; only QDoRA has a norm", () => {
    const opened = openMmluStudy(openPlanningDevice(), mmluPresets.tiny, { ...none, data, seeds: [1, 2] });
    expect(opened.missing).toEqual([]);
    const names = opened.cells.map(({ place }) => place.name);
    expect(names).toHaveLength(2 * (1 + 2 * 8));
    expect(names.slice(0, 9)).toEqual([
      "tiny-alpaca-base-r0-s1",
      ...["lora", "dora", "oa", "lora-fa", "sbora-fa", "sbora-fb"].map((name) => `tiny-alpaca-${name}-r8-s1`),
      "tiny-alpaca-sbora-fa-r16-s1",
      "tiny-alpaca-sbora-fb-r16-s1",
    ]);
    expect(names[17]).toBe("tiny-flan-v2-base-r0-s1");
    for (const { recipe } of opened.cells) {
      const { training, evaluation, base } = recipe;
      if (!training) continue;
      expect([training.alpha, training.quantize, base.quantize]).toEqual([16, "nf4-double", "nf4-double"]);
      expect(training.doraNorm).toBe(training.method === "dora" ? "unscaled" : undefined);
      expect(evaluation).toMatchObject({ shots: 5, limit: 20, adapter: "last", subjects: null });
    }
    const scaled = openMmluStudy(openPlanningDevice(), mmluPresets.tiny, {
      ...none,
      data,
      doraNorm: "scaled",
    });
    expect(scaled.cells.every(({ training }) => training.doraNorm === undefined)).toBe(true);
  });

  test("the paper's preset is the protocol: batches, steps, lengths, clipping, no warm-up, two splits", () => {
    const [alpaca, flan] = mmluPresets.paper.sets;
    const shared = {
      ...{
        dropout: 0,
        learningRate: 2e-4,
        schedule: "constant",
        warmup: 0,
        lossOn: "response",
        compute: "f32",
      },
      ...{ cutoff: 512, lengths: { source: 384, target: 128 }, valSize: 1024, targets: ["all-linear"] },
    };
    expect(alpaca!.training).toMatchObject({ ...shared, batch: 16, steps: 10_000, prompt: "alpaca" });
    expect(flan!.training).toMatchObject({ ...shared, batch: 8, steps: 20_000, prompt: "plain" });
    expect(alpaca!.training.optimizer.clip).toBe(0.3);
    expect(flan!.sample).toBe(50_000);
    expect(mmluPresets.paper.evaluation).toMatchObject({
      splits: ["val", "test"],
      maxTokens: 2048,
      limit: null,
    });
  });

  test("a set that is not there is said to be missing", () => {
    const partly = join(dir, "partly");
    cpSync(data, partly, { recursive: true });
    rmSync(join(partly, "tiny_flan.jsonl"));
    rmSync(join(partly, "mmlu/val"), { recursive: true });
    const opened = openMmluStudy(openPlanningDevice(), mmluPresets.tiny, { ...none, data: partly });
    expect(opened.missing).toEqual(["flan-v2", "MMLU val"]);
    expect(opened.cells).toHaveLength(9);
    expect(opened.cells[0]!.recipe.inputs.mmlu.val).toBeNull();
  });

  const shared = join(import.meta.dir, "../../shared/data");
  const smol = "/work/models/smollm2-135m";
  const here = existsSync(join(shared, "mmlu")) && existsSync(smol);
  test.skipIf(!here)("the small preset on the real files: 38 subjects of 20 questions, Alpaca", () => {
    const flags = { ...none, model: smol, data: shared };
    const opened = openMmluStudy(openPlanningDevice(), mmluPresets.small, flags);
    expect(opened.missing).toEqual(["flan-v2", "MMLU val"]);
    const { subjects } = opened.mmlu.get("test")!;
    expect(new Set(subjects.map(({ questions }) => questions.length))).toEqual(new Set([20]));
    expect([subjects.length, opened.cells.length, opened.sets.get("alpaca")!.records.length]).toEqual([
      38, 9, 999,
    ]);
  });
});

describe("cells", () => {
  test("base, QDoRA and QSBoRA-FA: asked beside the weights, merged, written, reported; the same when made again", async () => {
    const opened = study("first");
    const cells = await runAll(opened);
    const [base, dora, sbora] = cells as [MmluCell, MmluCell, MmluCell];
    expect(Object.keys(sbora.tasks.sets)).toEqual([
      "val/daily_routines",
      "val/people_and_animals",
      "test/daily_routines",
      "test/people_and_animals",
    ]);
    const result = sbora.tasks.sets["test/daily_routines"]!;
    expect(result).toMatchObject({ records: 2, shortened: 0, parsed: null });
    expect(Object.keys(result.scores)).toEqual(["labels"]);
    // A model that knows nothing.
    expect(base.tasks.sets["test/daily_routines"]!.labelNats).toBeCloseTo(Math.log(4), 0);
    const { heldOut } = sbora.tasks;
    expect(heldOut).toMatchObject({ records: 60 });
    expect(heldOut!.unmerged).toBeLessThan(base.tasks.heldOut!.unmerged);
    expect(heldOut!.merged).toBeCloseTo(heldOut!.unmerged, 4);
    expect(dora.tasks.heldOut!.merged).toBeCloseTo(dora.tasks.heldOut!.unmerged, 4);
    expect(dora.tasks.heldOut!.unmerged).not.toBe(heldOut!.unmerged);
    const counted = trainedParameters(tinyConfig, "sbora-fa", 4, ["all-linear"]);
    expect(sbora.manifest.trained!.parameters).toBe(counted);
    expect(sbora.manifest.data).toHaveProperty("mmlu/test");
    const { work, predictions } = opened.cells[1]!.place;
    expect(readFileSync(predictions, "utf8").trim().split("\n")).toHaveLength(8);
    expect(readAdapter(join(work, "train")).metadata).toMatchObject({ method: "dora", norm: "unscaled" });

    const watch = watching();
    expect(await runMmluCell(opened, opened.cells[2]!, watch)).toEqual(sbora);
    expect([watch.steps, watch.tasks.size]).toEqual([[], 0]);
    const flags = { model, data, out: join(dir, "again"), compute: null };
    for (const [i, { place }] of opened.cells.entries()) {
      const to = cellPlace(flags.out, place.name);
      const again = reopenMmluCell(device, cells[i]!, to, flags);
      const made = (await runMmluCell(again, again.cells[0]!, watching()))!;
      expect(withoutTiming(made)).toEqual(withoutTiming(cells[i]!));
      expect(readFileSync(to.predictions, "utf8")).toBe(readFileSync(place.predictions, "utf8"));
    }

    const { preset, modelName, missing, remarks } = opened;
    const outcomes = opened.cells.map(({ place }, i) => ({
      cell: cells[i]!,
      predictions: readPredictions(place),
    }));
    const report = { preset, modelName, missing, remarks, outcomes };
    const text = mmluText(report);
    const [whole, half] = [inMillions(counted), inMillions(counted / 2)];
    expect(text).toMatch(
      new RegExp(`QSBoRA-FA +4 +${whole.replace(".", "\\.")} +${half.replace(".", "\\.")}`),
    );
    expect(text).toMatch(/LLaMA-7B +QLoRA +64 +80\.0Mᶠ +159\.9M +37\.9 +44\.4/);
    const flat = text.replace(/\s+/g, " ");
    expect(flat).toContain("validation 2 subjects, 4 questions; test 2 subjects, 4 questions.");
    expect(flat).toContain("QDoRA divides by ‖W + B·A‖, without s");
    expect(flat).toContain(
      "Alpaca: steps 3 (preset: 100); questions a subject 2 (preset: 20); subjects daily_routines",
    );
    const csv = mmluCsv(report).trim().split("\n");
    expect(csv[0]).toStartWith("set,method,rank,seed,trained,split,subject,ruler,records,correct");
    expect(csv).toHaveLength(1 + 3 * 4);
    expect(csv[1]).toStartWith("alpaca,base,0,,0,val,daily_routines,labels,2,");
    writeMmluFiles(join(dir, "first"), report);
    const json = JSON.parse(readFileSync(join(dir, "first/table.json"), "utf8"));
    const row = json.sets[0].rows[2];
    expect(row).toMatchObject({
      title: "QSBoRA-FA",
      trainedParameters: counted,
      halvedAsPrinted: counted / 2,
    });
    const { macro, pooled, subjects } = row.splits.test.accuracy.labels;
    const accuracy = (name: string): number => sbora.tasks.sets[`test/${name}`]!.scores.labels!.accuracy;
    expect(macro.value).toBe((accuracy("daily_routines") + accuracy("people_and_animals")) / 2);
    expect(pooled.value).toBeCloseTo(macro.value, 10);
    expect(subjects.daily_routines.value).toBe(accuracy("daily_routines"));
    expect(readFileSync(join(dir, "first/table.md"), "utf8")).toContain("Alpaca, test: accuracy by subject");
    expect(readFileSync(join(dir, "first/table.svg"), "utf8")).toStartWith("<svg");
  }, 180_000);

  test("stopped in training and between subjects, it goes on and gives the uninterrupted file", async () => {
    const opened = study("stopped", { methods: ["sbora-fa"] });
    const plan = opened.cells[1]!;
    const training = watching(() => training.steps.length >= 1);
    expect(await runMmluCell(opened, plan, training)).toBeNull();
    const asking = watching(() => asking.tasks.size > 0);
    expect(await runMmluCell(opened, plan, asking)).toBeNull();
    expect(asking.steps).toEqual([2, 3]);
    expect(existsSync(join(plan.place.work, "evaluated", "val-daily_routines.json"))).toBe(true);
    expect(existsSync(plan.place.json)).toBe(false);
    const cell = (await runMmluCell(opened, plan, watching()))!;
    const whole = study("first").cells[2]!;
    expect(withoutTiming(cell)).toEqual(withoutTiming(readCell<MmluCell>(whole.place, whole.recipe)!));
    expect(readPredictions(plan.place)).toEqual(readPredictions(whole.place));
  }, 120_000);
});

describe("what cannot work is refused before anything is trained", () => {
  const broken = (name: string, change: (root: string) => void): string => {
    const root = join(dir, name);
    cpSync(data, root, { recursive: true });
    change(root);
    return root;
  };

  test("a malformed CSV file: file, line and field count", () => {
    const root = broken("csv", (at) =>
      writeFileSync(join(at, "mmlu/test/daily_routines_test.csv"), "q,a,b,c,d,A\nq,a,b,c,A\n"),
    );
    expect(() => study("refused", { data: root })).toThrow(
      /daily_routines_test\.csv: line 2 has 5 fields, expected 6/,
    );
  });

  test("a subject without dev rows", () => {
    const root = broken("dev", (at) => rmSync(join(at, "mmlu/dev/daily_routines_dev.csv")));
    expect(() => study("refused", { data: root })).toThrow(
      /daily_routines has questions, but .*daily_routines_dev\.csv is not there, expected 5/,
    );
    expect(study("refused", { data: root, subjects: ["people_and_animals"] }).cells).toHaveLength(3);
  });

  test("a quantized model of foreign block size", () => {
    const folder = join(dir, "blocks");
    cpSync(join(import.meta.dir, "../src/formats/testdata/nf4-model"), folder, { recursive: true });
    const path = join(folder, "model.safetensors");
    const bytes = readFileSync(path);
    const field = '"blocksize": 64';
    const at = bytes.indexOf(field);
    expect(at).toBeGreaterThan(0);
    bytes.write('"blocksize": 32', at);
    writeFileSync(path, bytes);
    expect(() => study("refused", { model: folder })).toThrow(
      /quant_state\.blocksize is 32, expected 64.*blocks of 64/,
    );
  });

  test("results of another recipe in the folder", async () => {
    const opened = study("mixed", { methods: ["sbora-fa"] });
    const [plan] = opened.cells;
    await runMmluCell(opened, plan!, watching());
    const other = study("mixed", { methods: ["sbora-fa"], limit: 3 });
    await expect(runMmluCell(other, other.cells[0]!, watching())).rejects.toThrow(
      /made by another recipe .*evaluation\.limit \(2, now 3\).*never mixed/,
    );
  }, 60_000);

  test("a cell made of other data is not made again", () => {
    const root = broken("other", (at) =>
      writeFileSync(
        join(at, "tiny_alpaca.json"),
        readFileSync(join(data, "tiny_alpaca.json"), "utf8").replace("yes", "no"),
      ),
    );
    const { place, recipe } = study("first").cells[2]!;
    const cell = readCell<MmluCell>(place, recipe)!;
    const flags = { model, data: root, out: join(dir, "again"), compute: null };
    expect(() => reopenMmluCell(device, cell, cellPlace(flags.out, "x"), flags)).toThrow(/training \(/);
  });

  test.each([
    [{ ranks: [129] }, /rank 129 is too large/],
    [{ methods: ["full"] }, /full, which trains every weight/],
    [{ sets: ["alpacas"] }, /--train-on names alpacas; expected names out of alpaca, flan-v2/],
    [{ subjects: ["virology"] }, /there is no subject virology; expected daily_routines/],
    [{ data: join(dir, "nowhere") }, /nowhere: there is no such folder/],
    [{ data: model }, /there is nothing to train on/],
  ] as [Partial<MmluFlags>, RegExp][])("%j", (changes, message) => {
    expect(() => study("refused", changes)).toThrow(message);
    expect(() => study("refused", changes)).toThrow(InputError);
  });

  test("a preset without its model or its data", () => {
    const open = (changes: Partial<MmluFlags>) => () =>
      openMmluStudy(device, mmluPresets.small, { ...none, ...changes });
    expect(open({ data })).toThrow(/--model is missing/);
    expect(open({ model, ranks: [4] })).toThrow(
      /--data is missing.*alpaca_en_demo\.json.*five_shot_mmlu_test\.json/,
    );
  });
});

test("one letter always: the best of the four over all subjects, by subject and by question", () => {
  const labelled = (task: string, labels: string) =>
    [...labels].map((label, record) => ({ task, record, label }));
  const predictions = [
    ...labelled("test/a", "AAB"),
    ...labelled("test/b", "BBBBBBCA"),
    ...labelled("val/a", "D"),
  ];
  const rows = [{ method: "base", rank: 0, outcomes: [{ predictions }] }] as unknown as MmluRow[];
  const best = oneLetter(rows, ["test/a", "test/b"]);
  expect(best.letter).toBe("B");
  expect(best.macro).toBeCloseTo((100 / 3 + 75) / 2, 10);
  expect(best.pooled).toBeCloseTo(700 / 11, 10);
});
