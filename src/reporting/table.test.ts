import { expect, test } from "bun:test";
import { MISSING, markdownTable, type Table, textTable, wrapped } from "./table.ts";

const table: Table = {
  columns: [{ title: "method" }, { title: "BoolQ", align: "right" }],
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
