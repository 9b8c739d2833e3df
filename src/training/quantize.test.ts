/** QSBoRA and its relatives: training on a base whose linears are 4-bit. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { methodNames } from "../adapters/adapter.ts";
import { readAdapter } from "../adapters/storage.ts";
import { nf4Tensors } from "../formats/nf4-write.ts";
import {
  readSafetensorsHeader,
  readTensorBytes,
  type TensorToWrite,
  writeSafetensors,
} from "../formats/safetensors.ts";
import { quantizationMismatch } from "../model/load-adapter.ts";
import { freeLlama, loadLlama } from "../model/model.ts";
import { isQuantized } from "../model/nf4.ts";
import { linearNames } from "../model/shapes.ts";
import { closeDevice, type Device, openDevice } from "../native/device.ts";
import { quantizeNf4 } from "../native/nf4.ts";
import { type FineTuneOptions, fineTune } from "./fine-tune.ts";
import { prepareRun } from "./prepare.ts";
import { checkRecipe, paperRecipe, recipeHash, type TrainRecipe } from "./recipe.ts";
import { tinyRecords, writeTinyModel } from "./testing.ts";

setDefaultTimeout(60_000);

const root = mkdtempSync(join(tmpdir(), "sbora-quantize-"));
const modelDir = join(root, "model");
const dataFile = join(root, "data.json");
const records = tinyRecords(12);
const recipe: TrainRecipe = {
  ...paperRecipe,
  ...{ rank: 4, alpha: 8, learningRate: 0.01, warmup: 0, batch: 2, microBatch: 1, steps: 4 },
  ...{ evalEvery: 2, valSize: 2, cutoff: 400, quantize: "nf4-double" },
};
let device: Device;

beforeAll(async () => {
  writeTinyModel(modelDir);
  writeFileSync(dataFile, JSON.stringify(records));
  device = await openDevice();
});
afterAll(() => {
  closeDevice(device);
  rmSync(root, { recursive: true });
});

const options = (out: string, over: Partial<TrainRecipe> = {}): FineTuneOptions => ({
  ...{ device, modelDir, dataFile, records, resume: false, saveAs: "native" },
  out: join(root, out),
  recipe: { ...recipe, ...over },
});

test("every method trains on codes, and the base stays what it was", async () => {
  for (const method of methodNames.filter((name) => name !== "full")) {
    const tuned = await fineTune(options(method, { method }));
    const { layers } = tuned.model;
    expect(layers.every(({ linears }) => linearNames.every((n) => linears[n].weight.dtype === "nf4"))).toBe(
      true,
    );
    const losses = readFileSync(join(root, method, "metrics.jsonl"), "utf8")
      .trim()
      .split("\n");
    const [first, last] = [losses[0]!, losses.at(-1)!].map(
      (line) => (JSON.parse(line) as { loss: number }).loss,
    );
    expect([method, last! < first!]).toEqual([method, true]);
    tuned.close();
  }
});

test("the adapter says what it was trained on", async () => {
  (await fineTune(options("plain", { quantize: undefined as never }))).close();
  (await fineTune(options("quantized"))).close();
  const [plain, quantized] = [readAdapter(join(root, "plain")), readAdapter(join(root, "quantized"))];
  expect(quantizationMismatch(plain, undefined)).toBeNull();
  expect(quantizationMismatch(quantized, "nf4-double")).toBeNull();
  expect(quantizationMismatch(plain, "nf4")).toMatch(
    /was trained on the base as it is, which is now quantized to nf4/,
  );
  expect(quantizationMismatch(quantized, undefined)).toMatch(/give --quantize nf4 --double-quant/);
});

test("linears that a 4-bit folder left in 16 or 32 bits are trained on as they are", async () => {
  const folder = join(root, "skipped");
  writeTinyModel(folder);
  const file = join(folder, "model.safetensors");
  const stored = [...readSafetensorsHeader(file).tensors.values()].flatMap((entry): TensorToWrite[] => {
    const { name, dtype, shape } = entry;
    const bytes = readTensorBytes(entry);
    if (!isQuantized(name) || name.includes("down_proj")) return [{ name, dtype, shape, bytes }];
    const [out, width] = shape as [number, number];
    const data = new Float32Array(bytes.buffer);
    const { codes, absmax } = quantizeNf4(device, { name, data, dtype: "f32", out, in: width });
    return nf4Tensors({ name, out, in: width, dtype: "F32", codes, scales: absmax });
  });
  writeSafetensors(file, stored);
  const { quantize: _, ...plain } = recipe;
  const run = prepareRun({ modelDir: folder, dataFile, records, recipe: plain });
  expect(run.fourBit).toBe(true);
  const model = loadLlama(device, folder, run.load);
  const { q_proj, down_proj } = model.layers[0]!.linears;
  expect([q_proj.weight.dtype, down_proj.weight.dtype]).toEqual(["nf4", "f32"]);
  freeLlama(model);
});

test("the plan counts 4.5 bits a weight; the recipe's hash tells the runs apart, and is old where nothing is quantized", () => {
  const { quantize: _, ...plain } = recipe;
  const dense = prepareRun({ modelDir, dataFile, records, recipe: plain }).plan.weights;
  const codes = prepareRun({ modelDir, dataFile, records, recipe }).plan.weights;
  expect(codes).toBeLessThan(0.7 * dense);
  expect(recipeHash(recipe)).not.toBe(recipeHash(plain));
  expect(Object.keys(paperRecipe)).not.toContain("quantize");
});

test("what cannot be trained in 4 bits is refused", () => {
  expect(() => checkRecipe({ ...recipe, method: "full" })).toThrow(/method full trains every weight/);
  expect(() => checkRecipe({ ...recipe, quantize: "int8" as never })).toThrow(
    /quantize is int8, expected one of nf4/,
  );
  const folder = join(import.meta.dir, "../formats/testdata/nf4-model");
  const { quantize: _, ...plain } = recipe;
  expect(() =>
    prepareRun({ modelDir: folder, dataFile, records, recipe: { ...plain, method: "full", dropout: 0 } }),
  ).toThrow(/its weights are 4-bit, and method full trains every weight/);
});
