/** One weight set at a time: after any swap the matrices are bit for bit those of a merge, or of the base. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAdapter } from "../adapters/storage.ts";
import { InputError } from "../errors.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { mergeFolder } from "../model/load-adapter.ts";
import { freeLlama, type Llama, loadLlama } from "../model/model.ts";
import { buildLibrary } from "../native/build.ts";
import { allocatedBytes, closeDevice, type Device, openDevice } from "../native/device.ts";
import { writeTinyModel } from "../training/testing.ts";
import { BASE } from "./protocol.ts";
import { activate, addWeightSet, createWeightSets, freeWeightSets, removeWeightSet } from "./swap.ts";
import { ask, bitsOf, tinyEngine, tinyPrompt, writeTinyAdapters } from "./testing.ts";

setDefaultTimeout(60_000);

const METHODS = {
  fa: "sbora-fa",
  fa2: "sbora-fa",
  fb: "sbora-fb",
  lora: "lora",
  dora: "dora",
  oa: "oa",
  "lora-fa": "lora-fa",
} as const;
const names = Object.keys(METHODS);
const root = mkdtempSync(join(tmpdir(), "sbora-swap-"));
const modelDir = join(root, "model");
await buildLibrary("cpu");
writeTinyModel(modelDir);
await writeTinyAdapters(modelDir, root, METHODS);
afterAll(() => rmSync(root, { recursive: true }));

for (const compute of ["f32", "bf16"] as const) {
  describe(`swapping, ${compute}`, () => {
    let device: Device;
    let model: Llama;
    const load = { compute, positions: 64 };
    beforeAll(async () => {
      device = await openDevice({ threads: 2 });
      model = loadLlama(device, modelDir, load);
    });
    afterAll(() => {
      freeLlama(model);
      expect(allocatedBytes(device)).toBeGreaterThan(0);
      closeDevice(device);
    });

    test("holds a merge's bits while active and the base's afterwards, in any order", () => {
      const base = bitsOf(model);
      const merged = new Map<string, string>([[BASE, base]]);
      for (const name of names) {
        const other = loadLlama(device, modelDir, load);
        mergeFolder(other, readAdapter(join(root, name)));
        merged.set(name, bitsOf(other));
        freeLlama(other);
      }
      expect(new Set(merged.values()).size).toBe(names.length + 1);
      const before = allocatedBytes(device);
      const sets = createWeightSets(model, { fingerprint: fingerprintModel(modelDir) });
      for (const name of names) {
        const info = addWeightSet(sets, name, join(root, name));
        expect(info).toMatchObject({ method: METHODS[name as keyof typeof METHODS], rank: 4, modules: 14 });
        expect(bitsOf(model)).toBe(base);
      }
      const order = [...names, BASE, ...names.toReversed(), "lora", "fa", "lora", "dora", BASE, "dora", "fb"];
      for (const name of order) {
        activate(sets, name);
        expect({ name, bits: bitsOf(model) }).toEqual({ name, bits: merged.get(name)! });
      }
      expect(sets.swaps).toBe(order.length);
      // the active one goes, dense ones stay
      removeWeightSet(sets, "fb");
      expect(bitsOf(model)).toBe(base);
      for (const name of ["lora", "oa", "dora", "lora-fa"]) removeWeightSet(sets, name);
      activate(sets, "fa2");
      expect(bitsOf(model)).toBe(merged.get("fa2")!);
      freeWeightSets(sets);
      expect(bitsOf(model)).toBe(base);
      expect(allocatedBytes(device)).toBe(before);
    });

    test("nothing stands behind a linear while an adapter is active; SBoRA keeps lines, and no matrix of its own", () => {
      const linears = model.layers.flatMap((layer) => Object.values(layer.linears));
      const base = linears.map(({ weight }) => weight);
      const sets = createWeightSets(model, { fingerprint: fingerprintModel(modelDir) });
      for (const name of names) addWeightSet(sets, name, join(root, name));
      for (const name of names) {
        activate(sets, name);
        expect(linears.every(({ adapter }) => adapter === null)).toBe(true);
        const sbora = METHODS[name as keyof typeof METHODS].startsWith("sbora");
        const { dense, patches } = sets.residents.get(name)!;
        expect({ name, dense: dense.length, patches: patches.length }).toEqual({
          name,
          dense: sbora ? 0 : linears.length,
          patches: sbora ? linears.length : 0,
        });
        expect(linears.every(({ weight }, i) => (weight === base[i]) === sbora)).toBe(true);
      }
      freeWeightSets(sets);
    });

    test("on NF4 every method runs as a copy, and the codes are never touched", () => {
      const quantized = loadLlama(device, modelDir, { ...load, quantize: "nf4" });
      const base = bitsOf(quantized);
      const before = allocatedBytes(device);
      const sets = createWeightSets(quantized, { fingerprint: fingerprintModel(modelDir) });
      for (const name of ["fa", "fb", "lora"]) addWeightSet(sets, name, join(root, name));
      const seen = ["fa", "fb", BASE, "lora", "fa", "fb"].map((name) => {
        activate(sets, name);
        return bitsOf(quantized);
      });
      expect(new Set(seen).size).toBe(4);
      expect([seen[2], seen[4], seen[5]]).toEqual([base, seen[0], seen[1]]);
      freeWeightSets(sets);
      expect(bitsOf(quantized)).toBe(base);
      expect(allocatedBytes(device)).toBe(before);
      freeLlama(quantized);
    });

    test("refuses what does not belong here, and changes nothing", () => {
      const base = bitsOf(model);
      const before = allocatedBytes(device);
      const foreign = createWeightSets(model, { fingerprint: "0".repeat(64) });
      expect(() => addWeightSet(foreign, "fa", join(root, "fa"))).toThrow(/another base model/);
      const sets = createWeightSets(model, { fingerprint: fingerprintModel(modelDir) });
      expect(() => addWeightSet(sets, "none", join(root, "none"))).toThrow(InputError);
      expect(() => activate(sets, "none")).toThrow("no weight set none");
      expect(bitsOf(model)).toBe(base);
      expect(allocatedBytes(device)).toBe(before);
    });
  });
}

describe("under load", () => {
  test("every answer is that of its weights alone, while the scheduler swaps between steps", async () => {
    const alone = new Map<string, number[][]>();
    const prompts = Array.from({ length: 24 }, (_, i) => tinyPrompt(50 + i, 5 + 3 * i));
    const wanted = ["", "fa#1", "lora#1", "fb#1"];
    const weightsOf = (i: number): string => wanted[i % wanted.length]!;
    const dirOf = (key: string): string => join(root, key.split("#")[0]!);
    for (const key of wanted) {
      const client = await tinyEngine(modelDir, { maxSequences: 1, prefixCache: false });
      if (key !== BASE) await client.load(key, dirOf(key));
      const answers: number[][] = [];
      for (const prompt of prompts) {
        answers.push((await ask(client, prompt, { weights: key, maxTokens: 24 })).tokens[0]!);
      }
      alone.set(key, answers);
      await client.close();
    }
    expect(new Set([...alone.values()].map(String)).size).toBe(wanted.length);
    const client = await tinyEngine(modelDir, { maxSequences: 4, quantumMs: 1, prefillTokens: 16 });
    for (const key of wanted.slice(1)) await client.load(key, dirOf(key));
    const mixed = await Promise.all(
      prompts.map((prompt, i) => ask(client, prompt, { weights: weightsOf(i), maxTokens: 24 })),
    );
    mixed.forEach(({ tokens }, i) => {
      expect(tokens[0]!).toEqual(alone.get(weightsOf(i))![i]!);
    });
    const { swaps } = client.stats()!;
    expect(swaps).toBeGreaterThan(8);
    // A prefix is found again after its weights were away, and only under its own.
    const again = await ask(client, prompts[23]!, { weights: weightsOf(23), maxTokens: 24 });
    expect(again.cached).toBeGreaterThan(0);
    expect(again.tokens[0]!).toEqual(alone.get(weightsOf(23))![23]!);
    const other = await ask(client, prompts[23]!, { weights: "lora#1", maxTokens: 24 });
    expect(other.cached).toBe(0);
    expect(other.tokens[0]!).toEqual(alone.get("lora#1")![23]!);
    await client.close();
  });

  test("an adapter that is taken away answers what it has taken on", async () => {
    const client = await tinyEngine(modelDir, { quantumMs: 1 });
    await client.load("fa#1", join(root, "fa"));
    const before = await ask(client, tinyPrompt(1, 20), { weights: "fa#1", maxTokens: 40 });
    const running = ask(client, tinyPrompt(1, 20), { weights: "fa#1", maxTokens: 40 });
    await client.unload("fa#1");
    expect((await running).tokens).toEqual(before.tokens);
    await client.load("fa#1", join(root, "lora"));
    const replaced = await ask(client, tinyPrompt(1, 20), { weights: "fa#1", maxTokens: 40 });
    // other bytes under an old key: no page of the old ones is found
    expect(replaced.cached).toBe(0);
    expect(replaced.tokens).not.toEqual(before.tokens);
    await client.close();
  });

  test("a folder that is no adapter is refused with a sentence, and the engine goes on", async () => {
    const client = await tinyEngine(modelDir);
    writeFileSync(join(root, "fa", "sbora.json"), "{");
    await expect(client.load("fa#1", join(root, "fa"))).rejects.toThrow("sbora.json");
    expect((await ask(client, tinyPrompt(1, 20))).tokens[0]).toHaveLength(12);
    await client.close();
  });
});
