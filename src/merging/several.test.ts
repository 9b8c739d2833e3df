/** Several adapters in one merge: disjoint ones do not touch each other, overlapping ones are refused or added up. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readAdapter } from "../adapters/storage.ts";
import { openModelTensors, readTensorAsF32 } from "../formats/safetensors.ts";
import { closeRig, openRig, type Rig } from "../model/testing.ts";
import { BASE, merging, optionsOf, saveDisturbed, temporaryRoot } from "./testing.ts";

const folders = temporaryRoot();
const { next, remove } = folders;
const { merge, refused } = merging(() => rig, folders);
let rig: Rig;
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => {
  closeRig(rig);
  remove();
});

describe("several adapters", () => {
  const indices = (dir: string): Map<string, ReadonlySet<number>> =>
    new Map([...readAdapter(dir).modules].map(([module, { index }]) => [module, new Set(index!.values)]));

  for (const name of ["sbora-fa", "sbora-fb"]) {
    test(`${name} with disjoint indices: each column or row is what its own adapter makes of it`, async () => {
      const a = saveDisturbed(rig, optionsOf(name), next());
      const b = saveDisturbed(rig, optionsOf(name, { seed: 3, avoid: indices(a) }), next());
      const { out, report } = await merge([a, b]);
      const [base, both] = [openModelTensors(BASE), openModelTensors(out)];
      const alone = [openModelTensors((await merge([a])).out), openModelTensors((await merge([b])).out)];
      const taken = [indices(a), indices(b)];
      for (const [tensor, entry] of both) {
        const values = readTensorAsF32(entry);
        const old = readTensorAsF32(base.get(tensor)!);
        const merged = alone.map((tensors) => readTensorAsF32(tensors.get(tensor)!));
        const width = entry.shape[1] ?? 1;
        const module = tensor.slice("model.".length, -".weight".length);
        const owner = (i: number): Float32Array => {
          const line = name === "sbora-fa" ? i % width : Math.floor(i / width);
          const at = taken.findIndex((of) => of.get(module)?.has(line));
          return at < 0 ? old : merged[at]!;
        };
        expect(values.every((value, i) => value === owner(i)[i])).toBe(true);
      }
      expect(report.verification!.logits.difference).toBeLessThan(1e-4);
      expect(report.adapters).toHaveLength(2);
    });
  }

  test("shared indices are refused with their number, and added up on request", async () => {
    const a = saveDisturbed(rig, optionsOf("sbora-fa"), next());
    const b = saveDisturbed(rig, optionsOf("sbora-fa", { seed: 3 }), next(), 0.02);
    const message = await refused([a, b]);
    expect(message).toContain("layers.0.mlp.down_proj: 4 columns");
    expect(message).toContain("14 modules in all");
    expect(message).toContain("--allow-overlap");
    const notes: string[] = [];
    const { out } = await merge([a, b], { allowOverlap: true, onNote: (text) => notes.push(text) });
    expect(notes.join()).toContain("both change");
    const [base, both] = [openModelTensors(BASE), openModelTensors(out)];
    const alone = await Promise.all([a, b].map(async (dir) => openModelTensors((await merge([dir])).out)));
    const name = "model.layers.1.mlp.down_proj.weight";
    const [w, ab, wa, wb] = [base, both, ...alone].map((tensors) => readTensorAsF32(tensors.get(name)!));
    const worst = ab!.reduce((most, v, i) => Math.max(most, Math.abs(v - (wa![i]! + wb![i]! - w![i]!))), 0);
    expect(worst).toBeLessThan(1e-6);
  });

  test("columns against rows, and dense adapters, overlap too; other modules do not", async () => {
    const fa = saveDisturbed(rig, optionsOf("sbora-fa"), next());
    const fb = saveDisturbed(rig, optionsOf("sbora-fb"), next());
    const q = saveDisturbed(rig, optionsOf("lora", { targets: ["q_proj"] }), next());
    const v = saveDisturbed(rig, optionsOf("oa", { targets: ["v_proj"] }), next());
    expect(await refused([fa, fb])).toContain("4 columns crossing 4 rows");
    expect(await refused([fa, q])).toContain("every weight");
    const { report } = await merge([q, v]);
    expect(report.matrices).toHaveLength(4);
    expect(report.verification!.logits.difference).toBeLessThan(1e-4);
  });

  test("a weight scales ΔW; DoRA takes none and no company", async () => {
    const lora = saveDisturbed(rig, optionsOf("lora"), next());
    const { out } = await merge([], { adapters: [{ dir: lora, weight: -0.5 }] });
    const { out: whole } = await merge([lora]);
    const [base, half, full] = [BASE, out, whole].map((dir) =>
      readTensorAsF32(openModelTensors(dir).get("model.layers.0.mlp.up_proj.weight")!),
    );
    const worst = half!.reduce(
      (m, v, i) => Math.max(m, Math.abs(v - (base![i]! - 0.5 * (full![i]! - base![i]!)))),
      0,
    );
    expect(worst).toBeLessThan(1e-6);
    const dora = saveDisturbed(rig, optionsOf("dora"), next());
    expect(await refused([], { adapters: [{ dir: dora, weight: 0.5 }] })).toContain("weighted by 0.5");
    expect(await refused([dora, lora], { allowOverlap: true })).toContain("added to another");
    expect(await refused([], { adapters: [{ dir: lora, weight: 0 }] })).toContain("other than 0");
  });
});
