/** Folders that other scripts write (Tables 1 and 2, Figure 2, Multi-SBoRA) as chapters: their Markdown, their pictures. */
import { htmlImage, htmlParagraph, htmlSection } from "../../src/reporting/html.ts";
import { readSections } from "../../src/reporting/markdown.ts";
import { type ItemChapter, verdictsIn } from "./chapter.ts";
import type { PageFolder } from "./collect.ts";
import { items, itemTitle, scopeOf } from "./items.ts";
import { madeSection } from "./made.ts";

export function pageChapter({ item, preset, markdown, pictures, made }: PageFolder): ItemChapter {
  const sections = markdown === null ? [] : readSections(markdown);
  const subject = items.find(({ name }) => name === item)?.subject;
  const title = `${itemTitle(item)}${subject ? `, ${subject}` : ""}`;
  const missing = `Its ${made.length} files are here, its table is not: run its command once more, finished files are skipped.`;
  return {
    item,
    preset,
    results: made.length > 0 ? `${made.length} file${made.length > 1 ? "s" : ""}` : "a page",
    verdicts: verdictsIn(sections),
    title,
    badge: `preset ${preset}`,
    scope: scopeOf(preset),
    body: [
      ...(markdown === null ? [htmlParagraph(missing)] : []),
      ...pictures.map((svg) =>
        htmlImage(svg, `Picture of ${title}, preset ${preset}; its figures stand below`),
      ),
      ...sections.map((section) => htmlSection(section)),
      ...madeSection(made),
    ],
  };
}
