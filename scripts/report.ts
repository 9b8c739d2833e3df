/** All results on one page: results/index.html from the files that the tables and figures have left, and from nothing else. */
import { join, relative } from "node:path";
import { writeTextFile } from "../src/formats/files.ts";
import { type Chapter, htmlPage, htmlPicture, htmlSection } from "../src/reporting/html.ts";
import { readSections } from "../src/reporting/markdown.ts";
import { runCommand } from "./arguments.ts";
import { cellsChapter } from "./report/cells.ts";
import { collect, type PageFolder } from "./report/collect.ts";

const ARGS = {
  results: {
    type: "string",
    valueHint: "DIR",
    default: "results",
    description: "Folder of <table>/<preset>/",
  },
  out: { type: "string", valueHint: "FILE", description: "Default: index.html in --results" },
} as const;

const EXAMPLES = `Examples
  bun run scripts/report.ts                            results/index.html from all that lies below results
  bun run scripts/report.ts --results DIR --out report.html

The page holds its pictures itself and loads nothing. Cells that differ in more than method, rank and seed stand in tables of
their own; a cell whose recipe is not the one its hash was taken of is refused.`;

const LEAD = [
  "SBoRA (arXiv 2407.05413) beside the methods it is compared with: what this repository measured, next to what the paper prints. " +
    "Every table says on what model and data it was made, what of the paper it can test, and what it cannot.",
];

await runCommand({
  name: "bun run scripts/report.ts",
  description: "One self-contained page of all results: ours beside the paper's, pictures, manifests.",
  args: ARGS,
  examples: EXAMPLES,
  async run({ results, out }) {
    const { groups, pages } = collect(results);
    const chapters = [...groups.map(cellsChapter), ...pages.map((page) => pageChapter(page, results))];
    const target = out ?? join(results, "index.html");
    writeTextFile(target, htmlPage("sbora: results", LEAD, chapters));
    console.log(`${chapters.length} chapters in ${target}`);
  },
});

function pageChapter({ folder, markdown, pictures }: PageFolder, root: string): Chapter {
  return {
    title: relative(root, folder),
    body: [...pictures.map(htmlPicture), ...readSections(markdown).map(htmlSection)],
  };
}
