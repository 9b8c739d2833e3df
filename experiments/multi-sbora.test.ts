import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAdapter } from "../src/adapters/storage.ts";
import { openModelTensors } from "../src/formats/safetensors.ts";
import { mergeModel } from "../src/merging/merge.ts";
import { closeDevice, type Device, openDevice } from "../src/native/device.ts";
import { readPredictions } from "./cell-file.ts";
import { reportOf } from "./multi-sbora.ts";
import { type MultiCell, runMultiCell } from "./multi-sbora-cell.ts";
import type { MultiOutcome } from "./multi-sbora-claims.ts";
import { taskData } from "./multi-sbora-data.ts";
import { multiPresets } from "./multi-sbora-recipe.ts";
import { csvOf, markdownOf, pictureOf } from "./multi-sbora-report.ts";
import { compareMerged, type SingleMerged } from "./multi-sbora-structure.ts";
import { type MultiFlags, type MultiStudy, openMultiStudy } from "./multi-sbora-study.ts";
import { watching } from "./testing.ts";
import { TINY_MODEL, tinyFiles } from "./tiny/data.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-multi-"));
let device: Device;

beforeAll(async () => {
  device = await openDevice({ threads: 1 });
}, 300_000);

afterAll(() => {
  closeDevice(device);
  rmSync(dir, { recursive: true, force: true });
});

const RANK = 4;
const TASKS = ["piqa", "hellaswag"];
/** Four layers with q, k, v, up and down. */
const MATRICES = 20;

function study(out: string, changes: Partial<MultiFlags> = {}): MultiStudy {
  return openMultiStudy(device, multiPresets.tiny, {
    model: null,
    data: null,
    methods: ["sbora-fa", "lora"],
    tasks: TASKS,
    rank: RANK,
    seeds: [7],
    steps: 2,
    learningRate: null,
    limit: 2,
    independent: true,
    out: join(dir, out),
    ...changes,
  });
}

const withoutTiming = ({ timing: _, ...cell }: MultiCell): Omit<MultiCell, "timing"> => cell;

async function runAll(opened: MultiStudy): Promise<Map<string, MultiOutcome>> {
  const outcomes = new Map<string, MultiOutcome>();
  for (const plan of opened.cells) {
    const cell = (await runMultiCell(opened, plan, watching()))!;
    outcomes.set(plan.place.name, { cell, predictions: readPredictions(plan.place) });
  }
  return outcomes;
}

describe("Multi-SBoRA", () => {
  test("cells: the base, every adapter alone, all merged; disjoint columns stay whose they are", async () => {
    const opened = study("first");
    const outcomes = await runAll(opened);
    expect([...outcomes.keys()]).toEqual([
      "tiny-base-r0-s7",
      "tiny-sbora-fa-r4-s7-piqa",
      "tiny-sbora-fa-r4-s7-hellaswag",
      "tiny-sbora-fa-r4-s7-merged",
      // The first adapter of both draws is the same.
      "tiny-sbora-fa-independent-r4-s7-hellaswag",
      "tiny-sbora-fa-independent-r4-s7-merged",
      "tiny-lora-r4-s7-piqa",
      "tiny-lora-r4-s7-hellaswag",
      "tiny-lora-r4-s7-merged",
    ]);
    const structureOf = (name: string) => outcomes.get(`tiny-${name}-r4-s7-merged`)!.cell.structure;
    const columns = 4 * (4 * 128 + 256);
    const all = { lines: "columns", matrices: MATRICES } as const;
    const touched = TASKS.length * RANK * MATRICES;
    expect(structureOf("sbora-fa")).toEqual({ ...all, touched, shared: 0, untouched: columns - touched });
    const { touched: single, shared, untouched } = structureOf("sbora-fa-independent")!;
    expect(single + 2 * shared).toBe(touched);
    expect(single + shared + untouched).toBe(columns);
    expect(shared).toBeGreaterThan(0);
    expect(structureOf("lora")).toBeNull();
    const [first, second] = opened.plans[0]!.merged.adapters.map((plan) => readAdapter(plan.dir));
    for (const [module, { index }] of first!.modules) {
      const others = new Set(second!.modules.get(module)!.index!.values);
      expect([...index!.values].filter((i) => others.has(i))).toEqual([]);
    }
    // Merged models are measured, not kept.
    expect(opened.cells.some(({ place }) => existsSync(join(place.work, "model")))).toBe(false);

    const watch = watching();
    for (const plan of opened.cells) {
      expect(await runMultiCell(opened, plan, watch)).toEqual(outcomes.get(plan.place.name)!.cell);
    }
    expect([watch.steps, watch.tasks.size]).toEqual([[], 0]);

    const report = reportOf(opened, outcomes);
    const text = markdownOf(report);
    expect(text).toContain("![Multi-SBoRA");
    expect(text).toContain(
      `every touched column is bit for bit its single-merged model's | ${touched} of ${touched} columns | holds`,
    );
    expect(text).toContain("steps 2 (preset: 120)");
    const lines = csvOf(report).trim().split("\n");
    expect(lines).toHaveLength(1 + 3 * TASKS.length * 3);
    expect(lines[1]).toStartWith("sbora-fa,disjoint,4,7,piqa,base,2,");
    expect(pictureOf(report)).toContain("LoRA, added");
  }, 300_000);

  test("stopped anywhere, it goes on and gives the uninterrupted cells; cleared runs are trained again", async () => {
    const whole = study("first");
    const opened = study("stopped");
    const stored = (of: MultiStudy, i: number): Omit<MultiCell, "timing"> =>
      withoutTiming(JSON.parse(readFileSync(of.cells[i]!.place.json, "utf8")) as MultiCell);
    const [, piqa, hellaswag, merged] = opened.cells;
    const training = watching(() => training.steps.length >= 1);
    expect(await runMultiCell(opened, piqa!, training)).toBeNull();
    expect(training.steps).toEqual([1]);
    expect(existsSync(piqa!.place.json)).toBe(false);
    const resumed = watching();
    await runMultiCell(opened, piqa!, resumed);
    expect(resumed.steps).toEqual([2]);
    await runMultiCell(opened, hellaswag!, watching());
    rmSync(piqa!.place.work, { recursive: true });
    const evaluating = watching(() => evaluating.tasks.size > 0);
    expect(await runMultiCell(opened, merged!, evaluating)).toBeNull();
    expect([evaluating.steps, [...evaluating.tasks]]).toEqual([[1, 2], ["piqa"]]);
    const last = watching();
    await runMultiCell(opened, merged!, last);
    expect([last.steps, [...last.tasks]]).toEqual([[], ["hellaswag"]]);
    for (const i of [1, 2, 3]) expect(stored(opened, i)).toEqual(stored(whole, i));
  }, 300_000);

  test("a single weight that is not its owner's is found", async () => {
    const { plans } = study("first", { independent: false, methods: ["sbora-fa"] });
    const dirs = plans[0]!.merged.adapters.map((plan) => plan.dir);
    const merge = async (adapters: readonly string[], name: string): Promise<string> => {
      const out = join(dir, name);
      const sources = adapters.map((source) => ({ dir: source, weight: 1 }));
      const options = { keepOriginals: false, allowOverlap: false, verify: false };
      await mergeModel({ device, modelDir: TINY_MODEL, adapters: sources, out, ...options });
      return out;
    };
    const merged = await merge(dirs, "merged");
    const alone: SingleMerged[] = [];
    for (const [i, source] of dirs.entries())
      alone.push({ dir: await merge([source], `alone-${i}`), folder: readAdapter(source) });
    expect(compareMerged(TINY_MODEL, merged, alone).shared).toBe(0);
    const file = join(merged, "model.safetensors");
    const good = join(dir, "good.safetensors");
    copyFileSync(file, good);
    const name = "layers.1.self_attn.v_proj";
    const { shape } = openModelTensors(merged).get(`model.${name}.weight`)!;
    const column = alone[1]!.folder.modules.get(name)!.index!.values[0]!;
    const free = Array.from({ length: shape[1]! }, (_, i) => i).find((i) =>
      alone.every(({ folder }) => !folder.modules.get(name)!.index!.values.includes(i)),
    )!;
    for (const [at, whose] of [
      [column, "the model's with adapter 2 alone"],
      [free, "the base's"],
    ] as const) {
      copyFileSync(good, file);
      flipBit(file, `model.${name}.weight`, 3 * shape[1]! + at);
      expect(() => compareMerged(TINY_MODEL, merged, alone)).toThrow(
        `tensor model.${name}.weight: column ${at} of the merged model is not ${whose}`,
      );
    }
  }, 120_000);

  test("what cannot work is refused before anything is trained", () => {
    expect(() => study("refused", { methods: ["sbora-fb"], rank: 33 })).toThrow(
      "needs 66 disjoint rows, but layers.0.self_attn.k_proj has 64; expected a rank of at most 32",
    );
    expect(() => study("refused", { methods: ["dora"] })).toThrow("several cannot be merged");
    expect(() => study("refused", { tasks: ["piqa"] })).toThrow("at least two tasks");
    expect(() => study("refused", { tasks: ["piqa", "gsm8k"] })).toThrow("no test set of gsm8k");
    const { small } = multiPresets;
    expect(() => openMultiStudy(device, small, { ...flags(), model: null })).toThrow("--model is missing");
    expect(() => openMultiStudy(device, small, flags())).toThrow("--data is missing");
  }, 60_000);

  test("cells of another recipe are refused, with what differs", async () => {
    const other = study("first", { steps: 3 });
    const cell = runMultiCell(other, other.cells[1]!, watching());
    await expect(cell).rejects.toThrow("adapters.0.training.steps (2, now 3)");
  }, 60_000);
});

/** Flips the lowest bit of a 16-bit element. */
function flipBit(file: string, tensor: string, element: number): void {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  expect(header[tensor]!.dtype).toBe("BF16");
  bytes[8 + length + header[tensor]!.data_offsets[0] + 2 * element]! ^= 1;
  writeFileSync(file, bytes);
}

function flags(): MultiFlags {
  return {
    model: TINY_MODEL,
    data: null,
    methods: null,
    tasks: null,
    rank: 8,
    seeds: null,
    steps: null,
    learningRate: null,
    limit: null,
    independent: true,
    out: join(dir, "refused"),
  };
}

describe("training records of a task", () => {
  const root = join(dir, "mixes");
  const files = tinyFiles();
  const mix = files.get("ft-training_set/tiny_mix.json")!;
  const write = (path: string, records: unknown): void => {
    mkdirSync(join(root, path, ".."), { recursive: true });
    writeFileSync(join(root, path), JSON.stringify(records));
  };

  beforeAll(() => {
    for (const task of ["piqa", "ARC-Easy", "openbookqa"])
      write(`dataset/${task}/test.json`, files.get(`dataset/${task}/test.json`));
    write("ft-training_set/commonsense_18k.json", mix);
  });

  test("a mix gives each task the records in its layout", () => {
    const [piqa, arc] = taskData(root, ["piqa", "ARC-Easy"], 5) as [
      ReturnType<typeof taskData>[0],
      ReturnType<typeof taskData>[0],
    ];
    expect(piqa.training).toHaveLength(mix.filter(({ output }) => output.includes("solution")).length);
    expect(piqa.training.length).toBeGreaterThan(0);
    expect(arc.training.every(({ output }) => output.includes("answer"))).toBe(true);
    expect(arc.part).toContain(`the ${arc.training.length} of ${mix.length} records of commonsense_18k.json`);
    expect(piqa.tests).toHaveLength(5);
  });

  test("two tasks of one layout are refused, until one has its own file", () => {
    expect(() => taskData(root, ["ARC-Easy", "openbookqa"], null)).toThrow(
      "ARC-Easy and openbookqa have one layout",
    );
    write("dataset/openbookqa/train.json", files.get("dataset/openbookqa/test.json"));
    const [, own] = taskData(root, ["ARC-Easy", "openbookqa"], null);
    expect([own!.training.length, own!.part]).toEqual([120, null]);
  });
});
