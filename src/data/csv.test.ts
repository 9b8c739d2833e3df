import { describe, expect, test } from "bun:test";
import { csvText } from "../reporting/csv.ts";
import { parseCsv } from "./csv.ts";

const fields = (text: string): readonly (readonly string[])[] =>
  parseCsv(text, "a.csv").map((row) => row.fields);

describe("parseCsv", () => {
  test("plain and quoted fields, empty ones, both line ends, with and without the last", () => {
    expect(fields("a,b,c\n")).toEqual([["a", "b", "c"]]);
    expect(fields('a,"b,\n""c""",\r\n,x,')).toEqual([
      ["a", 'b,\n"c"', ""],
      ["", "x", ""],
    ]);
    expect(fields('""\n')).toEqual([[""]]);
    expect(fields("\uFEFFa\nb")).toEqual([["a"], ["b"]]);
    expect(fields("")).toEqual([]);
    // An empty line is a row of one empty field: whoever counts fields will say so.
    expect(fields("a\n\nb\n")).toEqual([["a"], [""], ["b"]]);
    expect(fields("a\rb,c")).toEqual([["a\rb", "c"]]);
  });

  test("rows know their line, breaks inside fields counted", () => {
    expect(parseCsv('a\n"x\ny\r\nz",b\nc\n', "a.csv").map(({ line }) => line)).toEqual([1, 2, 5]);
  });

  test("what our writer writes comes back", () => {
    const rows = [
      ['say "no"', "1,5", "two\nlines", "", " x "],
      ["\r\n", '"', ",", "plain", "é"],
    ];
    const [first, ...rest] = rows as [string[], ...string[][]];
    expect(fields(csvText(first, rest))).toEqual(rows);
  });

  test.each([
    ['a,b"c\n', 'a.csv line 1: a quote stands inside the field "b\\""'],
    ['a\n"b" c,d\n', 'a.csv line 2: " c,d'],
    ['a\n"b\nc" c\n', "a.csv line 3:"],
    ['a\nb,"c,d\n', "a.csv line 2: the quoted field"],
  ])("%j is refused", (text, message) => {
    expect(() => parseCsv(text, "a.csv")).toThrow(message);
  });
});
