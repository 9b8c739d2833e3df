/** All results on one page: results/index.html from the files that the tables and figures have left, and from nothing else. */
import { join } from "node:path";
import { writeMmluFiles } from "../experiments/mmlu-files.ts";
import { writeTableFiles } from "../experiments/table-files.ts";
import { writeTextFile } from "../src/formats/files.ts";
import { htmlPage } from "../src/reporting/html.ts";
import { runCommand } from "./arguments.ts";
import { cellsChapter, reportInput } from "./report/cells.ts";
import type { ItemChapter } from "./report/chapter.ts";
import { type Collected, collect } from "./report/collect.ts";
import { curvesChapter } from "./report/curves.ts";
import { items, PRESETS } from "./report/items.ts";
import { mmluChapter, mmluInput } from "./report/mmlu.ts";
import { brokenChapter, overviewChapter } from "./report/overview.ts";
import { pageChapter } from "./report/pages.ts";

const ARGS = {
  results: {
    type: "string",
    valueHint: "DIR",
    default: "results",
    description: "Folder of <table>/<preset>/",
  },
  out: { type: "string", valueHint: "FILE", description: "Default: index.html in --results" },
  tables: {
    type: "boolean",
    default: true,
    description: "Write table.md, .csv, .json and .svg beside the cells too (--no-tables: the page alone)",
  },
} as const;

const EXAMPLES = `Examples
  bun run scripts/report.ts                            results/index.html from all that lies below results
  bun run scripts/report.ts --results DIR --out report.html
  bun run scripts/report.ts --no-tables                write the page alone

The page holds its pictures itself and loads nothing. Cells that differ in more than method, rank and seed stand in tables of
their own; what was not run is named with the command that runs it. Every score is counted again from its predictions. A file
that is broken, or whose recipe is not the one its hash was taken of, is named on the page and left out; the exit code is 1 then.`;

const LEAD = [
  "SBoRA (arXiv 2407.05413) beside the methods it is compared with: what this repository measured, next to what the paper prints. " +
    "Every chapter says on what model and data it was made, what of the paper it can test, and what it cannot.",
];

await runCommand({
  name: "bun run scripts/report.ts",
  description: "One self-contained page of all results: ours beside the paper's, pictures, manifests.",
  args: ARGS,
  examples: EXAMPLES,
  async run({ results, out, tables }) {
    const collected = collect(results);
    const { problems } = collected;
    if (tables) writeTables(collected);
    const chapters = chaptersOf(collected);
    const target = out ?? join(results, "index.html");
    const first = [overviewChapter(chapters), ...(problems.length > 0 ? [brokenChapter(problems)] : [])];
    writeTextFile(target, htmlPage("SBoRA: what was measured here", LEAD, [...first, ...chapters]));
    console.log(`${chapters.length} chapters in ${target}`);
    for (const problem of problems) console.error(problem);
    if (problems.length > 0) process.exitCode = 1;
  },
});

/** In the paper's order, the paper's own preset first; what is none of the paper's comes last. */
function chaptersOf({ groups, mmlu, figures, pages }: Collected): ItemChapter[] {
  const chapters = [
    ...groups.map(cellsChapter),
    ...mmlu.map(mmluChapter),
    ...figures.map(curvesChapter),
    ...pages.map(pageChapter),
  ];
  const placeOf = ({ item, preset }: ItemChapter): number => {
    const at = items.findIndex(({ name }) => name === item);
    const size = (PRESETS as readonly string[]).indexOf(preset);
    return (at < 0 ? items.length : at) * 10 + (size < 0 ? PRESETS.length : size);
  };
  return chapters.toSorted((a, b) => placeOf(a) - placeOf(b));
}

/** A folder with two tables in it has none that could be called its table; one with a broken cell keeps what it has. */
function writeTables({ groups, mmlu, problems }: Collected): void {
  const writers = [
    ...groups.map((group) => ({ ...group, write: () => writeTableFiles(group.folder, reportInput(group)) })),
    ...mmlu.map((group) => ({ ...group, write: () => writeMmluFiles(group.folder, mmluInput(group)) })),
  ];
  for (const [folder, own] of Map.groupBy(writers, (one) => one.folder)) {
    if (problems.some((problem) => problem.startsWith(folder))) continue;
    if (own.length === 1) own[0]!.write();
    else {
      console.error(
        `${folder}: cells of ${own.length} recipes; each has its table on the page, none is written beside them.`,
      );
    }
  }
}
