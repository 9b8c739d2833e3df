/** The loop's promises: resume = uninterrupted run, loss means, independence of how a step is cut into passes. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MethodName } from "../adapters/adapter.ts";
import { methodNamed, methods } from "../adapters/registry.ts";
import type { TrainingExample } from "../data/batches.ts";
import { InputError } from "../errors.ts";
import { closeRig, figure, largestDifference, noise, openRig, packed, type Rig } from "../model/testing.ts";
import { lossPass } from "../model/train-pass.ts";
import { attachTrainables, freeTrainables } from "../model/trainables.ts";
import { type StepMetrics, type TrainOptions, type TrainResult, train } from "./loop.ts";
import { planTraining } from "./plan.ts";
import { paperRecipe, type TrainRecipe } from "./recipe.ts";

// whole runs: some seconds each on the reference
setDefaultTimeout(60_000);
const root = mkdtempSync(join(tmpdir(), "sbora-loop-"));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
const newFolder = (): string => join(root, `${++folders}`);

/** `count` records of 2 to 25 tokens; each continues by a rule, so that there is something to learn. */
function records(count: number, seed: number): TrainingExample[] {
  const next = noise(seed);
  return Array.from({ length: count }, (_, id) => {
    const length = 2 + Math.floor(12 * (next() + 1));
    const tokens = [3 + Math.floor(49 * (next() + 1))];
    while (tokens.length < length) tokens.push(3 + ((5 * tokens.at(-1)! + 7) % 31));
    return { id, tokens: Int32Array.from(tokens), labelFrom: id % 5 === 4 ? Math.min(3, length) : 1 };
  });
}

const data = { train: records(48, 1), validation: records(7, 2) };

const small: TrainRecipe = {
  ...paperRecipe,
  rank: 4,
  alpha: 8,
  learningRate: 5e-3,
  warmup: 3,
  batch: 8,
  microBatch: 2,
  steps: 20,
  evalEvery: 5,
  valSize: 7,
  cutoff: 32,
};

interface Run extends TrainResult {
  readonly out: string;
  readonly metrics: StepMetrics[];
}

/** One run in a process of its own, as it were: a fresh model, fresh adapters. */
async function run(
  recipe: TrainRecipe,
  options: Partial<TrainOptions> = {},
  recompute = false,
): Promise<Run> {
  const rig = await openRig("gqa", { compute: recipe.compute });
  const { rank, alpha, targets, seed } = recipe;
  const adapter = { method: methodNamed(recipe.method), rank, alpha, targets, seed };
  const maxTokens = options.maxTokens ?? 96;
  const load = { compute: recipe.compute, positions: 1 };
  const plan = planTraining(rig.model.config, load, adapter, recipe.dropout, maxTokens, 4, recompute);
  const trained = attachTrainables(rig.model, adapter, rig.scratch);
  const out = options.out ?? newFolder();
  try {
    const all: TrainOptions = { recipe, out, plan, maxTokens, resume: false, ...options };
    const result = await train(rig.model, trained, data, all);
    return { ...result, out, metrics: metricsOf(out) };
  } finally {
    freeTrainables(rig.model, trained);
    closeRig(rig);
  }
}

function metricsOf(out: string): StepMetrics[] {
  const lines = readFileSync(join(out, "metrics.jsonl"), "utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as StepMetrics);
}

/** Without what no two runs share. */
function withoutTimes(metrics: readonly StepMetrics[]): Partial<StepMetrics>[] {
  return metrics.map(({ seconds: _, tokensPerSecond: __, ...rest }) => rest);
}

const checkpointOf = (out: string): Uint8Array => readFileSync(join(out, "checkpoint", "state.safetensors"));

/** Stops after `steps` more steps. */
function after(steps: number): () => boolean {
  let left = steps;
  return () => left-- === 0;
}

const floats = (bytes: Uint8Array): Float32Array =>
  new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);

test("a last step that diverges is no finished run with NaN as its best loss", async () => {
  const wild = { ...small, learningRate: 1e30, warmup: 0, steps: 1, evalEvery: 1 };
  await expect(run(wild)).rejects.toThrow(/training diverged at step 1: validation loss (NaN|Infinity)/);
});

test("a disk that is full becomes advice", async () => {
  const out = newFolder();
  const onStep = ({ step }: StepMetrics): void => {
    if (step > 1) return;
    rmSync(join(out, "metrics.jsonl"), { force: true });
    symlinkSync("/dev/full", join(out, "metrics.jsonl"));
  };
  const full = run({ ...small, steps: 3 }, { out, onStep });
  await expect(full).rejects.toThrow(/metrics\.jsonl: cannot be written \(ENOSPC.*The disk is full/);
  await expect(full).rejects.toThrow(InputError);
});

describe("resume", () => {
  for (const method of Object.keys(methods) as MethodName[]) {
    test(`${method}: 20 steps = 10, then 10 more, byte for byte`, async () => {
      const recipe = { ...small, method };
      const whole = await run(recipe);
      expect(whole.metrics.length).toBe(20);
      const first = await run(recipe, { shouldStop: after(10) });
      expect([first.finished, first.steps]).toEqual([false, 10]);
      const second = await run(recipe, { out: first.out, resume: true });
      expect(second.finished).toBe(true);
      expect(second.last).toEqual(whole.last);
      expect(second.best).toEqual(whole.best);
      expect([second.bestLoss, second.bestStep]).toEqual([whole.bestLoss, whole.bestStep]);
      expect(withoutTimes(second.metrics)).toEqual(withoutTimes(whole.metrics));
      expect(checkpointOf(second.out)).toEqual(checkpointOf(whole.out));
      expect(first.last).not.toEqual(whole.last);
    });
  }

  test("with activation checkpointing: the same bytes, also where only half of the run has it", async () => {
    const whole = await run(small);
    const sparing = await run(small, {}, true);
    const first = await run(small, { shouldStop: after(10) }, true);
    const second = await run(small, { out: first.out, resume: true });
    for (const { last, best, metrics, out } of [sparing, second]) {
      expect(last).toEqual(whole.last);
      expect(best).toEqual(whole.best);
      expect(withoutTimes(metrics)).toEqual(withoutTimes(whole.metrics));
      expect(checkpointOf(out)).toEqual(checkpointOf(whole.out));
    }
  });

  test("bf16 compute: the same promise, and nearly the curve of f32", async () => {
    const whole = await run({ ...small, compute: "bf16" });
    const first = await run({ ...small, compute: "bf16" }, { shouldStop: after(7) });
    const second = await run({ ...small, compute: "bf16" }, { out: first.out, resume: true });
    expect(second.last).toEqual(whole.last);
    const f32 = await run(small);
    const ratios = whole.metrics.map((line, i) => line.loss / f32.metrics[i]!.loss);
    const ones = ratios.map(() => 1);
    expect(figure("bf16 loss against f32, relative", largestDifference(ratios, ones))).toBeLessThan(0.02);
    expect(whole.last).not.toEqual(f32.last);
  });

  test("what onStep throws ends the run before that step is written", async () => {
    const out = newFolder();
    const onStep = ({ step }: StepMetrics): void => {
      if (step === 4) throw new Error("taken over");
    };
    expect(run(small, { out, onStep })).rejects.toThrow("taken over");
    expect(metricsOf(out).map(({ step }) => step)).toEqual([1, 2, 3]);
    expect(existsSync(join(out, "checkpoint"))).toBe(false);
  });

  test("a crash after the checkpoint: what came later is run again, and stands once in metrics.jsonl", async () => {
    const whole = await run(small);
    const { out } = await run(small, { shouldStop: after(8) });
    const crash = (): boolean => {
      if (metricsOf(out).length >= 13) throw new Error("power cut");
      return false;
    };
    expect(run(small, { out, resume: true, shouldStop: crash })).rejects.toThrow("power cut");
    while (metricsOf(out).length < 13) await Bun.sleep(5);
    const resumed = await run(small, { out, resume: true });
    expect(withoutTimes(resumed.metrics)).toEqual(withoutTimes(whole.metrics));
    expect(resumed.last).toEqual(whole.last);
  });

  test("a finished run resumes to nothing", async () => {
    const whole = await run(small);
    const again = await run(small, { out: whole.out, resume: true });
    expect(again.metrics).toEqual(whole.metrics);
    expect(again.best).toEqual(whole.best);
  });

  test("another recipe's checkpoint is refused", async () => {
    const { out } = await run({ ...small, steps: 2 });
    const other = run({ ...small, steps: 2, seed: 7 }, { out, resume: true });
    expect(other).rejects.toThrow(InputError);
    expect(other).rejects.toThrow(/belongs to another recipe.*--out/);
    await other.catch(() => {});
  });

  test("a new run takes the old one's checkpoint and metrics away", async () => {
    const { out } = await run({ ...small, steps: 4 });
    const stop = run(
      { ...small, steps: 4 },
      {
        out,
        shouldStop: () => {
          expect(existsSync(join(out, "checkpoint", "state.safetensors"))).toBe(false);
          expect(readFileSync(join(out, "metrics.jsonl"), "utf8")).toBe("");
          return true;
        },
      },
    );
    expect((await stop.catch((error: Error) => error)) instanceof Error).toBe(true);
  });
});

describe("loss", () => {
  const once: TrainRecipe = { ...small, steps: 6, dropout: 0.1, lossMean: "token" };
  const losses = ({ metrics }: Run): number[] => metrics.map((line) => line.loss);

  test("token mean: accumulation 1 = 4", async () => {
    const one = await run({ ...once, microBatch: 8 });
    const four = await run({ ...once, microBatch: 2 });
    expect(largestDifference(losses(one), losses(four))).toBeLessThan(1e-6);
    expect(largestDifference(floats(one.last), floats(four.last))).toBeLessThan(1e-6);
  });

  test("cutting a step into passes of other sizes changes rounding only", async () => {
    const wide = await run(once, { maxTokens: 400 });
    for (const maxTokens of [26, 60]) {
      const narrow = await run(once, { maxTokens });
      const error = largestDifference(losses(wide), losses(narrow));
      expect(figure(`loss, passes of ${maxTokens} tokens`, error)).toBeLessThan(2e-5);
      const moved = largestDifference(floats(wide.last), floats(narrow.last));
      expect(figure(`parameters, passes of ${maxTokens} tokens`, moved)).toBeLessThan(2e-4);
    }
  });

  test("the first loss is the base model's: Σ/Σ by token, or the mean of the micro-batches' means", async () => {
    const rig: Rig = await openRig("gqa");
    const examples = data.train.slice(0, 8);
    const sums = examples.map((example) => {
      const nll = lossPass(rig.model, packed([[...example.tokens]]), rig).slice(example.labelFrom - 1);
      return { sum: nll.reduce((a, b) => a + b, 0), count: nll.length };
    });
    closeRig(rig);
    const mean = (group: typeof sums): number =>
      group.reduce((a, { sum }) => a + sum, 0) / group.reduce((a, { count }) => a + count, 0);
    const plain = { ...small, steps: 1, shuffle: false };
    const token = await run({ ...plain, lossMean: "token" });
    expect(token.metrics[0]!.loss).toBeCloseTo(mean(sums), 5);
    const micro = await run({ ...plain, lossMean: "micro" });
    const means = [0, 2, 4, 6].map((i) => mean(sums.slice(i, i + 2)));
    expect(micro.metrics[0]!.loss).toBeCloseTo(means.reduce((a, b) => a + b) / 4, 5);
    expect(Math.abs(micro.metrics[0]!.loss - token.metrics[0]!.loss)).toBeGreaterThan(1e-3);
    expect(token.metrics[0]!.tokens).toBe(examples.reduce((n, { tokens }) => n + tokens.length, 0));
  });

  test("it falls, and the best validation loss decides which parameters are kept", async () => {
    const result = await run(small);
    const validated = result.metrics.filter((line) => line.validationLoss !== undefined);
    expect(validated.map((line) => line.step)).toEqual([5, 10, 15, 20]);
    const best = validated.reduce((a, b) => (b.validationLoss! < a.validationLoss! ? b : a));
    expect([result.bestStep, result.bestLoss]).toEqual([best.step, best.validationLoss!]);
    expect(result.metrics.at(-1)!.loss).toBeLessThan(0.9 * result.metrics[0]!.loss);
  });

  test("without validation the best parameters are the last", async () => {
    const result = await run({ ...small, steps: 3 });
    expect(result.best).toEqual(result.last);
    expect([result.bestStep, result.bestLoss]).toEqual([3, null]);
  });

  test("a run that diverges says so and keeps its checkpoint", async () => {
    const wild = run({ ...small, method: "full", learningRate: 1e30, warmup: 0, steps: 10 });
    expect(wild).rejects.toThrow(/training diverged at step \d+.*lower --lr/);
    await wild.catch(() => {});
  });
});

test("timers and signal handlers run between steps", async () => {
  let ticks = 0;
  const timer = setInterval(() => ticks++, 0);
  await run({ ...small, steps: 10 });
  clearInterval(timer);
  expect(ticks).toBeGreaterThanOrEqual(5);
});
