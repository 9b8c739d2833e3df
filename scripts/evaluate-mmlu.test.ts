/** train.ts and evaluate.ts do what a cell of Table 5 does: the same recipe, the same adapter, the same answers. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readPredictions } from "../experiments/cell-file.ts";
import { runMmluCell } from "../experiments/mmlu-cell.ts";
import type { MmluCell, MmluPlan } from "../experiments/mmlu-cell-file.ts";
import { openMmluStudy } from "../experiments/mmlu-study.ts";
import { namesOf, oneLetter, pooledFigure } from "../experiments/mmlu-summary.ts";
import { mmluPresets } from "../experiments/recipes/table5.ts";
import { averageFigure, rowsOf } from "../experiments/summary.ts";
import { watching } from "../experiments/testing.ts";
import { TINY_MODEL } from "../experiments/tiny/data.ts";
import { writeTinyMmlu } from "../experiments/tiny/mmlu.ts";
import type { MmluSummary } from "../src/evaluation/mmlu-score.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";
import { recipeHash } from "../src/training/recipe.ts";
import { runScript } from "./testing.ts";

setDefaultTimeout(300_000);

const root = mkdtempSync(join(tmpdir(), "sbora-evaluate-mmlu-"));
const data = join(root, "data");
const cells = new Map<string, { plan: MmluPlan; cell: MmluCell }>();

beforeAll(async () => {
  writeTinyMmlu(data);
  const device = await openDevice();
  const study = openMmluStudy(device, mmluPresets.tiny, {
    ...{
      model: null,
      data,
      sets: ["alpaca"],
      methods: ["dora", "sbora-fa"],
      ranks: [4],
      seeds: [7],
      steps: 6,
    },
    ...{ learningRate: null, limit: 6, subjects: null, overlong: null, doraNorm: null, compute: null },
    out: join(root, "table5"),
  });
  for (const plan of study.cells) {
    const cell = await runMmluCell(study, plan, watching());
    cells.set(cell!.recipe.training?.method ?? "base", { plan, cell: cell! });
  }
  closeDevice(device);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const adapterOf = (method: string): string => join(cells.get(method)!.plan.place.work, "train", "last");
const QUANTIZED = ["--quantize", "nf4", "--double-quant"];

interface Line {
  readonly task: string;
  readonly label: string;
  readonly labelNats: number;
  readonly likeliestLabel: string;
}

interface Report {
  readonly unmerged: boolean;
  readonly mmlu: { readonly splits: Readonly<Record<"val" | "test", MmluSummary & { shortened: number }>> };
  readonly manifest: { readonly data: Readonly<Record<string, string>> };
}

let runs = 0;

function evaluate(...more: string[]): { report: Report; lines: Line[] } {
  const out = join(root, `p${runs++}.jsonl`);
  const asked = ["--data", data, "--tasks", "mmlu", "--splits", "val,test", "--limit", "6"];
  const args = ["--model", TINY_MODEL, ...asked, ...QUANTIZED, "--json", "--out", out, ...more];
  const { code, stdout, stderr } = runScript("evaluate", args);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  const lines = readFileSync(out, "utf8").trim().split("\n");
  return { report: JSON.parse(stdout) as Report, lines: lines.map((line) => JSON.parse(line) as Line) };
}

describe("a cell of Table 5 by hand", () => {
  test("train.ts: the recipe and the bytes of the adapter", () => {
    const out = join(root, "by-hand");
    const flags =
      "--method dora --rank 4 --alpha 16 --dropout 0 --dora-norm unscaled --targets all-linear --lr 0.005 --schedule constant " +
      "--clip 0.3 --batch 16 --micro-batch 4 --loss-mean micro --loss-on response --source-length 160 --target-length 32 " +
      "--steps 6 --eval-every 20 --val-size 60 --seed 7 --prompt alpaca --quantize nf4 --double-quant";
    const files = ["--model", TINY_MODEL, "--data", join(data, "tiny_alpaca.json"), "--out", out];
    const { code, stderr } = runScript("train", [...files, ...flags.split(" ")]);
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    const { recipe } = JSON.parse(readFileSync(join(out, "manifest.json"), "utf8")) as { recipe: unknown };
    expect(recipeHash(recipe)).toBe(recipeHash(cells.get("dora")!.cell.recipe.training));
    const bytes = (dir: string): Buffer => readFileSync(join(dir, "adapter_model.safetensors"));
    expect(bytes(join(out, "last")).equals(bytes(adapterOf("dora")))).toBe(true);
  });

  test.each(["base", "dora", "sbora-fa"])(
    "evaluate.ts --unmerged, %s: every answer, macro and pooled",
    (name) => {
      const { plan, cell } = cells.get(name)!;
      const adapter = name === "base" ? [] : ["--adapter", adapterOf(name), "--unmerged"];
      const { report, lines } = evaluate(...adapter);
      const stored = readPredictions(plan.place);
      expect(lines).toEqual(stored.map((one) => ({ ...one, task: `mmlu/${one.task}` })) as never);
      expect(lines).toHaveLength(2 * 4 * 6);
      expect(report.unmerged).toBe(name !== "base");
      const rows = rowsOf([{ cell, predictions: stored }]);
      for (const split of ["val", "test"] as const) {
        const names = namesOf(rows, split);
        const { labels, oneLetter: guess, subjects, shortened } = report.mmlu.splits[split];
        const [macro, pooled] = [
          averageFigure(rows[0]!, names, "labels")!,
          pooledFigure(rows[0]!, names, "labels")!,
        ];
        expect(labels.macro).toEqual({ accuracy: macro.value, standardError: macro.standardError });
        expect(labels.pooled).toEqual({ accuracy: pooled.value, standardError: pooled.standardError });
        expect(guess).toEqual(oneLetter(rows, names));
        expect(shortened).toBe(names.reduce((sum, own) => sum + cell.tasks.sets[own]!.shortened, 0));
        for (const own of names) {
          const { scores } = subjects[own.slice(split.length + 1)]!;
          expect(scores.labels).toMatchObject(cell.tasks.sets[own]!.scores.labels!);
        }
        expect(report.manifest.data[`mmlu/${split}`]).toBe(cell.recipe.inputs.mmlu[split]!);
      }
    },
  );

  test("merged into the 4-bit base: other weights, nearly the same letters", () => {
    const [base, beside] = [
      readPredictions(cells.get("base")!.plan.place),
      cells.get("sbora-fa")!.plan.place,
    ];
    const { report, lines } = evaluate("--adapter", adapterOf("sbora-fa"));
    expect(report.unmerged).toBe(false);
    const unmerged = readPredictions(beside);
    const apart = (others: typeof base): number =>
      Math.max(...lines.map(({ labelNats }, i) => Math.abs(labelNats - others[i]!.labelNats!)));
    expect(apart(unmerged)).toBeLessThan(0.1 * apart(base));
  });
});

test("predictions are never written over: a name that is taken is refused, the default goes on counting", () => {
  const cwd = process.cwd();
  const args = ["--model", TINY_MODEL, "--data", data, "--tasks", "mmlu", "--limit", "1", "--subjects"];
  const run = (...more: string[]) => runScript("evaluate", [...args, "daily_routines", ...more]);
  try {
    process.chdir(root);
    const first = run();
    expect([first.code, first.stdout]).toEqual([
      0,
      expect.stringContaining("predictions are in predictions.jsonl"),
    ]);
    const before = readFileSync("predictions.jsonl", "utf8");
    expect(run("--shots", "0").stdout).toContain("predictions are in predictions-2.jsonl");
    expect(readFileSync("predictions.jsonl", "utf8")).toBe(before);
    const refused = run("--out", "predictions.jsonl");
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("is there already")]);
  } finally {
    process.chdir(cwd);
  }
});
