import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../errors.ts";
import { type FlanOptions, flanFiles, flanQuotas, readFlan } from "./flan.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-flan-"));
afterAll(() => rmSync(dir, { recursive: true }));

const row = (source: string, template: string, inputs: string, targets = "yes") =>
  JSON.stringify({ inputs, targets, task_source: source, task_name: "t", template_type: template });

function file(name: string, lines: readonly string[]): string {
  const path = join(dir, name);
  writeFileSync(path, lines.map((line) => `${line}\n`).join(""));
  return path;
}

const options: FlanOptions = {
  characters: { source: 20, target: 5 },
  quotas: { P3_zs_opt: 3, CoT_fs_opt: 2 },
  seed: 42,
};

test("the published mixture has 50,000 rows of fourteen kinds", () => {
  const counts = Object.values(flanQuotas);
  expect([counts.length, counts.reduce((a, b) => a + b, 0)]).toEqual([14, 50_000]);
});

describe("readFlan", () => {
  const many = Array.from({ length: 300 }, (_, i) => row("P3", "zs_opt", `question ${i}`));
  test("draws each kind's quota, without replacement, by the seed; long rows and other kinds are left out", () => {
    const path = file("a.jsonl", [
      row("CoT", "fs_opt", "x".repeat(20)),
      row("CoT", "fs_opt", "x".repeat(21)),
      row("CoT", "fs_opt", "short", "target"),
      row("NIv2", "zs_opt", "another kind"),
      "",
      ...many,
    ]);
    const { records, short, read } = readFlan([path], options);
    expect(read).toBe(304);
    expect(short).toEqual({ CoT_fs_opt: 1 });
    expect(records).toHaveLength(4);
    expect(records.at(-1)).toEqual({ instruction: "x".repeat(20), input: "", output: "yes", answer: "" });
    const first = records.slice(0, 3).map(({ instruction }) => instruction);
    expect(new Set(first).size).toBe(3);
    expect(readFlan([path], options).records).toEqual(records);
    const others = readFlan([path], { ...options, seed: 1 }).records.map(({ instruction }) => instruction);
    expect(others).not.toEqual(records.map(({ instruction }) => instruction));
  });

  test("what is kept does not depend on when the surplus is thrown away", () => {
    const path = file("b.jsonl", many);
    const all = readFlan([path], { ...options, quotas: { P3_zs_opt: 300 } }).records;
    const few = readFlan([path], { ...options, quotas: { P3_zs_opt: 7 } }).records;
    expect(few).toEqual(all.slice(0, 7));
  });

  test("a folder's files are read by name; characters of several bytes at a chunk's end stay whole", () => {
    const wide = "ä漢".repeat(200_000);
    const folder = join(dir, "folder");
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    writeFileSync(join(folder, "2.jsonl"), `${row("P3", "zs_opt", "second")}\n`);
    writeFileSync(join(folder, "1.jsonl"), `${row("P3", "zs_opt", wide)}\n${row("P3", "zs_opt", "first")}`);
    writeFileSync(join(folder, "README.md"), "no data");
    const files = flanFiles(folder);
    expect(files.map((path) => path.slice(-7))).toEqual(["1.jsonl", "2.jsonl"]);
    const loose = { ...options, characters: { source: 1e6, target: 5 } };
    const texts = readFlan(files, loose).records.map(({ instruction }) => instruction);
    expect(texts.sort()).toEqual(["first", "second", wide].sort());
  });

  test("damaged rows and empty samples are refused with file and line", () => {
    expect(() => readFlan([file("c.jsonl", [row("P3", "zs_opt", "x"), "{"])], options)).toThrow(
      /c\.jsonl line 2: not valid JSON/,
    );
    expect(() => readFlan([file("d.jsonl", ['{"inputs": 1, "task_source": "P3"}'])], options)).toThrow(
      /d\.jsonl line 1: field "template_type" is missing, expected a string/,
    );
    expect(() => readFlan([file("e.jsonl", [row("NIv2", "zs_opt", "x")])], options)).toThrow(
      /of 1 rows none has/,
    );
    expect(() => flanFiles(join(dir, "nowhere"))).toThrow(InputError);
  });
});
