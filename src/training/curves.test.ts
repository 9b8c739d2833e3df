/**
 * Whole training runs against PEFT's and transformers' (scripts/peers): the loss within 1e-3 at every step. The tiny runs
 * stand in testdata/gqa/curves.*; those of SmolLM2 on real data (smollm2-curves.json) run with SBORA_SLOW=1.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { factor } from "../adapters/adapter.ts";
import { methodNamed } from "../adapters/registry.ts";
import type { TrainingExample } from "../data/batches.ts";
import { encodeRecords } from "../data/examples.ts";
import { promptNamed } from "../data/prompts/registry.ts";
import { readInstructionRecords } from "../data/records.ts";
import {
  type AdapterSet,
  attachGolden,
  closeRig,
  examplesOf,
  figure,
  largestDifference,
  openRig,
  type Rig,
  readGolden,
  readGoldenJson,
  slow,
  smolLm2,
} from "../model/testing.ts";
import { attachTrainables, freeTrainables, type Trainables } from "../model/trainables.ts";
import { randomUniform } from "../native/ops/index.ts";
import { readF32, writeI32 } from "../native/tensor.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { type StepMetrics, train } from "./loop.ts";
import { planTraining } from "./plan.ts";
import { paperRecipe, type TrainRecipe } from "./recipe.ts";

const out = mkdtempSync(join(tmpdir(), "sbora-curves-"));
afterAll(() => rmSync(out, { recursive: true }));

/** Trains and gives the lines of metrics.jsonl. */
async function curve(
  rig: Rig,
  trained: Trainables,
  recipe: TrainRecipe,
  examples: readonly TrainingExample[],
  maxTokens: number,
): Promise<StepMetrics[]> {
  const load = { compute: rig.model.compute, positions: 1 };
  const plan = planTraining(rig.model.config, load, trained.options, recipe.dropout, maxTokens, 4);
  const dir = join(out, recipe.method);
  const data = { train: examples, validation: [] };
  const result = await train(rig.model, trained, data, { recipe, out: dir, plan, maxTokens, resume: false });
  expect(result.finished).toBe(true);
  const lines = readFileSync(join(dir, "metrics.jsonl"), "utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as StepMetrics);
}

/** What all curves were made with: dropout 0, no shuffle, one mean over all labels of the batch. */
function curveRecipe(recipe: Partial<TrainRecipe>): TrainRecipe {
  const common = {
    dropout: 0,
    shuffle: false,
    lossMean: "token",
    batch: 4,
    microBatch: 4,
    valSize: 0,
  } as const;
  return { ...paperRecipe, ...common, ...recipe };
}

interface TinyRun extends AdapterSet {
  readonly steps: number;
  readonly peakLr: number;
  readonly warmup: number;
  readonly lr: readonly number[];
  readonly loss64: readonly number[];
  readonly gradNorm64: readonly number[];
}

describe("tiny model", () => {
  const { runs, batches } = readGoldenJson<{ runs: Record<string, TinyRun>; batches: number[][][] }>(
    "gqa",
    "curves.json",
  );
  const starts = readGolden("gqa", "curves.safetensors");
  const examples = examplesOf(batches.flat());

  for (const [label, run] of Object.entries(runs)) {
    test(`${label}: ${run.steps} steps as PyTorch's in float64`, async () => {
      const rig = await openRig("gqa");
      const options = { method: methodNamed(label), rank: 1, alpha: 1, targets: [], seed: 1 };
      const trained =
        label === "full"
          ? attachTrainables(rig.model, options, rig.scratch)
          : attachGolden(rig, { ...run, kind: label }, starts, label);
      const { steps, peakLr: learningRate, warmup } = run;
      const method = trained.options.method.name;
      const recipe = curveRecipe({ method, rank: run.rank ?? 1, steps, learningRate, warmup });
      const metrics = await curve(rig, trained, recipe, examples, 80);
      const of = (name: "loss" | "lr" | "gradNorm"): number[] => metrics.map((line) => line[name]);
      expect(figure(`${label} loss`, largestDifference(of("loss"), run.loss64))).toBeLessThan(1e-3);
      expect(largestDifference(of("lr"), run.lr)).toBeLessThan(1e-12);
      const norms = of("gradNorm").map((norm, i) => norm / run.gradNorm64[i]!);
      const ones = norms.map(() => 1);
      expect(figure(`${label} gradient norm`, largestDifference(norms, ones))).toBeLessThan(1e-3);
      freeTrainables(rig.model, trained);
      closeRig(rig);
    });
  }
});

interface SmolRuns {
  readonly loraA_m1_first6: readonly number[];
  readonly rank: number;
  readonly alpha: number;
  readonly steps: number;
  readonly batch: number;
  readonly cutoff: number;
  readonly peakLr: number;
  readonly warmup: number;
  readonly targets: readonly string[];
  readonly tokens: { readonly sha256Int32le: string; readonly lengths: readonly number[] };
  readonly runs: Record<string, { readonly loss: readonly number[]; readonly gradNorm: readonly number[] }>;
}

const DATA = resolve(
  import.meta.dir,
  "../../../shared/data/llm-adapters/ft-training_set/commonsense_18k.json",
);

describe.skipIf(!slow || !existsSync(DATA) || smolLm2() === null)("SmolLM2 on commonsense_18k", () => {
  const about = readGoldenJson<SmolRuns>("smollm2-curves.json");
  const { rank, alpha, steps, batch, cutoff, peakLr, warmup } = about;
  const folder = smolLm2()!;
  const targets = about.targets.map((target) => target.split(".").at(-1)!);

  const examples = (): TrainingExample[] => {
    const tokenizer = loadTokenizer(folder);
    const records = readInstructionRecords(DATA).slice(0, steps * batch);
    const { bosId, eosId, encode } = tokenizer;
    const prompt = promptNamed("llm-adapters");
    return encodeRecords(records, { encode, prompt, bosId, eosId: eosId!, cutoff, lossOn: "all" }).examples;
  };

  /** The start that train_curves.py made from formulas; modules are counted over the targets alone. */
  const start = (rig: Rig, trained: Trainables): void => {
    trained.adapters.forEach(({ site, trainable, frozen }, m) => {
      if (frozen.index) {
        writeI32(
          rig.device,
          frozen.index,
          Int32Array.from({ length: rank }, (_, j) => (17 * j + 5 * m) % site.in),
        );
        return;
      }
      const bound = 1 / Math.sqrt(site.in);
      randomUniform(rig.device, BigInt(m + 1), -bound, bound, factor(trainable, "A"));
    });
  };

  test("the records become PEFT's token ids", () => {
    const hash = new Bun.CryptoHasher("sha256");
    for (const { tokens } of examples()) hash.update(tokens);
    expect(hash.digest("hex")).toBe(about.tokens.sha256Int32le);
  });

  for (const [label, run] of Object.entries(about.runs)) {
    test(`${label}: ${steps} steps as PEFT's in float32`, async () => {
      const rig = await openRig(folder, { positions: cutoff, arenaBytes: 64 << 20 });
      const method = methodNamed(label);
      const options = { method, rank, alpha, targets, seed: 1 };
      const trained = attachTrainables(rig.model, options, rig.scratch);
      start(rig, trained);
      if (label === "lora") {
        const A = readF32(rig.device, factor(trained.adapters[1]!.trainable, "A"));
        expect([...A.slice(0, 6)]).toEqual([...about.loraA_m1_first6]);
      }
      const recipe = curveRecipe({
        method: method.name,
        rank,
        alpha,
        targets,
        steps,
        batch,
        microBatch: batch,
        cutoff,
        learningRate: peakLr,
        warmup,
      });
      const metrics = await curve(rig, trained, recipe, examples(), 512);
      const loss = metrics.map((line) => line.loss);
      const norms = metrics.map((line, i) => line.gradNorm / run.gradNorm[i]!);
      const ones = norms.map(() => 1);
      const norm = figure(`SmolLM2 ${label} gradient norm`, largestDifference(norms, ones));
      expect(figure(`SmolLM2 ${label} loss`, largestDifference(loss, run.loss))).toBeLessThan(1e-3);
      expect(norm).toBeLessThan(5e-3);
      figure(`SmolLM2 ${label} seconds a step`, metrics.reduce((s, line) => s + line.seconds, 0) / steps);
      freeTrainables(rig.model, trained);
      closeRig(rig);
    }, 1_800_000);
  }
});
