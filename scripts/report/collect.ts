/** What lies in a results folder: tables of cells, curves of figures, folders of other scripts, and what is broken. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { InputError } from "../../src/errors.ts";
import { type CellGroup, type CurveGroup, figuresOf, groupsOf, type MmluGroup, mmluOf } from "./groups.ts";
import { attempt, type Found, type Made, readResult } from "./read.ts";

/** A folder whose files no chapter of ours reads: its page in Markdown, its pictures, how its files were made. */
export interface PageFolder {
  readonly folder: string;
  /** Names of the folders: `<table>/<preset>` or what its files say of themselves. */
  readonly item: string;
  readonly preset: string;
  readonly markdown: string | null;
  readonly pictures: readonly string[];
  readonly made: readonly Made[];
}

export interface Collected {
  readonly groups: readonly CellGroup[];
  readonly mmlu: readonly MmluGroup[];
  readonly figures: readonly CurveGroup[];
  readonly pages: readonly PageFolder[];
  /** Files that are not shown, each with the reason. */
  readonly problems: readonly string[];
}

/** @throws InputError where the folder is missing or holds nothing at all */
export function collect(root: string): Collected {
  if (!existsSync(root)) {
    throw new InputError(
      `--results is ${root}: there is no such folder; run a table first, e.g. bun run experiments/table3.ts.`,
    );
  }
  const groups: CellGroup[] = [];
  const mmlu: MmluGroup[] = [];
  const figures: CurveGroup[] = [];
  const pages: PageFolder[] = [];
  const problems: string[] = [];
  for (const folder of resultFolders(root)) {
    const found = resultsIn(folder, problems);
    const cells = groupsOf(folder, found, problems);
    const letters = mmluOf(folder, found, problems);
    const curves = figuresOf(folder, found);
    groups.push(...cells);
    mmlu.push(...letters);
    figures.push(...curves);
    const page = cells.length + letters.length + curves.length === 0 ? pageIn(folder, found) : null;
    if (page) pages.push(page);
  }
  if (groups.length + mmlu.length + figures.length + pages.length + problems.length === 0) {
    throw new InputError(
      `${root}: there are no results; expected ${root}/<table>/<preset>/ with the files of a table or figure. ` +
        "bun run experiments/table3.ts makes some in two minutes.",
    );
  }
  return { groups, mmlu, figures, pages, problems: [...new Set(problems)] };
}

/** <root>/<table>/<preset>, by name. */
function resultFolders(root: string): string[] {
  const folders = (dir: string): string[] =>
    readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith("."))
      .map((entry) => join(dir, entry.name))
      .sort();
  return folders(root).flatMap(folders);
}

function resultsIn(folder: string, problems: string[]): Found[] {
  const names = readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .sort();
  return names.flatMap((name) => {
    const found = attempt(() => readResult(folder, name), problems);
    if (found?.kind === "cell" || found?.kind === "mmlu") problems.push(...found.problems);
    return found ? [found] : [];
  });
}

function pageIn(folder: string, found: readonly Found[]): PageFolder | null {
  const made = found.flatMap((one) => (one.kind === "other" ? [one.made] : []));
  const files = readdirSync(folder).sort();
  const page = files.find((name) => name.endsWith(".md"));
  if (!page && made.length === 0) return null;
  const read = (name: string): string => readFileSync(join(folder, name), "utf8");
  const recipe = made.map(({ file }) => file.recipe).find((one) => typeof one === "object" && one !== null);
  const { preset } = (recipe ?? {}) as { preset?: unknown };
  return {
    folder,
    item: basename(dirname(folder)),
    // A folder can have any name; what was run says itself what it was.
    preset: typeof preset === "string" ? preset : basename(folder),
    markdown: page ? read(page) : null,
    pictures: files.filter((name) => name.endsWith(".svg")).map(read),
    made,
  };
}
