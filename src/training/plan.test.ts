/** The memory plan is what a real run takes, to the byte. */
import { describe, expect, test } from "bun:test";
import type { MethodName } from "../adapters/adapter.ts";
import { methodNamed, methods } from "../adapters/registry.ts";
import type { PackedBatch } from "../data/batches.ts";
import { readLlamaConfig } from "../formats/hf-config.ts";
import { planMerge } from "../model/planning.ts";
import { closeRig, openRig, packed, testdata } from "../model/testing.ts";
import { lossPass, trainPass } from "../model/train-pass.ts";
import { attachTrainables, countTrainable, freeTrainables, mergeTrainables } from "../model/trainables.ts";
import { createArena, freeArena, peakBytes } from "../native/arena.ts";
import { planTraining } from "./plan.ts";

const TOKENS = 45;
/** One sequence with a label on every token: what the plan assumes. */
const everyLabel: PackedBatch = {
  ...packed([Array.from({ length: TOKENS }, (_, i) => i)]),
  labelRows: Int32Array.from({ length: TOKENS }, (_, i) => i),
  labels: new Int32Array(TOKENS),
  labelWeights: new Float32Array(TOKENS).fill(1 / TOKENS),
};
/** Three sequences of as many tokens: fewer labels, more offsets. */
const usual = packed([
  [1, 2, 3, 4, 5, 6, 7],
  Array.from({ length: 30 }, (_, i) => i),
  [9, 8, 7, 6, 5, 4, 3, 2],
]);

for (const name of Object.keys(methods) as MethodName[]) {
  for (const compute of ["f32", "bf16"] as const) {
    describe(`${name} ${compute}`, () => {
      const adapter = { method: methodNamed(name), rank: 5, alpha: 10, targets: ["all-linear"], seed: 1 };
      for (const [p, recompute] of [
        [0, false],
        [0.1, false],
        [0.1, true],
      ] as const) {
        const how = recompute ? ", activation checkpointing" : "";
        test(`arena peaks of a real pass at dropout ${p} equal the plan${how}`, async () => {
          const rig = await openRig("gqa", { compute });
          const { device, model } = rig;
          const load = { compute, positions: 64 };
          const plan = planTraining(model.config, load, adapter, p, TOKENS, 4, recompute);
          const kept = createArena(device, plan.kept);
          const scratch = createArena(device, plan.scratch);
          const trained = attachTrainables(model, adapter, scratch);
          const options = { kept, scratch, dropout: p > 0 ? { p, key: 5n } : null, recompute };
          trainPass(model, trained, usual, options);
          expect(peakBytes(kept)).toBeGreaterThan(0.9 * plan.kept);
          trainPass(model, trained, everyLabel, options);
          expect([peakBytes(kept), peakBytes(scratch)]).toEqual([plan.kept, plan.scratch]);
          for (const batch of [usual, everyLabel]) lossPass(model, batch, options); // fits in as much
          expect([peakBytes(kept), peakBytes(scratch)]).toEqual([plan.kept, plan.scratch]);
          expect(plan.parameters).toBe(countTrainable(model, adapter));
          expect(plan.trainable).toBe(16 * plan.parameters);
          const { hiddenSize: H, vocabSize: V, layers } = model.config;
          // q and o, k and v, gate, up and down of gqa; embeddings are tied
          expect(plan.weights).toBe(4 * (V * H + layers * H * (2 * 48 + 2 * 16 + 3 * 80)));
          freeTrainables(model, trained);
          freeArena(kept);
          freeArena(scratch);
          closeRig(rig);
        });
      }

      test("merging takes what planMerge says", async () => {
        const rig = await openRig("gqa", { compute });
        const arena = createArena(
          rig.device,
          planMerge(rig.model.config, { compute, positions: 1 }, adapter),
        );
        const trained = attachTrainables(rig.model, adapter, arena);
        mergeTrainables(rig.model, trained, arena);
        expect(peakBytes(arena)).toBe(arena.capacity);
        freeTrainables(rig.model, trained);
        freeArena(arena);
        closeRig(rig);
      });
    });
  }
}

test("fixed: norms, rotary table, index vectors and frozen factors", () => {
  const config = readLlamaConfig(testdata("gqa"));
  const load = { compute: "f32", positions: 64 } as const;
  const fixed = (name: MethodName): number => {
    const adapter = { method: methodNamed(name), rank: 5, alpha: 10, targets: ["q_proj"], seed: 1 };
    return planTraining(config, load, adapter, 0, TOKENS, 4).fixed;
  };
  const { hiddenSize: H, layers, headSize } = config;
  const model = 4 * ((2 * layers + 1) * H + 64 * headSize);
  expect(fixed("lora")).toBe(model);
  expect(fixed("sbora-fa")).toBe(model + layers * 4 * 5);
  expect(fixed("oa")).toBe(model + layers * 4 * 5 * H);
  // its norms are parameters
  expect(fixed("full")).toBe(4 * 64 * headSize);
});

describe("what backward keeps (the paper's memory claim)", () => {
  const { kept } = { kept: new Map<MethodName, number>() };
  test("SBoRA-FA, OA and LoRA-FA keep r numbers a token, LoRA and FB the inputs, DoRA the outputs too", async () => {
    const rig = await openRig("gqa");
    for (const name of Object.keys(methods) as MethodName[]) {
      const adapter = { method: methodNamed(name), rank: 4, alpha: 8, targets: ["all-linear"], seed: 1 };
      const load = { compute: "f32", positions: 64 } as const;
      kept.set(name, planTraining(rig.model.config, load, adapter, 0, 256, 4).kept);
    }
    closeRig(rig);
    const of = (name: MethodName): number => kept.get(name)!;
    expect(of("oa")).toBe(of("sbora-fa"));
    expect(of("lora-fa")).toBe(of("sbora-fa"));
    const {
      layers,
      hiddenSize: H,
      intermediateSize: F,
    } = { layers: 2, hiddenSize: 48, intermediateSize: 80 };
    // inputs of q, k, v (one), gate and up (one) and down; o_proj's is kept anyway
    expect(of("lora") - of("sbora-fa")).toBe(4 * 256 * layers * (2 * H + F));
    // the same inputs, no z
    expect(of("lora") - of("sbora-fb")).toBe(4 * 256 * layers * 7 * 4);
    expect(of("dora") - of("lora")).toBe(4 * 256 * layers * (2 * 48 + 2 * 16 + 2 * 80 + 48));
  });
});
