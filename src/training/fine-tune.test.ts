import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { methodNames } from "../adapters/adapter.ts";
import { hashIndices, indicesOf } from "../adapters/avoid.ts";
import { readAdapter } from "../adapters/storage.ts";
import { InputError } from "../errors.ts";
import { readPeftConfig } from "../formats/peft.ts";
import { openModelTensors, readTensorAsF32 } from "../formats/safetensors.ts";
import { mergeFolder } from "../model/load-adapter.ts";
import { freeLlama, loadLlama } from "../model/model.ts";
import { linearNames } from "../model/shapes.ts";
import { allocatedBytes, closeDevice, type Device, openDevice } from "../native/device.ts";
import { fileHash } from "../reporting/manifest.ts";
import { type FineTuneOptions, fineTune, mergedForEvaluation, validationLoss } from "./fine-tune.ts";
import { prepareRun } from "./prepare.ts";
import { paperRecipe, type TrainRecipe } from "./recipe.ts";
import { tinyRecords, writeTinyModel } from "./testing.ts";

setDefaultTimeout(60_000);

const root = mkdtempSync(join(tmpdir(), "sbora-fine-tune-"));
const modelDir = join(root, "model");
const dataFile = join(root, "data.json");
const records = tinyRecords(12);
let device: Device;
let out = 0;

beforeAll(async () => {
  // compiling the library on first use takes seconds
  writeTinyModel(modelDir);
  writeFileSync(dataFile, JSON.stringify(records));
  device = await openDevice();
  // what a device allocates once and keeps, before anybody counts
  (await fineTune(options({ recipe: { ...recipe, steps: 1 } }))).close();
});
afterAll(() => {
  closeDevice(device);
  rmSync(root, { recursive: true });
});

const recipe: TrainRecipe = {
  ...paperRecipe,
  rank: 4,
  alpha: 8,
  learningRate: 0.01,
  warmup: 0,
  batch: 2,
  microBatch: 1,
  steps: 3,
  evalEvery: 2,
  valSize: 2,
  cutoff: 400,
};

function options(over: Partial<FineTuneOptions> = {}): FineTuneOptions {
  const folder = join(root, `run${out++}`);
  return {
    device,
    modelDir,
    dataFile,
    records,
    recipe,
    out: folder,
    resume: false,
    saveAs: "native",
    ...over,
  };
}

const fileIn = (dir: string, name: string): Buffer => readFileSync(join(dir, name));
const metricsOf = (dir: string): Record<string, number>[] =>
  fileIn(dir, "metrics.jsonl")
    .toString()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, number>);

describe("fineTune", () => {
  test.each(methodNames)(
    "%s: what is saved, merged and loaded again is what was validated",
    async (method) => {
      const before = allocatedBytes(device);
      const full = method === "full";
      const own = options({
        recipe: { ...recipe, method, ...(full ? { dropout: 0, learningRate: 1e-3 } : {}) },
      });
      const run = await fineTune(own);
      expect(run.result).toMatchObject({ finished: true, steps: 3, bestStep: 2 });
      const metrics = metricsOf(own.out);
      expect(metrics.map((m) => m.step)).toEqual([1, 2, 3]);
      expect(metrics[1]!.validationLoss).toBe(run.result.bestLoss!);

      const unmerged = validationLoss(run)!;
      expect(unmerged).toBeCloseTo(run.result.bestLoss!, 6);
      mergedForEvaluation(run);
      const merged = validationLoss(run)!;
      expect(merged).toBeCloseTo(unmerged, 4);
      run.close();

      const loaded = loadLlama(device, full ? own.out : modelDir, run.load);
      if (!full) mergeFolder(loaded, readAdapter(own.out));
      expect(validationLoss({ ...run, model: loaded })).toBeCloseTo(merged, 6);
      freeLlama(loaded);
      expect(allocatedBytes(device)).toBe(before);

      const files = full
        ? ["model.safetensors", "config.json", "tokenizer.json"]
        : ["adapter_model.safetensors"];
      for (const name of [
        ...files,
        "sbora.json",
        "manifest.json",
        "metrics.jsonl",
        "checkpoint/state.safetensors",
      ]) {
        expect(existsSync(join(own.out, name))).toBe(true);
      }
      expect(existsSync(join(own.out, "last", files[0]!))).toBe(true);
      expect(fileIn(own.out, files[0]!).equals(fileIn(join(own.out, "last"), files[0]!))).toBe(false);
    },
  );

  test("all-linear is saved as the linears' names: in a list PEFT takes it for a module of that name", async () => {
    const own = options({ recipe: { ...recipe, method: "lora", targets: ["all-linear"] }, saveAs: "peft" });
    (await fineTune(own)).close();
    expect(readPeftConfig(own.out).targetModules).toEqual(linearNames);
  });

  test("stopped and resumed gives the bytes of an uninterrupted run", async () => {
    const whole = options();
    (await fineTune(whole)).close();
    const parts = options();
    let asked = 0;
    const stopped = await fineTune({ ...parts, shouldStop: () => asked++ >= 2 });
    expect(stopped.result).toMatchObject({ finished: false, steps: 2 });
    stopped.close();
    const resumed = await fineTune({ ...parts, resume: true });
    expect(resumed.result).toMatchObject({ finished: true, steps: 3 });
    resumed.close();
    for (const name of [
      "adapter_model.safetensors",
      "last/adapter_model.safetensors",
      "checkpoint/state.safetensors",
    ]) {
      expect(fileIn(parts.out, name).equals(fileIn(whole.out, name))).toBe(true);
    }
    const untimed = (dir: string) =>
      metricsOf(dir).map(({ seconds: _, tokensPerSecond: __, ...rest }) => rest);
    expect(untimed(parts.out)).toEqual(untimed(whole.out));
  });

  test("activation checkpointing changes neither recipe nor adapter; the manifest tells", async () => {
    const [plain, sparing] = [options(), options({ recompute: true })];
    let foreseen = 0;
    for (const own of [plain, sparing]) {
      const onStart: FineTuneOptions["onStart"] = (_run, memory) => {
        foreseen = memory.kept;
      };
      (await fineTune({ ...own, onStart })).close();
    }
    expect(foreseen).toBe(prepareRun(sparing).plan.kept);
    expect(foreseen).toBeLessThan(0.65 * prepareRun(plain).plan.kept);
    for (const name of ["adapter_model.safetensors", "last/adapter_model.safetensors", "sbora.json"])
      expect(fileIn(sparing.out, name).equals(fileIn(plain.out, name))).toBe(true);
    const manifest = (dir: string) => JSON.parse(fileIn(dir, "manifest.json").toString());
    expect(manifest(sparing.out)).toEqual({ ...manifest(plain.out), activationCheckpointing: true });
    expect(manifest(sparing.out).recipe).toEqual({ ...recipe });
  });

  test("how passes are cut changes nothing but rounding", async () => {
    const losses: number[][] = [];
    for (const maxTokens of [400, 2000]) {
      for (const lossMean of ["micro", "token"] as const) {
        const own = options({ recipe: { ...recipe, steps: 2, lossMean }, maxTokens });
        (await fineTune(own)).close();
        losses.push(metricsOf(own.out).map((m) => m.loss!));
      }
    }
    const [micro, token, microWhole, tokenWhole] = losses;
    for (const step of [0, 1]) {
      expect(micro![step]).toBeCloseTo(microWhole![step]!, 5);
      expect(token![step]).toBeCloseTo(tokenWhole![step]!, 5);
    }
  });

  test("token mean: accumulation 1 and 4 agree to 1e-6 (settled 11)", async () => {
    const losses: number[][] = [];
    for (const microBatch of [4, 1]) {
      const own = options({ recipe: { ...recipe, steps: 2, batch: 4, microBatch, lossMean: "token" } });
      (await fineTune(own)).close();
      losses.push(metricsOf(own.out).map((m) => m.loss!));
    }
    for (const step of [0, 1]) expect(Math.abs(losses[0]![step]! - losses[1]![step]!)).toBeLessThan(1e-6);
  });

  test.each(["native", "peft"] as const)("goes on from an adapter saved as %s", async (saveAs) => {
    for (const method of ["lora", "dora", "sbora-fa", "sbora-fb"] as const) {
      const first = options({ recipe: { ...recipe, method, dropout: 0 }, saveAs });
      const trained = await fineTune(first);
      const loss = validationLoss(trained)!;
      trained.close();
      const untouched = { ...recipe, method, dropout: 0, steps: 1, evalEvery: 1, learningRate: 1e-30 };
      const second = await fineTune({ ...options({ recipe: untouched }), initAdapter: first.out });
      expect(second.result.bestLoss!).toBeCloseTo(loss, 6);
      second.close();
    }
  });

  test("says where its indices come from: the adapter it began with, not the run's own seed", async () => {
    const method = { method: "sbora-fa", dropout: 0, steps: 1, evalEvery: 1 } as const;
    const first = options({ recipe: { ...recipe, ...method, seed: 7 } });
    (await fineTune(first)).close();
    const drawn = readAdapter(first.out);
    expect(drawn.metadata).toMatchObject({ seed: 7 });
    expect(drawn.metadata).not.toHaveProperty("initAdapter");

    const goOn = async (initAdapter: string) => {
      const next = options({ recipe: { ...recipe, ...method, seed: 8 } });
      (await fineTune({ ...next, initAdapter })).close();
      return [next.out, join(next.out, "last")].map(readAdapter);
    };
    const sha256 = fileHash(drawn.file);
    for (const { metadata, modules } of await goOn(first.out)) {
      expect(metadata).toMatchObject({
        seed: 7,
        initAdapter: { path: first.out, sha256 },
        recipe: { seed: 8 },
      });
      for (const [name, { index }] of modules)
        expect(index!.values).toEqual(drawn.modules.get(name)!.index!.values);
    }
    // An adapter of another tool does not say with what it was drawn.
    rmSync(join(first.out, "sbora.json"));
    for (const { metadata } of await goOn(first.out))
      expect(metadata).toMatchObject({ seed: null, initAdapter: { path: first.out, sha256 } });
  });

  test("method full saves every weight of the base", async () => {
    const own = options({ recipe: { ...recipe, method: "full", dropout: 0, steps: 1 } });
    (await fineTune(own)).close();
    const [base, tuned] = [openModelTensors(modelDir), openModelTensors(own.out)];
    expect([...tuned.keys()].sort()).toEqual([...base.keys()].sort());
    const changed = [...base.keys()].filter(
      (name) => readTensorAsF32(base.get(name)!).join() !== readTensorAsF32(tuned.get(name)!).join(),
    );
    expect(changed.sort()).toEqual([...base.keys()].sort());
  });
});

describe("refused before anything is written", () => {
  const refused = async (over: Partial<FineTuneOptions>): Promise<string> => {
    const own = options(over);
    try {
      (await fineTune(own)).close();
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
      expect(existsSync(own.out)).toBe(false);
      return (error as InputError).message;
    }
    throw new Error("nothing was refused");
  };

  test("rank, targets, split, batch", async () => {
    expect(await refused({ recipe: { ...recipe, rank: 33 } })).toContain("rank 33 is too large");
    expect(await refused({ recipe: { ...recipe, targets: ["qkv"] } })).toContain("q_proj");
    expect(await refused({ recipe: { ...recipe, valSize: 12 } })).toContain("only 12 records");
    expect(await refused({ recipe: { ...recipe, microBatch: 3, batch: 4 } })).toContain("microBatch");
    expect(await refused({ recipe: { ...recipe, prompt: "vicuna" } })).toContain("llm-adapters");
    expect(await refused({ recipe: { ...recipe, lossOn: "response", cutoff: 20 } })).toContain("cutoff");
  });

  test("more parameters than a checkpoint holds", async () => {
    const large = join(root, "large");
    writeTinyModel(large);
    const path = join(large, "config.json");
    const config = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...config, vocab_size: 2 ** 24, hidden_size: 128 }));
    const own = options({ modelDir: large, recipe: { ...recipe, method: "full", dropout: 0 } });
    expect(() => prepareRun(own)).toThrow(
      /would train 2147\d{6} parameters, at most 1073741824 fit a checkpoint/,
    );
  });

  test("an output folder below a file", async () => {
    expect(await refused({ out: join(dataFile, "run") })).toContain("cannot be written");
  });

  test("an adapter of another kind", async () => {
    const first = options();
    (await fineTune(first)).close();
    const message = await refused({ initAdapter: first.out, recipe: { ...recipe, method: "lora", rank: 8 } });
    expect(message).toContain("method is sbora-fa, this run asks for lora");
    expect(message).toContain("rank is 4");
  });

  test("an adapter to start from whose indices are to be avoided", async () => {
    const first = options();
    (await fineTune(first)).close();
    const avoid = indicesOf([readAdapter(first.out)], "sbora-fa");
    const disjoint = { avoid, recipe: { ...recipe, avoidIndices: hashIndices(avoid) } };
    expect(await refused({ ...disjoint, initAdapter: first.out })).toContain(
      "10 modules (layers.0.mlp.down_proj, …) have indices that --avoid-indices-of rules out",
    );
  });

  test("a folder that holds a run, without resume; a run resumed on other data or with another recipe", async () => {
    const first = options();
    (await fineTune(first)).close();
    const again = (over: Partial<FineTuneOptions>) => fineTune({ ...first, ...over });
    const manifest = readFileSync(join(first.out, "manifest.json"), "utf8");
    await expect(again({})).rejects.toThrow("--resume");
    await expect(again({ resume: true, recipe: { ...recipe, learningRate: 0.5 } })).rejects.toThrow(
      "another recipe: learningRate (0.01, now 0.5)",
    );
    await expect(again({ resume: true, maxTokens: 500 })).rejects.toThrow("now 500 (--max-tokens)");
    const other = join(root, "other.json");
    writeFileSync(other, JSON.stringify(tinyRecords(13)));
    await expect(again({ resume: true, dataFile: other, records: tinyRecords(13) })).rejects.toThrow(
      "the data was data.json",
    );
    expect(readFileSync(join(first.out, "manifest.json"), "utf8")).toBe(manifest);
  });

  test("a run that began with an adapter, resumed without it or with another: its indices would be others", async () => {
    const [first, second] = [options({ recipe: { ...recipe, seed: 7 } }), options()];
    for (const source of [first, second]) (await fineTune(source)).close();
    const started = options({ initAdapter: first.out });
    (await fineTune(started)).close();
    const { initAdapter, ...without } = started;
    await expect(fineTune({ ...without, resume: true })).rejects.toThrow(`--init-adapter ${initAdapter}`);
    await expect(fineTune({ ...started, initAdapter: second.out, resume: true })).rejects.toThrow(
      "whose contents are others now",
    );
    const before = readFileSync(join(started.out, "adapter_model.safetensors"));
    (await fineTune({ ...started, resume: true })).close();
    expect(readFileSync(join(started.out, "adapter_model.safetensors")).equals(before)).toBe(true);
  });

  test("the base's own folder, or one that holds an adapter or a model, as output", async () => {
    const weights = readFileSync(join(modelDir, "model.safetensors"));
    await expect(fineTune(options({ out: modelDir, recipe: { ...recipe, method: "full" } }))).rejects.toThrow(
      "the base model's own folder",
    );
    expect(readFileSync(join(modelDir, "model.safetensors")).equals(weights)).toBe(true);
    const first = options();
    (await fineTune(first)).close();
    rmSync(join(first.out, "checkpoint"), { recursive: true });
    await expect(fineTune(first)).rejects.toThrow("already holds a adapter_model.safetensors");
  });

  test("schedules that hardly can be meant are remarked on", () => {
    const notes = (changes: Partial<TrainRecipe>): string => {
      const found: string[] = [];
      prepareRun({ ...options({ recipe: { ...recipe, ...changes } }), onNote: (text) => found.push(text) });
      return found.join("\n");
    };
    expect(notes({})).toBe("");
    expect(notes({ warmup: 3 })).toContain("never reaches its peak");
    expect(notes({ scheduleSteps: 2 })).toContain("the learning rate is 0 behind it");
    expect(notes({ schedule: "constant", warmup: 3, scheduleSteps: 2 })).toBe("");
  });
});
