/** Loading that fails: nothing of the model stays in memory. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSafetensorsHeader, readTensorBytes, writeSafetensors } from "../formats/safetensors.ts";
import { allocatedBytes } from "../native/device.ts";
import { freeLlama, loadLlama } from "./model.ts";
import { closeRig, openRig, type Rig, testdata } from "./testing.ts";

const root = mkdtempSync(join(tmpdir(), "sbora-model-"));
let rig: Rig;
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => {
  closeRig(rig);
  rmSync(root, { recursive: true });
});

test.each(["model.layers.1.mlp.down_proj.weight", "model.norm.weight"])("NaN in %s", (name) => {
  const dir = join(root, name);
  cpSync(testdata("gqa"), dir, { recursive: true });
  const file = join(dir, "model.safetensors");
  const tensors = [...readSafetensorsHeader(file).tensors.values()].map((entry) => {
    const bytes = readTensorBytes(entry);
    return { ...entry, bytes: entry.name === name ? bytes.fill(0xff) : bytes };
  });
  writeSafetensors(file, tensors);
  const before = allocatedBytes(rig.device);
  const load = { compute: "f32", positions: 8 } as const;
  expect(() => loadLlama(rig.device, dir, load)).toThrow(/NaN/);
  expect(allocatedBytes(rig.device)).toBe(before);
  freeLlama(loadLlama(rig.device, testdata("gqa"), load));
  expect(allocatedBytes(rig.device)).toBe(before);
});
