/** The training pass against float64 goldens of two tiny models (scripts/peers/make_goldens.py), and against itself. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { methodNames } from "../adapters/adapter.ts";
import { methodNamed } from "../adapters/registry.ts";
import { createArena, freeArena, peakBytes } from "../native/arena.ts";
import { readBytes, zero } from "../native/tensor.ts";
import {
  attachDisturbed,
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
  type TinyName,
  weightedLoss,
  withTrained,
} from "./testing.ts";
import { logitsPass, lossPass, trainPass } from "./train-pass.ts";
import { attachTrainables, type Trainables } from "./trainables.ts";

interface GoldenModel {
  readonly sequences: number[][];
  readonly labels: number;
  readonly loss: number;
  readonly peerMaxAbsLogitError: number;
}

const names: TinyName[] = ["gqa", "llama3"];
const tiny = Object.fromEntries(
  names.map((name) => [
    name,
    {
      about: readGoldenJson<GoldenModel>(name, "golden.json"),
      tensors: readGolden(name, "golden.safetensors"),
    },
  ]),
);

/** Loss and gradients of one pass. */
function pass(rig: Rig, trained: Trainables, sequences: number[][], dropout = 0) {
  const batch = packed(sequences);
  zero(rig.device, trained.gradients);
  const options = { ...rig, dropout: dropout > 0 ? { p: dropout, key: 9n } : null };
  const nll = trainPass(rig.model, trained, batch, options);
  return { nll, loss: weightedLoss(batch, nll), gradients: gradientsOf(rig, trained) };
}

for (const name of names) {
  describe(name, () => {
    const { about, tensors } = tiny[name]!;
    let f32: Rig;
    beforeAll(async () => {
      f32 = await openRig(name);
    });
    afterAll(() => closeRig(f32));

    /** Golden logits of all sequences, as one packed pass lays them out. */
    const goldenLogits = (): Float64Array =>
      Float64Array.from(about.sequences.flatMap((_, i) => [...golden(tensors, `seq${i}/logits`)]));

    test("f32 logits: at most twice the other framework's own error, or 1e-4 (settled 19)", () => {
      const logits = logitsPass(f32.model, packed(about.sequences), f32);
      const error = figure(`${name} logits f32`, largestDifference(logits, goldenLogits()));
      expect(error).toBeLessThanOrEqual(Math.max(1e-4, 2 * about.peerMaxAbsLogitError));
    });

    test("float64 logits: the goldens to their own rounding", async () => {
      const f64 = await openRig(name, { library: "reference-f64" });
      const logits = logitsPass(f64.model, packed(about.sequences), f64);
      expect(figure(`${name} logits f64`, relativeError(logits, goldenLogits()))).toBeLessThan(1.2e-7);
      closeRig(f64);
    });

    test("losses of every label, with and without gradients", () => {
      const batch = packed(about.sequences);
      const expected = about.sequences.flatMap((_, i) => [...golden(tensors, `seq${i}/nll`)]);
      const nll = lossPass(f32.model, batch, f32);
      expect(largestDifference(nll, expected)).toBeLessThan(2e-5);
      expect(batch.labels.length).toBe(about.labels);
      expect(weightedLoss(batch, nll)).toBeCloseTo(about.loss, 5);
      const trained = attachTrainables(
        f32.model,
        { method: methodNamed("lora"), rank: 2, alpha: 4, targets: ["q_proj"], seed: 1 },
        f32.scratch,
      );
      withTrained(f32, trained, () => {
        expect(pass(f32, trained, about.sequences).nll).toEqual(nll);
      });
    });

    test("bf16 compute is bf16: near, and not f32 in disguise", async () => {
      const bf16 = await openRig(name, { compute: "bf16" });
      const logits = logitsPass(bf16.model, packed(about.sequences), bf16);
      const error = figure(`${name} logits bf16`, relativeError(logits, goldenLogits()));
      // some ten roundings of 2^-9 each on the way
      expect(error).toBeLessThan(0.1);
      expect(error).toBeGreaterThan(1e-4);
      const batch = packed(about.sequences);
      expect(weightedLoss(batch, lossPass(bf16.model, batch, bf16))).toBeCloseTo(about.loss, 1);
      closeRig(bf16);
    });

    test("gradients of every weight (full), tied embeddings included", async () => {
      // `full` writes into the model, so it gets one of its own.
      for (const library of ["reference-f64", undefined] as const) {
        const rig = await openRig(name, library ? { library } : {});
        const options = { method: methodNamed("full"), rank: 1, alpha: 1, targets: [], seed: 1 };
        const trained = attachTrainables(rig.model, options, rig.scratch);
        const { loss, gradients } = pass(rig, trained, about.sequences);
        expect(loss).toBeCloseTo(about.loss, 5);
        let worst = 0;
        const seen = new Set<string>();
        for (const [slot, values] of gradients) {
          const key = `grad/${hfName(slot)}`;
          seen.add(key);
          worst = Math.max(worst, relativeError(values, golden(tensors, key)));
        }
        expect([...tensors.keys()].filter((key) => key.startsWith("grad/") && !seen.has(key))).toEqual([]);
        expect(figure(`${name} full gradients, ${library ?? "cpu"}`, worst)).toBeLessThan(
          library ? 1.2e-7 : 1e-4,
        );
        withTrained(rig, trained, () => {});
        closeRig(rig);
      }
    });
  });
}

/** Slot of a `full` run → the Hugging Face name of its weight. */
function hfName(slot: string): string {
  const path = slot.replace(/\.W$/, ".weight");
  return path.startsWith("lm_head") ? path : `model.${path}`;
}

describe("packing", () => {
  const { sequences } = tiny.gqa!.about;
  const distinct = ["lora", "dora", "sbora-fa", "sbora-fb"];
  let rig: Rig;
  beforeAll(async () => {
    rig = await openRig("gqa");
  });
  afterAll(() => closeRig(rig));

  test("a record alone has the very losses it has in a pack", () => {
    const together = lossPass(rig.model, packed(sequences), rig);
    const alone = sequences.flatMap((one) => [...lossPass(rig.model, packed([one]), rig)]);
    expect([...together]).toEqual(alone);
    const other = lossPass(rig.model, packed([...sequences].reverse()), rig);
    expect([...other].sort()).toEqual(alone.sort());
  });

  for (const name of distinct) {
    test(`${name}: the gradient of a pack is the sum over its records, under dropout too`, () => {
      withTrained(rig, attachDisturbed(rig, name), (trained) => {
        const labels = sequences.map((one) => one.length - 1);
        const all = labels.reduce((a, b) => a + b);
        const together = pass(rig, trained, sequences, 0.3);
        const sum = new Map<string, Float64Array>();
        let losses: number[] = [];
        sequences.forEach((one, i) => {
          // record numbers name the masks, so the record keeps its own
          const batch = packed([one]);
          batch.recordIds.fill(i);
          zero(rig.device, trained.gradients);
          losses = losses.concat([
            ...trainPass(rig.model, trained, batch, { ...rig, dropout: { p: 0.3, key: 9n } }),
          ]);
          for (const [slot, values] of gradientsOf(rig, trained)) {
            const share = values.map((v) => (v * labels[i]!) / all);
            sum.set(slot, sum.get(slot)?.map((v, j) => v + share[j]!) ?? share);
          }
        });
        expect(losses).toEqual([...together.nll]);
        for (const [slot, values] of together.gradients) {
          expect(relativeError(values, sum.get(slot)!)).toBeLessThan(2e-5);
        }
        // and the mask does something
        expect(largestDifference(pass(rig, trained, sequences).nll, together.nll)).toBeGreaterThan(1e-3);
      });
    });
  }

  test("a mask follows the record's number and the step's key, not the tokens (settled 11)", () => {
    const twice = [sequences[2]!, sequences[2]!];
    const half = sequences[2]!.length - 1;
    withTrained(rig, attachDisturbed(rig, "sbora-fa"), (trained) => {
      const { nll } = pass(rig, trained, twice, 0.3);
      expect(nll.slice(0, half)).not.toEqual(nll.slice(half));
      const batch = packed(twice);
      batch.recordIds.fill(0);
      const same = trainPass(rig.model, trained, batch, { ...rig, dropout: { p: 0.3, key: 9n } });
      expect(same.slice(0, half)).toEqual(nll.slice(0, half));
      expect(same.slice(half)).toEqual(nll.slice(0, half));
      const otherStep = trainPass(rig.model, trained, batch, { ...rig, dropout: { p: 0.3, key: 10n } });
      expect(otherStep).not.toEqual(same);
    });
  });

  test("gradients are added, not overwritten", () => {
    withTrained(rig, attachDisturbed(rig, "lora"), (trained) => {
      const { gradients: once } = pass(rig, trained, sequences);
      trainPass(rig.model, trained, packed(sequences), { ...rig, dropout: null });
      for (const [slot, values] of gradientsOf(rig, trained)) {
        expect(
          relativeError(
            values,
            once.get(slot)!.map((v) => 2 * v),
          ),
        ).toBeLessThan(1e-6);
      }
    });
  });

  test("one thread and two give the same bytes: losses and gradients of every method", async () => {
    const run = async (threads: number): Promise<string[]> => {
      const own = await openRig("gqa", { threads });
      const lines = methodNames.map((name) => {
        const trained = attachDisturbed(own, name, 4, ["all-linear"], name === "full" ? 0 : 0.05);
        const { nll, gradients } = pass(own, trained, sequences, 0.1);
        const all = [...gradients.values()].map((v) => [...v].join());
        withTrained(own, trained, () => {});
        return `${name} ${nll.join()} ${Bun.hash(all.join(";"))}`;
      });
      closeRig(own);
      return lines;
    };
    expect(await run(2)).toEqual(await run(1));
  });
});

describe("activation checkpointing", () => {
  const { sequences } = tiny.gqa!.about;
  const batch = packed(sequences);

  /** Loss of every label, all gradients as text, and the most memory that was kept, with `recompute` or without. */
  function once(rig: Rig, trained: Trainables, p: number, recompute: boolean): [string, string, number] {
    const kept = createArena(rig.device, rig.kept.capacity);
    zero(rig.device, trained.gradients);
    const dropout = p > 0 ? { p, key: 9n } : null;
    const nll = trainPass(rig.model, trained, batch, { kept, scratch: rig.scratch, dropout, recompute });
    const peak = peakBytes(kept);
    freeArena(kept);
    return [nll.join(), Buffer.from(readBytes(rig.device, trained.gradients)).toString("hex"), peak];
  }

  for (const compute of ["f32", "bf16"] as const) {
    for (const name of methodNames) {
      test(`${name} ${compute}: the very bytes in less memory, with dropout and without`, async () => {
        const rig = await openRig("gqa", { compute });
        // all linears; and none behind the block's last product, which then is left out
        for (const targets of name === "full" ? [[]] : [["all-linear"], ["q_proj", "up_proj"]]) {
          const trained = attachDisturbed(rig, name, 4, targets, name === "full" ? 0 : 0.05);
          withTrained(rig, trained, () => {
            for (const p of name === "full" ? [0] : [0, 0.3]) {
              const [losses, gradients, peak] = once(rig, trained, p, false);
              const [sameLosses, sameGradients, less] = once(rig, trained, p, true);
              expect(sameLosses).toBe(losses);
              expect(sameGradients === gradients).toBe(true);
              expect(gradients).toMatch(/[^0]/);
              // one block of two is held
              expect(less).toBeLessThan(0.65 * peak);
            }
          });
        }
        closeRig(rig);
      });
    }
  }
});
