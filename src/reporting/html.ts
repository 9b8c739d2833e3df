/**
 * Reports as one HTML file: chapters of tables, pictures and folded details, light or dark as the reader has it, on a
 * phone too. Nothing is loaded, nothing runs; all text is escaped here, so whoever builds a page passes plain text.
 */
import { PAGE_STYLE } from "./page-style.ts";
import { escaped, STYLE } from "./svg.ts";
import type { Section, Table } from "./table.ts";

export interface Chapter {
  readonly title: string;
  /** A word beside the title that tells chapters of one kind apart. */
  readonly badge?: string;
  /** What the reader must know before any figure of the chapter. */
  readonly scope?: string;
  /** HTML. */
  readonly body: readonly string[];
}

export function htmlPage(title: string, lead: readonly string[], chapters: readonly Chapter[]): string {
  const links = chapters.map(
    ({ title: name, badge }, i) => `<li><a href="#c${i}">${escaped(name)}</a>${badgeOf(badge)}</li>`,
  );
  return [
    "<!doctype html>",
    '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">',
    // Whatever a file smuggles in: the page loads nothing and runs nothing.
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">`,
    '<link rel="icon" href="data:,">',
    `<title>${escaped(title)}</title><style>${PAGE_STYLE}\n${STYLE}</style></head><body>`,
    `<header><h1>${escaped(title)}</h1>`,
    ...lead.map(htmlParagraph),
    "</header>",
    `<nav aria-label="Contents"><ol>${links.join("")}</ol></nav>`,
    "<main>",
    ...chapters.map(chapterOf),
    "</main></body></html>\n",
  ].join("\n");
}

function chapterOf({ title, badge, scope, body }: Chapter, i: number): string {
  const said = scope === undefined ? "" : `<p class="scope">${escaped(scope)}</p>\n`;
  return `<section aria-labelledby="c${i}"><h2 id="c${i}">${escaped(title)}${badgeOf(badge)}</h2>\n${said}${body.join("\n")}</section>`;
}

function badgeOf(badge: string | undefined): string {
  return badge === undefined ? "" : ` <span class="badge">${escaped(badge)}</span>`;
}

/** The section's title is the table's caption; a `heading` is a shorter one that stands above both. */
export function htmlSection({ title, table, paragraphs }: Section, heading?: string): string {
  return [
    `<h3>${escaped(heading ?? title)}</h3>`,
    ...(table ? [htmlTable(table, title, heading !== undefined)] : []),
    ...paragraphs.map(htmlParagraph),
  ].join("\n");
}

export function htmlHeading(text: string): string {
  return `<h3>${escaped(text)}</h3>`;
}

export function htmlParagraph(text: string): string {
  return `<p>${escaped(text)}</p>`;
}

export function htmlList(items: readonly string[]): string {
  return `<ul>${items.map((item) => `<li>${escaped(item)}</li>`).join("\n")}</ul>`;
}

/** Lines for a shell, or anything else that is to be copied as it is. */
export function htmlCode(text: string): string {
  return `<pre tabindex="0"><code>${escaped(text)}</code></pre>`;
}

/** Names with what they stand for. */
export function htmlFacts(facts: readonly (readonly [name: string, value: string])[]): string {
  const rows = facts.map(([name, value]) => `<dt>${escaped(name)}</dt><dd>${escaped(value)}</dd>`);
  return `<dl>${rows.join("\n")}</dl>`;
}

/** Verdicts of the paper's claims have a sign and a colour besides their words. */
const VERDICTS: Readonly<Record<string, readonly [kind: string, sign: string]>> = {
  holds: ["holds", "✓"],
  "does not hold": ["not", "✗"],
  "cannot be told": ["open", "?"],
};

/** @param seen whether the caption is shown; else it is there for screen readers alone, who jump from table to table */
export function htmlTable({ columns, rows }: Table, caption: string, seen = false): string {
  const right = (i: number): string => (columns[i]?.align === "right" ? ' class="right"' : "");
  const cell = (text: string, i: number): string =>
    i === 0 ? `<th scope="row"${right(i)}>${escaped(text)}</th>` : `<td${right(i)}>${contentOf(text)}</td>`;
  const body = rows.map((row) =>
    row === "line"
      ? `<tr class="line"><td colspan="${columns.length}"></td></tr>`
      : `<tr>${columns.map((_, i) => cell(row[i] ?? "", i)).join("")}</tr>`,
  );
  const head = columns.map(({ title }, i) =>
    title === "" ? "<td></td>" : `<th scope="col"${right(i)}>${escaped(title)}</th>`,
  );
  return [
    // A table that is wider than a phone is moved by touch, mouse or arrow keys.
    `<div class="wide" tabindex="0" role="region" aria-label="${escaped(caption)}"><table${isClaims(columns) ? ' class="claims"' : ""}>`,
    `<caption${seen ? "" : ' class="unseen"'}><span>${escaped(caption)}</span></caption>`,
    `<thead><tr>${head.join("")}</tr></thead><tbody>`,
    ...body,
    "</tbody></table></div>",
  ].join("\n");
}

/** Claims are sentences: their tables are laid out for words. */
function isClaims(columns: Table["columns"]): boolean {
  return columns[0]?.title === "claim";
}

/** Where nothing is; greyed, so that what is there stands out. */
const ABSENT = ["not run", "–"];

function contentOf(text: string): string {
  if (ABSENT.includes(text)) return `<span class="absent">${escaped(text)}</span>`;
  const verdict = Object.hasOwn(VERDICTS, text) ? VERDICTS[text] : undefined;
  if (!verdict) return escaped(text);
  const [kind, sign] = verdict;
  return `<span class="verdict ${kind}"><span aria-hidden="true">${sign}</span> ${escaped(text)}</span>`;
}

/** A picture that we have just drawn stands in the page itself; the page has its style already. */
export function htmlPicture(svg: string, caption?: string): string {
  const shown = caption === undefined ? "" : `<figcaption>${escaped(caption)}</figcaption>`;
  return `<figure>${svg.trim().replace(`<style>${STYLE}</style>\n`, "")}${shown}</figure>`;
}

/** A picture from a file: shown as an image, where nothing in it can run or reach the page. */
export function htmlImage(svg: string, alt: string): string {
  const address = `data:image/svg+xml;base64,${Buffer.from(svg).toString("base64")}`;
  return `<figure class="wide" tabindex="0" role="region" aria-label="${escaped(alt)}"><img alt="${escaped(alt)}" src="${address}"></figure>`;
}

/** Pictures beside each other as far as the window is wide. */
export function htmlGrid(figures: readonly string[]): string {
  return `<div class="gallery">${figures.join("\n")}</div>`;
}

export function htmlFold(summary: string, body: readonly string[]): string {
  return `<details><summary>${escaped(summary)}</summary>\n${body.join("\n")}</details>`;
}

/** A whole section behind its title. */
export function htmlFolded({ title, table, paragraphs }: Section): string {
  return htmlFold(title, [...(table ? [htmlTable(table, title)] : []), ...paragraphs.map(htmlParagraph)]);
}
