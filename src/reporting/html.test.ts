import { expect, test } from "bun:test";
import { htmlFacts, htmlFold, htmlImage, htmlPage, htmlPicture, htmlSection } from "./html.ts";
import { readSections } from "./markdown.ts";
import { STYLE, svgPage, text } from "./svg.ts";
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

test("a page: every chapter linked, every word escaped, verdicts marked, nothing loaded", async () => {
  const body = [
    ...sections.map((section) => htmlSection(section)),
    htmlFold("<cell>", [htmlFacts([["<a>", "<b>"]])]),
  ];
  const chapter = { title: "Table 3 <small>", badge: "<small>", scope: "Not <the> paper's.", body };
  const page = htmlPage("Results", ["Lead."], [chapter]);
  expect(page).toContain("a|b &lt; c");
  expect(page).toContain("✓</span> holds</span></td>");
  expect(page).toContain('<span class="verdict not">');
  expect(page).toContain('<a href="#c0">Table 3 &lt;small&gt;</a>');
  expect(page).toContain("Not &lt;the&gt; paper's.");
  expect(page).toContain("<dt>&lt;a&gt;</dt><dd>&lt;b&gt;</dd>");
  expect(page).not.toMatch(/<small>|<cell>|<the>|src="(?!data:)|@import|url\(/);
  const seen = { table: 0, caption: 0, "h2[id=c0]": 0, "th[scope=row]": 0, "th[scope=col]": 0 };
  const rewriter = new HTMLRewriter();
  for (const name of Object.keys(seen) as (keyof typeof seen)[]) {
    rewriter.on(name, { element: () => void seen[name]++ });
  }
  rewriter.transform(page);
  expect(seen).toEqual({ table: 1, caption: 1, "h2[id=c0]": 1, "th[scope=row]": 2, "th[scope=col]": 3 });
});

test("a line between groups spans the table", () => {
  const table = { columns: [{ title: "a" }, { title: "b" }], rows: [["1", "2"], "line" as const] };
  expect(htmlSection({ title: "t", table, paragraphs: [] })).toContain('<tr class="line"><td colspan="2">');
});

test("our own pictures share the page's style; those from files are images, whatever they hold", () => {
  const inline = htmlPicture(svgPage(10, 10, "A & B", [text(1, 2, "<x>")]), "What it <shows>");
  expect(inline).not.toContain("<style>");
  expect(inline).toContain("<title>A &amp; B</title>");
  expect(inline).toContain("<figcaption>What it &lt;shows&gt;</figcaption>");
  expect(htmlPage("t", [], [])).toContain(STYLE);
  const foreign = htmlImage("<svg><script>alert(1)</script></svg>", 'a "picture"');
  expect(foreign).not.toContain("<script");
  expect(foreign).toContain('alt="a &quot;picture&quot;"');
});

test("control characters, which XML does not have, are shown as unknown", () => {
  expect(text(0, 0, "a\u0000b\u001b[31m\tc")).toContain(">a\ufffdb\ufffd[31m\tc<");
});
