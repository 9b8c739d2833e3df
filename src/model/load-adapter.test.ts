/** Adapter folders that do not fit: refused before memory is asked for, and nothing of them stays. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ADAPTER_FILE, readAdapter, saveAdapter } from "../adapters/storage.ts";
import { InputError } from "../errors.ts";
import { PEFT_CONFIG_FILE } from "../formats/peft.ts";
import { readSafetensorsHeader, readTensorBytes, writeSafetensors } from "../formats/safetensors.ts";
import { allocatedBytes } from "../native/device.ts";
import { adapterOptionsOf, mergeFolder } from "./load-adapter.ts";
import { attachDisturbed, closeRig, openRig, type Rig, withTrained } from "./testing.ts";

const root = mkdtempSync(join(tmpdir(), "sbora-load-adapter-"));
let rig: Rig;
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => {
  closeRig(rig);
  rmSync(root, { recursive: true });
});

function savedAs(method: "lora" | "sbora-fa" | "sbora-fb"): string {
  const dir = join(root, method);
  withTrained(rig, attachDisturbed(rig, method), ({ adapters }) => {
    const metadata = { method, seed: 1, base: "", recipe: null, templateHash: null };
    const rest = { layout: "native", baseModel: "gqa", alpha: 8, dropout: 0 } as const;
    saveAdapter(dir, rig.device, adapters, { ...rest, metadata });
  });
  return dir;
}

test.each(["lora", "sbora-fa", "sbora-fb"] as const)("%s: a rank that its tensors do not have", (method) => {
  const dir = savedAs(method);
  expect(adapterOptionsOf(readAdapter(dir)).rank).toBe(4);
  const path = join(dir, PEFT_CONFIG_FILE);
  writeFileSync(path, readFileSync(path, "utf8").replace('"r": 4', '"r": 65536'));
  const before = allocatedBytes(rig.device);
  const merging = (): void => mergeFolder(rig.model, readAdapter(dir));
  expect(merging).toThrow(InputError);
  expect(merging).toThrow(
    "layers.0.self_attn.q_proj has tensors of rank 4, but adapter_config.json says 65536",
  );
  expect(allocatedBytes(rig.device)).toBe(before);
});

test("tensors of another width: the adapter's memory is given back, and the model is a plain one", () => {
  const dir = savedAs("lora");
  const path = join(dir, ADAPTER_FILE);
  const tensors = [...readSafetensorsHeader(path).tensors.values()].map((entry) => {
    const { name, dtype, shape } = entry;
    const bytes = readTensorBytes(entry);
    if (!name.includes("layers.1.mlp.down_proj.lora_A")) return { name, dtype, shape, bytes };
    return { name, dtype, shape: [4, 1], bytes: bytes.slice(0, 16) };
  });
  writeSafetensors(path, tensors, { format: "pt" });
  const before = allocatedBytes(rig.device);
  expect(() => mergeFolder(rig.model, readAdapter(dir))).toThrow(/down_proj: A has shape \[4, 1\]/);
  expect(allocatedBytes(rig.device)).toBe(before);
  expect(rig.model.layers[1]!.linears.down_proj.adapter).toBeNull();
});
