import { expect, test } from "bun:test";
import { csvText } from "./csv.ts";

test("fields with commas, quotes or line ends are quoted, null is empty", () => {
  const rows = [
    ["a,b", 1.5],
    ['say "x"', null],
    ["two\nlines", -3],
  ];
  expect(csvText(["name", "value"], rows)).toBe('name,value\n"a,b",1.5\n"say ""x""",\n"two\nlines",-3\n');
});
