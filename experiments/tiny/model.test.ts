import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readLlamaConfig } from "../../src/formats/hf-config.ts";
import { openModelTensors } from "../../src/formats/safetensors.ts";
import { freeLlama, loadLlama } from "../../src/model/model.ts";
import { targetedLinears } from "../../src/model/shapes.ts";
import { closeDevice, openDevice } from "../../src/native/device.ts";
import { loadTokenizer } from "../../src/text/tokenizer.ts";
import { presets } from "../recipes/table3.ts";
import { tinyConfig, writeUntrainedModel } from "./base-model.ts";
import { TINY_MODEL, WORLD_SEED } from "./data.ts";
import { quizAccuracy } from "./quizzes.ts";
import { tinyTasks } from "./tasks.ts";
import { makeWorld } from "./world.ts";

test("the embedded model is small, and wide enough for rank 64", () => {
  const bytes = readdirSync(TINY_MODEL).reduce((sum, name) => sum + statSync(join(TINY_MODEL, name)).size, 0);
  expect(bytes).toBeLessThan(4_000_000);
  const tensors = [...openModelTensors(TINY_MODEL).values()];
  const parameters = tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  expect(parameters).toBeLessThan(2_000_000);
  expect(tensors.every(({ dtype }) => dtype === "BF16")).toBe(true);
  const widths = targetedLinears(readLlamaConfig(TINY_MODEL), presets.tiny.training.targets);
  expect(Math.min(...widths.flatMap((shape) => [shape.in, shape.out]))).toBeGreaterThanOrEqual(64);
});

test("its tokenizer and shape are what the generator makes", () => {
  const dir = mkdtempSync(join(tmpdir(), "sbora-tiny-"));
  writeUntrainedModel(dir, makeWorld(WORLD_SEED), WORLD_SEED);
  for (const name of ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]) {
    expect(readFileSync(join(TINY_MODEL, name), "utf8")).toBe(readFileSync(join(dir, name), "utf8"));
  }
  const { nameOrPath: _, torchDtype: __, ...shape } = readLlamaConfig(TINY_MODEL);
  const { nameOrPath: ___, torchDtype: ____, ...expected } = tinyConfig;
  expect(shape).toEqual(expected);
  rmSync(dir, { recursive: true });
});

test("it knows the facts that test files ask for, in words; their labels are fine-tuning's to teach", async () => {
  const device = await openDevice();
  const model = loadLlama(device, TINY_MODEL, { compute: "f32", positions: 512 });
  const tokenizer = loadTokenizer(TINY_MODEL);
  const world = makeWorld(WORLD_SEED);
  const task = tinyTasks.find(({ name }) => name === "openbookqa")!;
  expect(await quizAccuracy(model, tokenizer, world, task, "plain", "test")).toBeGreaterThan(90);
  freeLlama(model);
  closeDevice(device);
});
