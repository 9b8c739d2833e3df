/** For tests: results folders with cells, curves and pages that were not computed. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type CellFile,
  type CellPlace,
  type CellRecipe,
  cellPlace,
  type StoredPrediction,
  writeCell,
} from "../../experiments/cell-file.ts";
import type { CurveFile } from "../../experiments/memory-study.ts";
import type { MmluCell, MmluRecipe } from "../../experiments/mmlu-cell-file.ts";
import { type PresetName, presets, SCALING } from "../../experiments/recipes/table3.ts";
import { mmluPresets } from "../../experiments/recipes/table5.ts";
import { resultOf } from "../../experiments/run-cell.ts";
import { recipeHash, type TrainRecipe } from "../../src/training/recipe.ts";

export interface CellOptions {
  readonly limit?: number;
  readonly preset?: PresetName;
  /** Name of the folder that should say the preset. */
  readonly folder?: string;
  readonly rank?: number;
  readonly seed?: number;
  readonly learningRate?: number;
  readonly processor?: string;
  readonly parameters?: number;
}

const made = {
  sbora: "0",
  commit: "0123456789abcdef+dirty",
  bun: "1",
  platform: "p",
  isa: "avx2",
  data: { "mix.json": "d" },
  model: { name: "m", fingerprint: "b" },
};

const timing = {
  command: "bun run x --data '<here>'",
  threads: 2,
  trainSeconds: 75,
  stepSeconds: 1,
  tokensPerSecond: 10,
  evaluateSeconds: 5,
  finished: "2026-11-25T01:02:03.000Z",
};

/** A cell with these answers to BoolQ, its predictions, and what training would have left in its work folder. */
export function testCell(
  root: string,
  method: TrainRecipe["method"] | "base",
  right: readonly boolean[],
  options: CellOptions = {},
): CellPlace {
  const { limit = 4, preset = "small", folder = preset, seed = 42, parameters = 5 } = options;
  const { processor = "<Processor>" } = options;
  const { training: own, evaluation, model } = presets[preset];
  const rank = method === "base" ? 0 : (options.rank ?? 32);
  const place = cellPlace(join(root, "table3", folder), `${model}-${method}-r${rank}-s${seed}`);
  const learningRate = options.learningRate ?? own.learningRate;
  const recipe: CellRecipe = {
    table: "table3",
    preset,
    training: method === "base" ? null : { ...own, learningRate, method, rank, alpha: SCALING * rank, seed },
    evaluation: { ...evaluation, tasks: ["boolq", "hellaswag"], limit },
    heldOut: { records: 1, seed, cutoff: 256 },
    inputs: { base: "b", tokenizer: "t", prompt: "p", training: "d", tests: { boolq: "x", hellaswag: null } },
  };
  const predictions = right.map(
    (correct, record): StoredPrediction => ({
      task: "boolq",
      record,
      label: "true",
      text: "x",
      parsed: "true",
      correct,
    }),
  );
  const planned = { weights: 2 ** 20, trainable: 2 ** 20, kept: 0, scratch: 0 };
  const trained = { parameters, steps: 1, bestStep: 1, bestValidationLoss: 0.5, planned };
  const heldOut = {
    records: 1,
    tokens: 2,
    unmerged: 0.5,
    merged: method === "base" ? 2.5 : 0.5 + rank / 1000,
  };
  const file: CellFile = {
    schemaVersion: 1,
    recipe,
    recipeHash: recipeHash(recipe),
    manifest: { ...made, processor, trained: method === "base" ? null : trained },
    tasks: { sets: { boolq: resultOf(predictions), hellaswag: null }, heldOut },
    timing,
  };
  writeCell(place, file, predictions);
  mkdirSync(join(place.work, "train"), { recursive: true });
  const step = (n: number): string =>
    `${JSON.stringify({ step: n, loss: 3 / n, seconds: 9, ...(n % 2 === 0 ? { validationLoss: 2 / n } : {}) })}\n`;
  writeFileSync(join(place.work, "train", "metrics.jsonl"), [1, 2, 3, 4].map(step).join(""));
  return place;
}

/** A cell of Table 5, trained on Alpaca, with these answers to one subject of the test split. */
export function testMmluCell(
  root: string,
  method: TrainRecipe["method"] | "base",
  right: readonly boolean[],
): CellPlace {
  const { sets, evaluation, quantize } = mmluPresets.small;
  const [set] = sets as [(typeof sets)[number]];
  const rank = method === "base" ? 0 : 64;
  const place = cellPlace(join(root, "table5", "small"), `smollm2-135m-alpaca-${method}-r${rank}-s42`);
  const recipe: MmluRecipe = {
    table: "table5",
    preset: "small",
    set: "alpaca",
    sample: null,
    training: method === "base" ? null : { ...set.training, method, rank, alpha: 16, quantize },
    base: { quantize, compute: "bf16" },
    evaluation: { ...evaluation, subjects: null, adapter: "last" },
    heldOut: { records: 1, seed: 42, source: 384, target: 128 },
    inputs: { base: "b", tokenizer: "t", prompt: "p", training: "d", mmlu: { val: null, test: "x" } },
  };
  const predictions = right.map(
    (correct, record): StoredPrediction => ({
      task: "test/anatomy",
      record,
      label: "A",
      likeliestLabel: correct ? "A" : "B",
    }),
  );
  const planned = { weights: 2 ** 20, trainable: 2 ** 20, kept: 0, scratch: 0 };
  const trained = { parameters: 5, steps: 1, bestStep: 1, bestValidationLoss: 0.5, planned };
  const result = { ...resultOf(predictions), labelNats: 1.4, spacedNats: null, shortened: 0 };
  const file: MmluCell = {
    schemaVersion: 1,
    recipe,
    recipeHash: recipeHash(recipe),
    manifest: { ...made, processor: "<Processor>", trained: method === "base" ? null : trained },
    tasks: {
      sets: { "test/anatomy": result },
      heldOut: { records: 1, tokens: 2, unmerged: 1.5, merged: method === "base" ? 2.5 : 1.25 },
    },
    timing: { ...timing, command: "bun run experiments/table5.ts" },
  };
  writeCell(place, file, predictions);
  return place;
}

/** A curve of Figure 3 whose peak is this many MiB. */
export function testCurve(root: string, method: TrainRecipe["method"], mebibytes: number): void {
  const folder = join(root, "figure3", "small");
  const recipe: CurveFile["recipe"] = {
    figure: "figure3",
    preset: "small",
    training: { ...presets.small.training, method, rank: 32, alpha: 64 },
    maxTokens: 1024,
    inputs: { base: "b", tokenizer: "t", prompt: "p", training: "d" },
  };
  const peak = mebibytes * 2 ** 20;
  const forecast = { weights: 1, fixed: 1, trainable: 1, kept: 1, scratch: 1, workspace: 1, loading: 1 };
  const curve = {
    schemaVersion: 1,
    recipe,
    recipeHash: recipeHash(recipe),
    manifest: { ...made, processor: "<Processor>", parameters: 5, steps: 3, forecast },
    timing: {
      command: "bun run experiments/figure3.ts",
      threads: 2,
      process: 1,
      foreseen: peak,
      finished: "2026-11-25T01:02:03.000Z",
      samples: [
        [0, peak / 2],
        [1, peak],
      ],
      steps: [0.5, 0.4, 0.4],
      tokens: 10,
      seconds: 1.3,
      peak,
      processorSeconds: 2,
      othersShare: 0.01,
    },
  };
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `smollm2-135m-${method}-r32-s42.json`), JSON.stringify(curve));
}

/** A folder that another script has written, with a picture that tries to run. */
export function testPage(root: string, item: string, preset: string): void {
  const folder = join(root, item, preset);
  mkdirSync(folder, { recursive: true });
  const claims = "| claim | verdict |\n|---|---|\n| <i>c</i> | holds |";
  writeFileSync(
    join(folder, "figure.md"),
    `![](figure.svg)\n\n## A figure\n\n${claims}\n\nIts <b>text</b>.\n`,
  );
  const script = "<script>document.title = 'taken'; fetch('http://127.0.0.1:9/')</script>";
  const image = '<image href="http://127.0.0.1:9/x.png" width="9" height="9"/>';
  writeFileSync(
    join(folder, "figure.svg"),
    `<svg xmlns="http://www.w3.org/2000/svg" width="900" height="60" onload="document.title='taken'">${script}${image}<rect width="900" height="60" fill="#888"/></svg>`,
  );
  const manifest = { ...made, processor: "P", threads: 1, command: `bun run experiments/${item}.ts` };
  writeFileSync(join(folder, "figure.json"), JSON.stringify({ manifest, claims: [] }));
}
