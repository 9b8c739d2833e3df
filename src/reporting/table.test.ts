import { expect, test } from "bun:test";
import {
  MISSING,
  markdownSections,
  markdownTable,
  right,
  type Table,
  textSections,
  textTable,
  wrapped,
} from "./table.ts";

const table: Table = {
  columns: [{ title: "method" }, right("BoolQ")],
  rows: [["LoRA", "66.8"], "line", ["SBoRA-FA", MISSING]],
};

test("text: columns as wide as their widest cell, numbers to the right", () => {
  expect(textTable(table).split("\n")).toEqual([
    "method    BoolQ",
    "───────────────",
    "LoRA       66.8",
    "───────────────",
    "SBoRA-FA      –",
  ]);
});

test("Markdown: alignment row, bars escaped, no group lines", () => {
  const rows = [...table.rows, ["a|b", "1"]];
  expect(markdownTable({ ...table, rows }).split("\n")).toEqual([
    "| method | BoolQ |",
    "|---|---:|",
    "| LoRA | 66.8 |",
    "| SBoRA-FA | – |",
    "| a\\|b | 1 |",
  ]);
});

test("wrapped lines keep to the width, and no word is lost", () => {
  const text = "one two three four five six seven";
  const lines = wrapped(text, 12, 2).split("\n");
  expect(lines.every((line) => line.length <= 12)).toBe(true);
  expect(lines.slice(1).every((line) => line.startsWith("  "))).toBe(true);
  expect(lines.map((line) => line.trim()).join(" ")).toBe(text);
});

test("sections: title, table, paragraphs, in both forms", () => {
  const sections = [
    { title: "Ours", table, paragraphs: ["One run."] },
    { title: "Notes", paragraphs: [] },
  ];
  expect(textSections(sections)).toBe(`Ours\n${textTable(table)}\nOne run.\n\nNotes`);
  expect(markdownSections(sections)).toBe(`## Ours\n\n${markdownTable(table)}\n\nOne run.\n\n## Notes\n`);
});
