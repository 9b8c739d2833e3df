import { expect, test } from "bun:test";
import { htmlDetails, htmlPage, htmlSection } from "./html.ts";
import { readSections } from "./markdown.ts";
import { markdownSections, right, type Section } from "./table.ts";

const sections: Section[] = [
  {
    title: "Ours & theirs",
    table: {
      columns: [{ title: "claim" }, { title: "verdict" }, right("here")],
      rows: [
        ["a|b < c", "holds", "1.0"],
        ["d", "does not hold", "–"],
      ],
    },
    paragraphs: ["One run.", "– means missing."],
  },
  { title: "Notes", paragraphs: [] },
];

test("Markdown that we wrote is read back as it was; pictures are left out", () => {
  expect(readSections(`![title](picture.svg)\n\n${markdownSections(sections)}`)).toEqual(sections);
});

test("a page: every chapter linked, every word escaped, verdicts marked, nothing loaded", () => {
  const body = [...sections.map(htmlSection), htmlDetails("cell", '{"a": "<b>"}')];
  const page = htmlPage("Results", ["Lead."], [{ title: "Table 3 <small>", body }]);
  expect(page).toContain("a|b &lt; c");
  expect(page).toContain('<td class="holds">holds</td><td class="right">1.0</td>');
  expect(page).toContain('<td class="not">does not hold</td>');
  expect(page).toContain('<a href="#c0">Table 3 &lt;small&gt;</a>');
  expect(page).toContain("{&quot;a&quot;: &quot;&lt;b&gt;&quot;}");
  expect(page).not.toMatch(/src=|<link|@import|url\(/);
  let tables = 0;
  let ids = 0;
  new HTMLRewriter()
    .on("table", { element: () => void tables++ })
    .on("h2[id=c0]", { element: () => void ids++ })
    .transform(page);
  expect([tables, ids]).toEqual([1, 1]);
});

test("a line between groups spans the table", () => {
  const table = { columns: [{ title: "a" }, { title: "b" }], rows: [["1", "2"], "line" as const] };
  expect(htmlSection({ title: "t", table, paragraphs: [] })).toContain('<tr class="line"><td colspan="2">');
});
