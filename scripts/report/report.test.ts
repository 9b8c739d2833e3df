import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cellPlace, keepLosses, readLosses } from "../../experiments/cell-file.ts";
import { InputError } from "../../src/errors.ts";
import { runScript } from "../testing.ts";
import { cellsChapter } from "./cells.ts";
import { collect } from "./collect.ts";
import { curvesChapter } from "./curves.ts";
import { commandOf, items, PRESETS } from "./items.ts";
import { lossPictures } from "./losses.ts";
import { mmluChapter } from "./mmlu.ts";
import { overviewChapter } from "./overview.ts";
import { pageChapter } from "./pages.ts";
import { testCell, testCurve, testMmluCell, testPage } from "./testing.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-report-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const [yes, no] = [true, false];

describe("a results folder", () => {
  const root = join(dir, "results");
  testCell(root, "sbora-fa", [yes, yes, yes, no]);
  testCell(root, "lora", [yes, no, no, no]);
  testCell(root, "base", [no, no, no, no]);
  testCurve(root, "lora", 100);
  testCurve(root, "sbora-fa", 80);
  testPage(root, "figure2", "tiny");

  test("cells are grouped, base first and methods in the paper's order; curves too; other folders are pages", () => {
    const { groups, figures, pages, problems } = collect(root);
    expect(problems).toEqual([]);
    expect(groups).toHaveLength(1);
    expect(groups[0]!.modelName).toBe("smollm2-135m");
    const methods = groups[0]!.cells.map(({ cell: { recipe } }) => recipe.training?.method ?? "base");
    expect(methods).toEqual(["base", "lora", "sbora-fa"]);
    const [figure] = figures;
    expect([figures.length, figure!.curves.map(({ curve }) => curve.recipe.training.method)]).toEqual([
      1,
      ["lora", "sbora-fa"],
    ]);
    expect(
      pages.map(({ item, preset, pictures, made }) => [item, preset, pictures.length, made.length]),
    ).toEqual([["figure2", "tiny", 1, 1]]);
  });

  test("a table's chapter has ours, the paper's, differences, verdicts, pictures and manifests", () => {
    const { title, badge, scope, body, verdicts } = cellsChapter(collect(root).groups[0]!);
    expect([title, badge]).toEqual(["Table 3, commonsense reasoning: SmolLM2-135M", "preset small"]);
    expect(scope).toStartWith("Not the paper's experiment");
    const page = body.join("\n");
    expect(page).toContain("Ours, preset small");
    expect(page).toContain("The paper's Table 3, as printed");
    // BoolQ: SBoRA-FA 75.0 here; 68.0 on LLaMA-7B, 73.3 on LLaMA3-8B
    expect(page).toMatch(/ours − it<\/td>\s*<td class="right">\+7.0<\/td>/);
    expect(page).toContain("smollm2-135m is none of the paper's models");
    expect(page).toContain("SBoRA-FA 32 above LoRA 32: generated answers");
    expect(verdicts.holds + verdicts.not + verdicts.open).toBe(2);
    expect(page).toContain("Test sets that were not there: hellaswag.");
    expect(page).toContain("Not run of this preset: DoRA 32 (seed 42)");
    expect(page).toContain("bun run experiments/table3.ts --preset small --model models/smollm2-135m");
    expect(page).toContain("Held-out loss: 2.5000 (base), 0.5320 to 0.5320 after training");
    expect(page).toContain("&lt;Processor&gt;, avx2");
    expect(page).toContain("bun run x --data '&lt;here&gt;'");
    expect(page).toContain("1 min 15 s");
    expect(page).toContain("0123456789+dirty");
    // losses, averages, one task
    expect(page.match(/<svg/g)).toHaveLength(3);
    expect(page).not.toMatch(/<Processor>|<here>/);
  });

  test("a figure's chapter draws its curves and holds the claims against them", () => {
    const { title, body, verdicts } = curvesChapter(collect(root).figures[0]!);
    expect(title).toBe("Figure 3, memory against time: SmolLM2-135M");
    const page = body.join("\n");
    expect(page.match(/<polyline/g)).toHaveLength(2);
    expect(page).toContain("80 against 100 MiB");
    expect(page).toContain('<td class="right">100</td>');
    expect(verdicts.holds).toBeGreaterThan(0);
  });

  test("Table 5's chapter is made from its cells", () => {
    const own = join(dir, "mmlu");
    testMmluCell(own, "base", [no, no, yes, no]);
    testMmluCell(own, "lora", [no, no, yes, yes]);
    const place = testMmluCell(own, "sbora-fa", [yes, yes, yes, no]);
    const { mmlu, problems } = collect(own);
    expect([mmlu.length, problems]).toEqual([1, []]);
    const { title, scope, body, results } = mmluChapter(mmlu[0]!);
    expect([title, results]).toEqual(["Table 5, MMLU on a 4-bit base: SmolLM2-135M", "3 cells"]);
    expect(scope).toStartWith("Not the paper's experiment");
    const page = body.join("\n");
    expect(page).toMatch(/QSBoRA-FA<\/th>(?:<td[^>]*>[^<]*<\/td>)*?<td class="right">75.0</);
    expect(page).toContain("Not there: flan-v2, MMLU val.");
    // losses and answers
    expect(page.match(/<svg/g)).toHaveLength(2);
    const text = readFileSync(place.predictions, "utf8");
    writeFileSync(place.predictions, text.replace('"likeliestLabel":"B"', '"likeliestLabel":"A"'));
    expect(collect(own).problems[0]).toContain("labels differ");
  });

  test("a page's text is escaped and its picture cannot run; what was not run is named with its command", () => {
    const { groups, figures, pages } = collect(root);
    const page = pageChapter(pages[0]!);
    expect(page.body.join("\n")).toContain("Its &lt;b&gt;text&lt;/b&gt;.");
    expect(page.body.join("\n")).not.toContain("<script");
    expect(page.verdicts).toEqual({ holds: 1, not: 0, open: 0 });
    const chapters = [cellsChapter(groups[0]!), curvesChapter(figures[0]!), page];
    const overview = overviewChapter(chapters).body.join("\n");
    const row = overview.slice(overview.indexOf(">Table 3</th>")).split("</tr>")[0]!;
    expect(row.replaceAll(/<[^>]*>/g, "|")).toMatch(/reasoning\|+not run\|+3 cells\|+not run\|/);
    expect(overview).toContain("bun run experiments/table4.ts --preset small --model models/smollm2-135m");
    expect(overview).toContain("bun run experiments/table3.ts --preset paper --model models/llama-7b");
    expect(overview).not.toContain("bun run experiments/table3.ts --preset small");
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
    const pictures = lossPictures(collect(root).groups[0]!.cells);
    expect(pictures.map((svg) => /<title>([^<]*)/.exec(svg)![1])).toEqual([
      "Training loss, r = 32",
      "Validation loss, r = 32",
    ]);
    expect(readLosses(cellPlace(root, "nowhere"))).toEqual([]);
  });

  test("the command writes one page, and the table's files beside the cells", () => {
    const done = runScript("report", ["--results", root]);
    expect(done.stderr).toBe("");
    expect(done.code).toBe(0);
    const page = readFileSync(join(root, "index.html"), "utf8");
    expect(page).not.toMatch(/<script|<link rel="stylesheet"|src="(?!data:)|href="(?!#|data:)/);
    const titles: string[] = [];
    new HTMLRewriter()
      .on("nav a", { text: ({ text }) => void (text && titles.push(text.replaceAll("&amp;", "&"))) })
      .transform(page);
    expect(titles).toEqual([
      "What is here",
      "Table 3, commonsense reasoning: SmolLM2-135M",
      "Figure 2, the regional update of a merged matrix",
      "Figure 3, memory against time: SmolLM2-135M",
    ]);
    const beside = (name: string): string => readFileSync(join(root, "table3", "small", name), "utf8");
    expect(beside("table.md")).toContain("## Ours beside the paper's Table 3");
    expect(beside("table.csv").split("\n")).toHaveLength(5);
    expect(beside("table.svg")).toContain("SmolLM2-135M, 1 seed");
    const json = JSON.parse(beside("table.json"));
    expect(json).toMatchObject({
      table: "table3",
      preset: "small",
      paperModel: null,
      missing: ["hellaswag"],
    });
    expect(json.rows[2]).toMatchObject({
      method: "sbora-fa",
      accuracy: { generation: { average: { value: 75 }, tasks: { boolq: { value: 75 }, hellaswag: null } } },
    });
    expect(json.besidePaper[0]).toMatchObject({ method: "lora", model: "LLaMA-7B", ours: 25, paper: 66.8 });
    expect(json.claims).toHaveLength(2);
    // and a second time: the files that were made are no cells
    const again = runScript("report", ["--results", root]);
    expect([again.code, again.stderr]).toEqual([0, ""]);
    expect(readFileSync(join(root, "index.html"), "utf8")).toBe(page);
  }, 60_000);
});

test("every command that the page names has the flags it is given", () => {
  for (const item of items) {
    const script = join(import.meta.dir, "../../experiments", `${item.name}.ts`);
    const help = Bun.spawnSync([process.execPath, "run", script, "--help"]).stdout.toString();
    const flags = PRESETS.flatMap((preset) => commandOf(item, preset)?.match(/--[a-z-]+/g) ?? []);
    for (const flag of new Set(flags)) expect(help, `${item.name} ${flag}`).toContain(`${flag}=`);
  }
}, 60_000);

describe("presets", () => {
  test("a tiny cell is tiny wherever it lies, and nothing of the paper stands beside it", () => {
    const root = join(dir, "presets");
    testCell(root, "lora", [yes], { preset: "tiny", folder: "paper" });
    const { badge, scope, body } = cellsChapter(collect(root).groups[0]!);
    expect(badge).toBe("preset tiny");
    expect(scope).toContain("invented world");
    expect(body.join("\n")).not.toContain("Beside the paper");
  });

  test("preset paper is the paper's experiment on its model alone", () => {
    const root = join(dir, "paper");
    const scope = (options: object): string => {
      testCell(root, "lora", [yes], { preset: "paper", ...options });
      return cellsChapter(collect(root).groups[0]!).scope!;
    };
    expect(scope({})).toContain("llama-7b is none of its models");
    // 56.1M, but the first four records of two tasks
    expect(scope({ parameters: 56_100_000 })).toStartWith(
      "Preset paper, but not the paper's experiment: test records",
    );
  });

  test("cells of another evaluation or learning rate stand in tables of their own, the base in each", () => {
    const root = join(dir, "mixed");
    testCell(root, "base", [no]);
    testCell(root, "lora", [yes]);
    testCell(root, "sbora-fa", [yes], { learningRate: 0.5 });
    testCell(root, "oa", [yes], { limit: 5 });
    const sizes = collect(root).groups.map(({ cells }) =>
      cells.map(({ cell }) => cell.recipe.training?.method),
    );
    expect(sizes).toEqual([[undefined, "lora"], [undefined, "sbora-fa"], ["oa"]]);
    const done = runScript("report", ["--results", root]);
    expect([done.code, existsSync(join(root, "table3", "small", "table.md"))]).toEqual([0, false]);
    expect(done.stderr).toContain("cells of 3 recipes");
  }, 60_000);
});

describe("what cannot be shown", () => {
  test("broken and foreign files are named, the others are shown, and the exit code is 1", () => {
    const root = join(dir, "broken");
    const good = testCell(root, "base", [no, no]);
    const cut = testCell(root, "dora", [yes, no]);
    const changed = testCell(root, "oa", [yes, no]);
    const half = testCell(root, "lora", [yes, no]);
    const lost = testCell(root, "lora-fa", [yes, no]);
    const typed = testCell(root, "sbora-fb", [yes, no]);
    const losses = testCell(root, "sbora-fa", [yes, no]);
    const rewrite = (path: string, edit: (text: string) => string): void =>
      writeFileSync(path, edit(readFileSync(path, "utf8")));
    rewrite(cut.json, (text) => text.slice(0, 500));
    rewrite(changed.json, (text) => text.replace('"learningRate": 0.001', '"learningRate": 0.002'));
    rewrite(half.predictions, (text) => text.slice(0, text.indexOf("\n") + 1));
    rmSync(lost.predictions);
    rewrite(typed.json, (text) =>
      text.replace(/"accuracy": [\d.]+/, '"accuracy": "<img src=x onerror=alert(1)>"'),
    );
    writeFileSync(losses.losses, "nonsense\n");
    const nothing = join(root, "table3", "small", "tiny-lora-r8-s1.json");
    writeFileSync(nothing, "{}");
    const { groups, problems } = collect(root);
    expect(groups[0]!.cells.map(({ place }) => place.name)).toEqual([good.name, losses.name]);
    const named = [
      cut.json,
      changed.json,
      half.predictions,
      lost.predictions,
      typed.json,
      losses.losses,
      nothing,
    ];
    for (const path of named) expect(problems.filter((problem) => problem.startsWith(path))).toHaveLength(1);
    expect(problems).toHaveLength(named.length);
    expect(problems.find((problem) => problem.startsWith(typed.json))).toContain("tasks.sets.boolq.scores");
    const done = runScript("report", ["--results", root]);
    expect(done.code).toBe(1);
    for (const path of named) expect(done.stderr).toContain(path);
    const page = readFileSync(join(root, "index.html"), "utf8");
    expect(page).toContain("Files that are not shown (7)");
    expect(page).toContain(cut.json);
    expect(page).toContain("Table 3, commonsense reasoning: SmolLM2-135M");
    // its table would lack the broken rows
    expect(existsSync(join(root, "table3", "small", "table.md"))).toBe(false);
  }, 60_000);

  test("a cell under another's name", () => {
    const root = join(dir, "renamed");
    const { json, predictions } = testCell(root, "oa", [yes]);
    const other = cellPlace(join(root, "table3", "small"), "smollm2-135m-dora-r32-s42");
    writeFileSync(other.json, readFileSync(json));
    writeFileSync(other.predictions, readFileSync(predictions));
    rmSync(json);
    expect(collect(root).problems[0]).toContain("which is not its name");
  });

  test("no folder, an empty folder", () => {
    expect(() => collect(join(dir, "nowhere"))).toThrow(InputError);
    mkdirSync(join(dir, "empty", "table3", "small"), { recursive: true });
    expect(() => collect(join(dir, "empty"))).toThrow("there are no results");
  });
});
