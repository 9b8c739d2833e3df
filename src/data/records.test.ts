import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../errors.ts";
import { readInstructionRecords } from "./records.ts";

const folder = mkdtempSync(join(tmpdir(), "sbora-records-"));
afterAll(() => rmSync(folder, { recursive: true }));

const good = { instruction: "Add 1 and 2.", input: "", output: "The answer is 3.", answer: "3" };

function file(content: string | Uint8Array, name = "data.json"): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

function complaint(content: string | Uint8Array, options = {}): string {
  const path = file(content);
  try {
    readInstructionRecords(path, options);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    const { message } = error as InputError;
    expect(message).toStartWith(path);
    return message.slice(path.length);
  }
  throw new Error("nothing was thrown");
}

describe("readInstructionRecords", () => {
  test("a JSON array", () => {
    expect(readInstructionRecords(file(JSON.stringify([good, good])))).toEqual([good, good]);
  });

  test("JSON Lines, with a byte order mark, blank lines and other fields", () => {
    const line = JSON.stringify({ ...good, id: 7 });
    expect(readInstructionRecords(file(`\uFEFF${line}\r\n\n${line}\n`, "data.jsonl"))).toEqual([good, good]);
  });

  test("Alpaca's records have no answer", () => {
    const { answer: _, ...alpaca } = good;
    expect(readInstructionRecords(file(JSON.stringify([alpaca])))).toEqual([{ ...alpaca, answer: "" }]);
    expect(complaint(JSON.stringify([alpaca]), { requireAnswer: true })).toContain(
      'record 1: field "answer" is missing, expected a string',
    );
  });

  test("names every missing field and wrong type at once", () => {
    const { output: _, ...missing } = good;
    const message = complaint(JSON.stringify([good, missing, { ...good, input: null, answer: 3 }, "text"]));
    expect(message).toContain('record 2: field "output" is missing, expected a string');
    expect(message).toContain('record 3: field "input" is null, expected a string');
    expect(message).toContain('record 3: field "answer" is 3, expected a string');
    expect(message).toContain('record 4 is "text", expected an object');
  });

  test("an empty instruction, an empty answer where one is needed", () => {
    const message = complaint(JSON.stringify([{ ...good, instruction: "", answer: "" }]), {
      requireAnswer: true,
    });
    expect(message).toContain('field "instruction" is ""');
    expect(message).toContain('field "answer" is ""');
  });

  test("files that hold no records", () => {
    expect(complaint("")).toContain("is empty");
    expect(complaint(" \n ")).toContain("is empty");
    expect(complaint("[]")).toContain("holds no records");
    expect(complaint("instruction,output\n")).toContain("begins with");
  });

  test("broken JSON and broken text", () => {
    expect(complaint('[{"instruction": ')).toContain("not valid JSON");
    expect(complaint(`${JSON.stringify(good)}\n{"instruction": 1`)).toContain("line 2: not valid JSON");
    expect(complaint(Uint8Array.of(0x5b, 0xff, 0x5d))).toContain("UTF-8");
  });

  test("a file that is not there", () => {
    expect(() => readInstructionRecords(join(folder, "none.json"))).toThrow(InputError);
    expect(() => readInstructionRecords(folder)).toThrow(InputError);
  });
});
