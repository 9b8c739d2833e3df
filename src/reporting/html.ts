/** Reports as one HTML file: sections, pictures and folded details, light or dark as the reader has it, nothing loaded. */
import { escaped } from "./svg.ts";
import type { Section, Table } from "./table.ts";

const STYLE = `:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;margin:0 auto;max-width:76rem;padding:1.5rem;color:#1f2328;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.3rem;border-bottom:1px solid #d0d7de;margin-top:2.5rem}h3{font-size:1.05rem;margin-bottom:.4rem}
nav{columns:18rem}nav a{display:block}a{color:#0969da}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .6rem;text-align:left;white-space:nowrap;vertical-align:top}th{border-bottom:1px solid #8c959f}
.right{text-align:right}tr.line td{border-top:1px solid #d0d7de;padding:0}
.holds{color:#1a7f37}.not{color:#b35900}pre{overflow-x:auto;background:#f6f8fa;padding:.6rem;font-size:12px}
svg{max-width:100%;height:auto}figure{margin:1rem 0;overflow-x:auto}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}h2{border-color:#3d444d}a{color:#4493f8}
th{border-color:#656c76}tr.line td{border-color:#3d444d}.holds{color:#3fb950}.not{color:#f0883e}pre{background:#151b23}}`;

export interface Chapter {
  readonly title: string;
  /** HTML. */
  readonly body: readonly string[];
}

export function htmlPage(title: string, lead: readonly string[], chapters: readonly Chapter[]): string {
  const links = chapters.map(({ title: name }, i) => `<a href="#c${i}">${escaped(name)}</a>`);
  return [
    "<!doctype html>",
    '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">',
    `<title>${escaped(title)}</title><style>${STYLE}</style></head><body>`,
    `<h1>${escaped(title)}</h1>`,
    ...lead.map(htmlParagraph),
    `<nav>${links.join("")}</nav>`,
    ...chapters.map(
      ({ title: name, body }, i) =>
        `<section><h2 id="c${i}">${escaped(name)}</h2>\n${body.join("\n")}</section>`,
    ),
    "</body></html>\n",
  ].join("\n");
}

export function htmlSection({ title, table, paragraphs }: Section): string {
  return [
    `<h3>${escaped(title)}</h3>`,
    ...(table ? [htmlTable(table)] : []),
    ...paragraphs.map(htmlParagraph),
  ].join("\n");
}

export function htmlParagraph(text: string): string {
  return `<p>${escaped(text)}</p>`;
}

/** Verdicts of the paper's claims get a colour besides their words. */
const VERDICTS: Readonly<Record<string, string>> = { holds: "holds", "does not hold": "not" };

export function htmlTable({ columns, rows }: Table): string {
  const cell = (tag: string, text: string, i: number): string => {
    const classes = [columns[i]?.align === "right" ? "right" : "", VERDICTS[text] ?? ""].filter(Boolean);
    return `<${tag}${classes.length > 0 ? ` class="${classes.join(" ")}"` : ""}>${escaped(text)}</${tag}>`;
  };
  const body = rows.map((row) =>
    row === "line"
      ? `<tr class="line"><td colspan="${columns.length}"></td></tr>`
      : `<tr>${columns.map((_, i) => cell("td", row[i] ?? "", i)).join("")}</tr>`,
  );
  const head = columns.map(({ title }, i) => cell("th", title, i)).join("");
  return `<div class="wide"><table><thead><tr>${head}</tr></thead><tbody>\n${body.join("\n")}\n</tbody></table></div>`;
}

/** An SVG picture stands in the page itself. */
export function htmlPicture(svg: string): string {
  return `<figure>${svg.trim()}</figure>`;
}

export function htmlDetails(summary: string, text: string): string {
  return `<details><summary>${escaped(summary)}</summary><pre>${escaped(text)}</pre></details>`;
}
