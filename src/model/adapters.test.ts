/** Every adapter kind inside the model: loss, logits and gradients against PyTorch's and PEFT's (testdata/gqa/adapters.*). */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { zero } from "../native/tensor.ts";
import {
  type AdapterSet,
  attachGolden,
  closeRig,
  figure,
  golden,
  gradientsOf,
  largestDifference,
  openRig,
  packed,
  type Rig,
  readGolden,
  readGoldenJson,
  relativeError,
  weightedLoss,
  withTrained,
} from "./testing.ts";
import { logitsPass, trainPass } from "./train-pass.ts";

interface GoldenSet extends AdapterSet {
  readonly loss: number;
  readonly trained: readonly string[];
}

const { sequences } = readGoldenJson<{ sequences: number[][] }>("gqa", "golden.json");
const { sets } = readGoldenJson<{ sets: Record<string, GoldenSet> }>("gqa", "adapters.json");
const tensors = readGolden("gqa", "adapters.safetensors");

test("the goldens hold every kind that has an adapter", () => {
  const kinds = new Set(Object.values(sets).map((set) => set.kind));
  expect([...kinds].sort()).toEqual(["dora", "lora", "lora-fa", "oa", "sbora-fa", "sbora-fb"]);
});

// The goldens are float64 rounded to f32; the double build of the reference must meet that rounding, f32 settled's 1e-4.
for (const [library, gradientLimit, lossDigits] of [
  ["reference-f64", 2e-7, 6],
  [undefined, 1e-4, 5],
] as const) {
  describe(library ?? "default library", () => {
    let rig: Rig;
    beforeAll(async () => {
      rig = await openRig("gqa", library ? { library } : {});
    });
    afterAll(() => closeRig(rig));

    for (const [label, set] of Object.entries(sets)) {
      test(`${label}: loss, logits, gradients`, () => {
        withTrained(rig, attachGolden(rig, set, tensors, label), (trained) => {
          const batch = packed(sequences);
          zero(rig.device, trained.gradients);
          const nll = trainPass(rig.model, trained, batch, { ...rig, dropout: null });
          expect(weightedLoss(batch, nll)).toBeCloseTo(set.loss, lossDigits);
          let worst = 0;
          let compared = 0;
          for (const [slot, values] of gradientsOf(rig, trained)) {
            const at = slot.lastIndexOf(".");
            const expected = golden(tensors, `${label}/${slot.slice(0, at)}.d${slot.slice(at + 1)}`);
            worst = Math.max(worst, relativeError(values, expected));
            compared++;
          }
          expect(compared).toBe(2 * set.targets.length * set.trained.length);
          figure(`${label} gradients, ${library ?? "default"}`, worst);
          expect(worst).toBeLessThan(gradientLimit);
          for (const i of [0, 1]) {
            const logits = logitsPass(rig.model, packed([sequences[i]!]), rig);
            expect(largestDifference(logits, golden(tensors, `${label}/seq${i}/logits`))).toBeLessThan(1e-4);
          }
        });
      });
    }
  });
}
