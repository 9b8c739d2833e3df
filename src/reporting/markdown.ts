/** Reads our own Markdown back (table.ts writes it: headings, tables, paragraphs, pictures), for reports of whole folders. */
import type { Column, Section, Table } from "./table.ts";

/** A picture of its own line stands in none: whoever reads the folder shows it. */
export function readSections(markdown: string): Section[] {
  const sections: { title: string; table?: Table; paragraphs: string[] }[] = [];
  for (const block of markdown.split(/\n{2,}/).map((text) => text.trim())) {
    if (block === "" || /^!\[[^\]]*\]\([^)]*\)$/.test(block)) continue;
    const heading = /^#{1,3} (.*)$/.exec(block);
    if (heading) {
      sections.push({ title: heading[1]!, paragraphs: [] });
      continue;
    }
    const section = sections.at(-1) ?? { title: "", paragraphs: [] };
    if (sections.length === 0) sections.push(section);
    if (block.startsWith("|")) section.table = tableOf(block);
    else section.paragraphs.push(block.replaceAll("\n", " "));
  }
  return sections;
}

function tableOf(block: string): Table {
  const [head = [], rule = [], ...rows] = block.split("\n").map(cellsOf);
  const columns = head.map(
    (title, i): Column => (rule[i]?.endsWith(":") ? { title, align: "right" } : { title }),
  );
  return { columns, rows };
}

/** "| a | b\\|c |" -> a, b|c */
function cellsOf(line: string): string[] {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}
