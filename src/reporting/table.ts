/** Tables for a terminal and for a Markdown file from the same rows. */

export interface Column {
  readonly title: string;
  /** Numbers stand to the right. Default: left. */
  readonly align?: "left" | "right";
}

export interface Table {
  readonly columns: readonly Column[];
  /** A row, or a line between groups of rows. */
  readonly rows: readonly (readonly string[] | "line")[];
}

/** A titled table with what is to be said below it. */
export interface Section {
  readonly title: string;
  readonly table?: Table;
  readonly paragraphs: readonly string[];
}

/** A column of numbers. */
export const right = (title: string): Column => ({ title, align: "right" });

/** Where a number is missing: a test set that is not there, an average of nothing. */
export const MISSING = "–";

/** Columns padded to their widest cell. */
export function textTable({ columns, rows }: Table): string {
  const widths = columnWidths({ columns, rows });
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ align }, i) => pad(cells[i] ?? "", widths[i]!, align))
      .join("  ")
      .trimEnd();
  const rule = widths.map((width) => "─".repeat(width)).join("──");
  const body = rows.map((row) => (row === "line" ? rule : line(row)));
  return [line(columns.map(({ title }) => title)), rule, ...body].join("\n");
}

/** GitHub's Markdown; lines between groups are left out, Markdown has none. */
export function markdownTable({ columns, rows }: Table): string {
  const cell = (text: string): string => text.replaceAll("|", "\\|");
  const line = (cells: readonly string[]): string =>
    `| ${columns.map((_, i) => cell(cells[i] ?? "")).join(" | ")} |`;
  const rule = `|${columns.map(({ align }) => (align === "right" ? "---:" : "---")).join("|")}|`;
  return [
    line(columns.map(({ title }) => title)),
    rule,
    ...rows.filter((row) => row !== "line").map(line),
  ].join("\n");
}

function columnWidths({ columns, rows }: Table): number[] {
  return columns.map(({ title }, i) => {
    const cells = rows.map((row) => (row === "line" ? "" : (row[i] ?? "")));
    return Math.max(...[title, ...cells].map(displayWidth));
  });
}

function pad(text: string, width: number, align: Column["align"]): string {
  const space = " ".repeat(width - displayWidth(text));
  return align === "right" ? space + text : text + space;
}

/** Cells hold Latin letters, Greek letters and signs: one column a code point. */
function displayWidth(text: string): number {
  return [...text].length;
}

/** Breaks a paragraph into lines of at most `width`; continued lines stand below the text of the first. */
export function wrapped(text: string, width = 100, indent = 0): string {
  const lines: string[] = [];
  let current = "";
  for (const word of text.split(" ")) {
    if (current !== "" && current.length + 1 + word.length > width - (lines.length > 0 ? indent : 0)) {
      lines.push(current);
      current = word;
    } else current = current === "" ? word : `${current} ${word}`;
  }
  return [...lines, current].join(`\n${" ".repeat(indent)}`);
}

const TEXT_WIDTH = 118;

export function textSections(sections: readonly Section[]): string {
  return sections
    .map(({ title, table, paragraphs }) => {
      const shown = paragraphs.map((text) => wrapped(text, TEXT_WIDTH, 2));
      return [wrapped(title, TEXT_WIDTH), ...(table ? [textTable(table)] : []), ...shown].join("\n");
    })
    .join("\n\n");
}

export function markdownSections(sections: readonly Section[]): string {
  const blocks = sections.flatMap(({ title, table, paragraphs }) => [
    `## ${title}`,
    ...(table ? [markdownTable(table)] : []),
    ...paragraphs,
  ]);
  return `${blocks.join("\n\n")}\n`;
}
