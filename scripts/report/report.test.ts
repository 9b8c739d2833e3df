import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resultOf } from "../../experiments/cell.ts";
import {
  type CellFile,
  type CellRecipe,
  cellPlace,
  keepLosses,
  readLosses,
  type StoredPrediction,
  writeCell,
} from "../../experiments/cell-file.ts";
import { presets, SCALING } from "../../experiments/recipes/table3.ts";
import { InputError } from "../../src/errors.ts";
import { recipeHash, type TrainRecipe } from "../../src/training/recipe.ts";
import { runScript } from "../testing.ts";
import { cellsChapter, lossPictures } from "./cells.ts";
import { collect } from "./collect.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-report-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function cell(
  root: string,
  method: TrainRecipe["method"] | "base",
  right: readonly boolean[],
  limit = 4,
): void {
  const { training, evaluation } = presets.small;
  const place = cellPlace(
    join(root, "table3", "small"),
    `smollm2-135m-${method}-r${method === "base" ? 0 : 32}-s42`,
  );
  const recipe: CellRecipe = {
    table: "table3",
    preset: "small",
    training: method === "base" ? null : { ...training, method, rank: 32, alpha: SCALING * 32, seed: 42 },
    evaluation: { ...evaluation, tasks: ["boolq", "hellaswag"], limit },
    heldOut: { records: 1, seed: 42, cutoff: 256 },
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
  const trained = { parameters: 5, steps: 1, bestStep: 1, bestValidationLoss: 0.5, planned };
  const file: CellFile = {
    schemaVersion: 1,
    recipe,
    recipeHash: recipeHash(recipe),
    manifest: {
      sbora: "0",
      commit: "0123456789abcdef+dirty",
      bun: "1",
      platform: "p",
      processor: "<Processor>",
      isa: "avx2",
      data: { "mix.json": "d" },
      model: { name: "m", fingerprint: "b" },
      trained: method === "base" ? null : trained,
    },
    tasks: {
      sets: { boolq: resultOf(predictions), hellaswag: null },
      heldOut: { records: 1, tokens: 2, unmerged: 0.5, merged: 0.5 },
    },
    timing: {
      command: "bun run x",
      threads: 2,
      trainSeconds: 75,
      stepSeconds: 1,
      tokensPerSecond: 10,
      evaluateSeconds: 5,
      finished: "2026-11-25T01:02:03.000Z",
    },
  };
  writeCell(place, file, predictions);
  mkdirSync(join(place.work, "train"), { recursive: true });
  const step = (n: number): string =>
    `${JSON.stringify({ step: n, loss: 3 / n, seconds: 9, ...(n % 2 === 0 ? { validationLoss: 2 / n } : {}) })}\n`;
  writeFileSync(join(place.work, "train", "metrics.jsonl"), [1, 2, 3, 4].map(step).join(""));
}

describe("a results folder", () => {
  const root = join(dir, "results");
  cell(root, "sbora-fa", [true, true, true, false]);
  cell(root, "lora", [true, false, false, false]);
  cell(root, "base", [false, false, false, false]);
  mkdirSync(join(root, "figure3", "tiny"), { recursive: true });
  writeFileSync(join(root, "figure3", "tiny", "figure.md"), "![](figure.svg)\n\n## A figure\n\nIts text.\n");
  writeFileSync(
    join(root, "figure3", "tiny", "figure.svg"),
    '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
  );
  writeFileSync(join(root, "figure3", "tiny", "tiny-lora-r8-s42.json"), '{"recipe":{"figure":"figure3"}}');

  test("cells are grouped, base first and methods in the paper's order; other folders are pages", () => {
    const { groups, pages } = collect(root);
    expect(groups).toHaveLength(1);
    expect(groups[0]!.modelName).toBe("smollm2-135m");
    expect(groups[0]!.cells.map(({ cell: { recipe } }) => recipe.training?.method ?? "base")).toEqual([
      "base",
      "lora",
      "sbora-fa",
    ]);
    expect(pages.map(({ markdown, pictures }) => [markdown.length > 0, pictures.length])).toEqual([
      [true, 1],
    ]);
  });

  test("the chapter has ours, the paper's, verdicts, pictures and manifests", () => {
    const { title, body } = cellsChapter(collect(root).groups[0]!);
    expect(title).toBe("Table 3, commonsense reasoning: smollm2-135m, preset small");
    const page = body.join("\n");
    expect(page).toContain("Ours, preset small");
    expect(page).toContain("The paper&#39;s Table 3".replace("&#39;", "'"));
    expect(page).toContain("SBoRA-FA 32 above LoRA 32: generated answers");
    expect(page).toContain("test set is not there: hellaswag");
    expect(page).toContain("&lt;Processor&gt; avx2");
    expect(page).toContain("1 min 15 s");
    expect(page).toContain("0123456789+dirty");
    expect(page.match(/<details>/g)).toHaveLength(3);
    expect(page.match(/<svg/g)).toHaveLength(1);
  });

  test("losses are kept beside the cell without times, once, and drawn", () => {
    const place = cellPlace(join(root, "table3", "small"), "smollm2-135m-lora-r32-s42");
    keepLosses(place);
    expect(readFileSync(place.losses, "utf8").split("\n")[1]).toBe(
      '{"step":2,"loss":1.5,"validationLoss":1}',
    );
    writeFileSync(join(place.work, "train", "metrics.jsonl"), "");
    keepLosses(place);
    expect(readLosses(place)).toHaveLength(4);
    const [picture, more] = lossPictures(collect(root).groups[0]!.cells);
    expect(more).toBeUndefined();
    expect(picture!.match(/<polyline/g)).toHaveLength(2);
    expect(readLosses(cellPlace(root, "nowhere"))).toEqual([]);
  });

  test("the command writes one page", () => {
    const done = runScript("report", ["--results", root]);
    expect(done.stderr).toBe("");
    expect(done.code).toBe(0);
    const page = readFileSync(join(root, "index.html"), "utf8");
    expect(page).toContain("figure3/tiny");
    expect(page).toContain("<p>Its text.</p>");
    expect(page.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:\/\//);
    let chapters = 0;
    new HTMLRewriter().on("section > h2", { element: () => void chapters++ }).transform(page);
    expect(chapters).toBe(2);
  }, 60_000);
});

describe("what cannot be shown", () => {
  test("cells of another evaluation stand in a table of their own", () => {
    const root = join(dir, "mixed");
    cell(root, "lora", [true], 4);
    cell(root, "sbora-fa", [true], 5);
    expect(collect(root).groups.map(({ cells }) => cells.length)).toEqual([1, 1]);
  });

  test("a cell that was changed by hand is refused by name", () => {
    const root = join(dir, "changed");
    cell(root, "oa", [true]);
    const { json } = cellPlace(join(root, "table3", "small"), "smollm2-135m-oa-r32-s42");
    writeFileSync(json, readFileSync(json, "utf8").replace('"rank": 32', '"rank": 16'));
    expect(() => collect(root)).toThrow(json);
  });

  test("no folder, an empty folder", () => {
    expect(() => collect(join(dir, "nowhere"))).toThrow(InputError);
    mkdirSync(join(dir, "empty", "table3", "small"), { recursive: true });
    expect(() => collect(join(dir, "empty"))).toThrow("there are no results");
  });
});
