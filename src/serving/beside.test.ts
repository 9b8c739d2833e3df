/** SBoRA adapters swapped on 4-bit matrices, and the dense methods merged into copies of their values. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAdapter } from "../adapters/storage.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { mergeFolder } from "../model/load-adapter.ts";
import { freeLlama, loadLlama } from "../model/model.ts";
import { buildLibrary } from "../native/build.ts";
import { allocatedBytes, closeDevice, openDevice } from "../native/device.ts";
import { writeTinyModel } from "../training/testing.ts";
import { BASE } from "./protocol.ts";
import { activate, addWeightSet, createWeightSets, freeWeightSets } from "./swap.ts";
import { bitsOf, writeTinyAdapters } from "./testing.ts";

setDefaultTimeout(60_000);

const METHODS = { fa: "sbora-fa", fa2: "sbora-fa", fb: "sbora-fb", lora: "lora" } as const;
const root = mkdtempSync(join(tmpdir(), "sbora-beside-"));
const modelDir = join(root, "model");
const LOAD = { compute: "f32", positions: 64, quantize: "nf4" } as const;
await buildLibrary("cpu");
writeTinyModel(modelDir);
await writeTinyAdapters(modelDir, root, METHODS);
afterAll(() => rmSync(root, { recursive: true }));

test("any order of swaps leaves the codes alone and gives a merge's values", async () => {
  const device = await openDevice({ threads: 2 });
  const start = allocatedBytes(device);
  const model = loadLlama(device, modelDir, LOAD);
  const base = bitsOf(model);
  const merged: Record<string, string> = { [BASE]: base };
  for (const name of ["fa", "fa2", "fb"]) {
    const other = loadLlama(device, modelDir, LOAD);
    mergeFolder(other, readAdapter(join(root, name)));
    merged[name] = bitsOf(other);
    freeLlama(other);
  }
  expect(new Set(Object.values(merged)).size).toBe(4);
  const codes = model.layers[0]!.linears.q_proj.weight;
  const sets = createWeightSets(model, { fingerprint: fingerprintModel(modelDir) });
  for (const name of Object.keys(METHODS)) addWeightSet(sets, name, join(root, name));
  for (const name of ["fa", "fb", "fa2", "lora", "fa", BASE, "lora", "fb", "fb", BASE, "fa2"]) {
    activate(sets, name);
    const { weight } = model.layers[0]!.linears.q_proj;
    // A dense method's values have no place among codes: they are in a copy.
    expect([name, weight.dtype]).toEqual([name, name === "lora" ? "f32" : "nf4"]);
    expect(weight === codes).toBe(name !== "lora");
    if (name in merged) expect([name, bitsOf(model)]).toEqual([name, merged[name]!]);
  }
  freeWeightSets(sets);
  expect(bitsOf(model)).toBe(base);
  freeLlama(model);
  expect(allocatedBytes(device)).toBeLessThanOrEqual(start + (8 << 20));
  closeDevice(device);
});
