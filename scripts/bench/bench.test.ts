/** The parts of the instrument, and the instrument itself on the tiny shape. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../../src/errors.ts";
import { openModelTensors, readTensorAsF32 } from "../../src/formats/safetensors.ts";
import { freeLlama, loadLlama } from "../../src/model/model.ts";
import { buildLibrary } from "../../src/native/build.ts";
import { closeDevice, openDevice } from "../../src/native/device.ts";
import { runScript } from "../testing.ts";
import { fixedBatch, longestRecordStep, recordLengths } from "./batch.ts";
import { relativeError } from "./check.ts";
import { interleave } from "./interleave.ts";
import { streamBytes } from "./peaks.ts";
import { formEnvironment, startPeer } from "./peer.ts";
import { randomMatrix, writeRandomModel } from "./random-weights.ts";
import { layerElements, shapeConfig, shapeNames, shapeOf } from "./shapes.ts";
import { floorFlops } from "./step.ts";
import { openStepBed } from "./step-bed.ts";

setDefaultTimeout(120_000);

const folder = mkdtempSync(join(tmpdir(), "sbora-bench-test-"));
beforeAll(async () => {
  for (const name of ["cpu", "reference", "bench"] as const) await buildLibrary(name);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("parts", () => {
  test("everyone has a turn in every round, and warming up is dropped", async () => {
    const seen: string[] = [];
    const turn = (name: string) => ({
      name,
      run: async (round: number) => {
        seen.push(`${name}${round}`);
        return round;
      },
    });
    const results = await interleave([turn("a"), turn("b")], 2, 1);
    expect(seen).toEqual(["a-1", "b-1", "a0", "b0", "a1", "b1"]);
    expect([...results]).toEqual([
      ["a", [0, 1]],
      ["b", [0, 1]],
    ]);
    await expect(interleave([turn("a"), turn("a")], 1)).rejects.toThrow("one name");
  });

  test("relative errors: of the largest value, and NaN is never small", () => {
    expect(relativeError([1, 2.5], [1, 2])).toBe(0.25);
    expect(relativeError([0, 0], [0, 0])).toBe(0);
    expect(relativeError([Number.NaN, 2], [1, 2]) <= 1).toBe(false);
    expect(() => relativeError([1], [1, 2])).toThrow("1 values against 2");
  });

  test("what is read to measure bandwidth is larger than the cache", () => {
    for (const cache of [8 << 20, 32 << 20, 384 << 20])
      expect(streamBytes(cache, false)).toBeGreaterThan(2 * cache);
  });

  test("shapes are known by their widths", () => {
    for (const name of shapeNames) expect(shapeOf(shapeConfig(name, 1))).toBe(name);
    expect(shapeOf({ ...shapeConfig("tiny"), hiddenSize: 65 })).toBeNull();
    // 7B without embedding and head: 32 layers of 202.4 M
    expect(layerElements(shapeConfig("llama-7b"))).toBe(4 * 4096 ** 2 + 3 * 4096 * 11008);
  });

  test("steps of records are the paper's 16, of uneven length", () => {
    const steps = [0, 1, 2, 3].map(recordLengths);
    for (const lengths of steps) expect(new Set(lengths).size).toBeGreaterThan(4);
    expect(recordLengths(4)).toEqual(steps[0]!);
    expect(longestRecordStep()).toBe(Math.max(...steps.map((lengths) => lengths.reduce((a, b) => a + b))));
    expect(steps.every((lengths) => lengths.length === 16)).toBe(true);
  });

  test("a batch is packed, all but the first token of a record labelled, ids in the vocabulary", () => {
    const { tokens, labels, labelWeights, cuSeqlens } = fixedBatch([5, 3], 11);
    expect([...cuSeqlens]).toEqual([0, 5, 8]);
    expect(labels.length).toBe(6);
    expect(labelWeights.reduce((a, b) => a + b)).toBeCloseTo(1, 6);
    expect([...tokens].every((id) => id >= 0 && id < 11)).toBe(true);
    expect(new Set(tokens).size).toBeGreaterThan(3);
  });

  test("operations of the floor, counted by hand", () => {
    const config = { ...shapeConfig("tiny"), layers: 2 };
    const layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160;
    const forward = 2 * 10 * 2 * layer;
    const backward = 2 * 10 * (2 * layer - 64 * (64 + 32 + 32));
    const head = 2 * 2 * 8 * 64 * 509;
    expect(floorFlops(config, [6, 4])).toBe(forward + backward + head);
  });
});

describe("random weights", () => {
  test("the folder holds the values that are made in memory", async () => {
    const config = shapeConfig("tiny");
    writeRandomModel(join(folder, "model"), config);
    const tensors = openModelTensors(join(folder, "model"));
    const name = "model.layers.1.mlp.up_proj.weight";
    expect(readTensorAsF32(tensors.get(name)!)).toEqual(randomMatrix(name, 160, 64));
    const device = await openDevice({ threads: 1 });
    freeLlama(loadLlama(device, join(folder, "model"), { compute: "bf16", positions: 8 }));
    closeDevice(device);
  });

  test("are finite, spread around zero, and differ from matrix to matrix", () => {
    const [a, b] = ["a", "b"].map((name) => randomMatrix(name, 64, 64));
    const mean = a!.reduce((sum, v) => sum + v, 0) / a!.length;
    expect(Math.abs(mean)).toBeLessThan(0.01);
    expect(a!.every((v) => Math.abs(v) <= 1 / 8 && v !== 0)).toBe(true);
    expect(a).not.toEqual(b);
  });
});

test("methods take turns on one model and do not see each other", async () => {
  const device = await openDevice({ threads: 1 });
  const model = { name: "tiny", shape: "tiny", config: shapeConfig("tiny"), folder: null } as const;
  const batch = fixedBatch([12, 9], 509);
  const losses = (methods: ("sbora-fa" | "lora")[], turns: ("sbora-fa" | "lora" | "floor")[]): number[] => {
    const bed = openStepBed(device, model, "f32", methods, 21);
    const all = turns.map((turn) => (turn === "floor" ? bed.floor(batch) : bed.step(turn, batch)).loss);
    bed.free();
    return all;
  };
  const [fa1, fa2] = losses(["sbora-fa"], ["sbora-fa", "sbora-fa"]);
  const mixed = losses(["sbora-fa", "lora"], ["sbora-fa", "lora", "floor", "sbora-fa", "floor"]);
  // ΔW = 0 at first: everyone starts from the frozen model's loss.
  expect(mixed).toEqual([fa1!, fa1!, fa1!, fa2!, fa1!]);
  expect(fa2).toBeLessThan(fa1!);
  closeDevice(device);
});

describe("peers", () => {
  test("one that ends, or does not speak JSON, is named with what it wrote", async () => {
    const error = await startPeer("nobody", "/bin/false", "step.py").catch((e: unknown) => e);
    expect(error).toBeInstanceOf(InputError);
    expect(String(error)).toContain("nobody (step.py) ended");
    const echo = await startPeer("echo", "/bin/echo", "step.py").catch((e: unknown) => e);
    expect(String(echo)).toContain("which is no JSON");
  });

  test("forms are environments; the vendor's answer is compiled", async () => {
    expect(await formEnvironment("installed", folder)).toEqual({});
    const { LD_PRELOAD, ...tuned } = await formEnvironment("vendor", folder);
    expect(tuned).toEqual(await formEnvironment("tuned", folder));
    expect(existsSync(LD_PRELOAD!)).toBe(true);
  });

  test.skipIf(!Bun.which("python3"))("a GGUF of the folder is what llama.cpp reads", () => {
    const config = shapeConfig("tiny");
    writeRandomModel(join(folder, "gguf-source"), config);
    const script = join(import.meta.dir, "../peers/hf_to_gguf.py");
    const target = join(folder, "model.gguf");
    const run = Bun.spawnSync(["python3", script, join(folder, "gguf-source"), target], { stderr: "pipe" });
    expect(run.stderr.toString()).toBe("");
    expect(Bun.file(target).size).toBeGreaterThan(2 * layerElements(config) * config.layers);
  });
});

describe("bench.ts", () => {
  test.each(["gemm", "step", "memory", "decode", "nf4", "evaluate", "start", "swap", "serve"])(
    "%s --quick works on the tiny shape",
    (what) => {
      const { code, stdout, stderr } = runScript("bench", [
        what,
        "--quick",
        "--shape",
        "tiny",
        "--rounds",
        "1",
        "--json",
      ]);
      expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
      const result = JSON.parse(stdout) as {
        machine: { peakF32: { median: number } };
        benchmarks: Record<
          string,
          { figures: { median: number }[]; targets: object[]; missing: string[]; checks: object[] }
        >;
      };
      expect(result.machine.peakF32.median).toBeGreaterThan(0);
      const report = result.benchmarks[what]!;
      expect(report.figures.length).toBeGreaterThan(0);
      expect(report.figures.every(({ median }) => median > 0)).toBe(true);
      expect(report.targets.length + report.missing.length).toBeGreaterThan(0);
      expect(report.checks.length).toBeGreaterThan(0);
      const lines = stderr.split("\n").filter((line) => / (ok|short)$/.test(line));
      expect(lines.length).toBe(report.targets.length);
    },
  );

  test("profile names the ops of a step", () => {
    const { stdout } = runScript("bench", [
      "profile",
      "--quick",
      "--shape",
      "tiny",
      "--methods",
      "lora",
      "--json",
    ]);
    const profiles = JSON.parse(stdout) as {
      method: string;
      step: number;
      ops: { name: string; calls: number }[];
    }[];
    expect(profiles.map(({ method }) => method)).toEqual(["floor", "lora"]);
    const calls = (method: number, name: string): number | undefined =>
      profiles[method]!.ops.find((op) => op.name === name)?.calls;
    // two layers of seven, and a product z = x·Aᵀ for each of LoRA's five targets
    expect(calls(0, "sb_linear_forward")).toBe(14);
    expect(calls(0, "sb_matmul")).toBeUndefined();
    expect(calls(1, "sb_adamw")).toBe(1);
    expect(profiles[1]!.ops.at(-1)!.name).toBe("(between the calls)");
  });

  test("bad input is one paragraph", () => {
    const { code, stderr } = runScript("bench", ["step", "--peer", "python:/no/such/python"]);
    expect(code).toBe(1);
    expect(stderr.trim()).not.toContain("\n");
    expect(stderr).toContain("/no/such/python");
  });
});
