/** DoRA in the norm of the 4-bit experiments, as a folder: what it says of itself, how it merges, where it cannot go. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { unscaledDora } from "../adapters/dora.ts";
import { methodInNorm } from "../adapters/registry.ts";
import { readAdapter } from "../adapters/storage.ts";
import { adapterOptionsOf } from "../model/load-adapter.ts";
import { closeRig, openRig, type Rig } from "../model/testing.ts";
import { exportPeft } from "./export.ts";
import { BASE, bytesByName, merging, optionsOf, readJson, saveDisturbed, temporaryRoot } from "./testing.ts";

const folders = temporaryRoot();
let rig: Rig;
const { merge } = merging(() => rig, folders);
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => {
  closeRig(rig);
  folders.remove();
});

const save = (norm: "unscaled" | undefined): string =>
  saveDisturbed(rig, optionsOf("dora", { method: methodInNorm("dora", norm) }), folders.next());

test("the folder says its norm, and comes back in it", () => {
  const dir = save("unscaled");
  expect(readJson<object>(dir, "sbora.json")).toMatchObject({ method: "dora", norm: "unscaled" });
  expect(readJson<object>(dir, "adapter_config.json")).toMatchObject({ peft_type: "DORA", use_dora: true });
  expect(adapterOptionsOf(readAdapter(dir)).method).toBe(unscaledDora);
  const usual = save(undefined);
  expect(readFileSync(join(usual, "sbora.json"), "utf8")).not.toContain("norm");
  expect(readJson<object>(usual, "adapter_config.json")).toMatchObject({ peft_type: "LORA", use_dora: true });
  expect(adapterOptionsOf(readAdapter(usual)).method.norm).toBeUndefined();
});

test("it merges to what it computes, weight by weight and by its logits, which is not what the usual norm gives", async () => {
  const { out, report } = await merge([save("unscaled")]);
  const { logits } = report.verification!;
  expect(logits.difference).toBeLessThan(1e-4);
  expect(logits.effect).toBeGreaterThan(0.1);
  const usual = await merge([save(undefined)]);
  const [ours, theirs] = [bytesByName(out), bytesByName(usual.out)];
  const name = "model.layers.0.self_attn.q_proj.weight";
  expect(Buffer.compare(ours.get(name)!, theirs.get(name)!)).not.toBe(0);
});

test("no export to PEFT, and no other norm than this", async () => {
  const dir = save("unscaled");
  const to = { modelDir: BASE, adapter: dir, out: folders.next() };
  await expect(exportPeft(to)).rejects.toThrow(
    /norm of W \+ B·A without its scaling .* PEFT has no word for/,
  );
  const json = readJson<object>(dir, "sbora.json");
  writeFileSync(join(dir, "sbora.json"), JSON.stringify({ ...json, norm: "other" }));
  expect(() => readAdapter(dir)).toThrow(/norm is "other", expected "unscaled", and that of a dora alone/);
});
