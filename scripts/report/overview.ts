/** The first chapters of the page: what is there and what is not, the verdicts of all, files that are broken. */
import type { PresetName } from "../../experiments/recipes/table3.ts";
import {
  type Chapter,
  htmlCode,
  htmlFold,
  htmlHeading,
  htmlList,
  htmlParagraph,
  htmlTable,
} from "../../src/reporting/html.ts";
import type { Table } from "../../src/reporting/table.ts";
import { right } from "../../src/reporting/table.ts";
import type { ItemChapter } from "./chapter.ts";
import { commandOf, type Item, items, itemTitle, PRESETS } from "./items.ts";

export function overviewChapter(chapters: readonly ItemChapter[]): Chapter {
  const missing = PRESETS.flatMap((preset) => {
    const own = items.filter((item) => !isThere(item, preset, chapters));
    const commands = own.map((item) => commandOf(item, preset)).filter((command) => command !== null);
    return commands.length > 0 ? [[preset, commands] as const] : [];
  });
  return {
    title: "What is here",
    body: [
      htmlTable(inventory(chapters), "What of the paper was run, by preset"),
      htmlParagraph(
        "tiny: an embedded model and invented questions, to see every step work; small: a real model of 135 million parameters " +
          "on real data; paper: the paper's own models and recipe. Only a chapter of preset paper can stand for a figure of the paper.",
      ),
      ...verdictTable(chapters),
      ...(missing.length > 0 ? [htmlHeading("What was not run, and the commands that run it")] : []),
      ...missing.map(([preset, commands]) =>
        htmlFold(`Preset ${preset}: ${commands.length} not run`, [htmlCode(commands.join("\n"))]),
      ),
    ],
  };
}

function isThere({ name }: Item, preset: PresetName, chapters: readonly ItemChapter[]): boolean {
  return chapters.some((chapter) => chapter.item === name && chapter.preset === preset);
}

function inventory(chapters: readonly ItemChapter[]): Table {
  const cellOf = (item: Item, preset: PresetName): string => {
    const own = chapters.filter((chapter) => chapter.item === item.name && chapter.preset === preset);
    if (own.length > 0) return own.map(({ results }) => results).join(", ");
    return commandOf(item, preset) === null ? "" : "not run";
  };
  const known: readonly string[] = PRESETS;
  const others = chapters.filter(
    ({ item, preset }) => !known.includes(preset) || items.every(({ name }) => name !== item),
  );
  return {
    columns: [
      { title: "of the paper" },
      { title: "what it shows" },
      ...PRESETS.map((preset) => ({ title: preset })),
      ...(others.length > 0 ? [{ title: "other" }] : []),
    ],
    rows: [
      ...items.map((item) => [
        item.title,
        item.subject,
        ...PRESETS.map((preset) => cellOf(item, preset)),
        others
          .filter((chapter) => chapter.item === item.name)
          .map(({ preset, results }) => `${preset}: ${results}`)
          .join(", "),
      ]),
      ...others
        .filter(({ item }) => items.every(({ name }) => name !== item))
        .map(({ item, preset, results }) => [itemTitle(item), "", "", "", "", `${preset}: ${results}`]),
    ],
  };
}

function verdictTable(chapters: readonly ItemChapter[]): string[] {
  const judged = chapters.filter(({ verdicts: { holds, not, open } }) => holds + not + open > 0);
  if (judged.length === 0) return [];
  const table: Table = {
    columns: [
      { title: "chapter" },
      { title: "preset" },
      right("hold"),
      right("do not"),
      right("cannot be told"),
    ],
    rows: judged.map(({ title, preset, verdicts: { holds, not, open } }) => [
      title,
      preset,
      `${holds}`,
      `${not}`,
      `${open}`,
    ]),
  };
  return [
    htmlHeading("The paper's claims, by chapter"),
    htmlTable(table, "Verdicts on the paper's claims in every chapter"),
    htmlParagraph(
      "Every verdict is about its chapter's model, data and recipe; each stands there with its numbers.",
    ),
  ];
}

export function brokenChapter(problems: readonly string[]): Chapter {
  return {
    title: `Files that are not shown (${problems.length})`,
    scope: "These files are broken or foreign; whatever they hold is missing from every table below.",
    body: [htmlList(problems)],
  };
}
