/** Instruction records: what every data file becomes, checked field by field. */
import { readFileSync, statSync } from "node:fs";
import { InputError, messageOf, Problems } from "../errors.ts";

/** One task with its wanted reply. */
export interface InstructionRecord {
  readonly instruction: string;
  /** Context of the task; "" where there is none. */
  readonly input: string;
  /** The reply as it is trained on. */
  readonly output: string;
  /** What an evaluation compares with; "" in files that have no such field (Alpaca). */
  readonly answer: string;
}

/** The tokenizer as this folder needs it: ids of a text, special tokens left to the caller. */
export type Encode = (text: string) => number[];

export interface ReadOptions {
  /** Evaluation sets: every record must have a non-empty `answer`. */
  readonly requireAnswer?: boolean;
}

/** A text of this size still fits into one JavaScript string. */
const MAX_FILE_BYTES = 500_000_000;
const MAX_SHOWN = 60;
const LAYOUT = `a JSON array or JSON Lines of {"instruction", "input", "output"} objects`;

/**
 * Records of a JSON array or of a JSON Lines file.
 * @throws InputError naming file, record (counted from 1), field, value and what was expected, all mismatches at once.
 */
export function readInstructionRecords(path: string, options: ReadOptions = {}): InstructionRecord[] {
  const values = parseValues(readText(path), path);
  if (values.length === 0) throw new InputError(`${path}: holds no records; expected ${LAYOUT}`);
  const problems = new Problems();
  const records = values.map((value, i) => checkRecord(value, i + 1, options, problems));
  problems.throwIfAny(path, `Expected ${LAYOUT}; correct these records or leave them out.`);
  return records;
}

function readText(path: string): string {
  try {
    const { size } = statSync(path);
    if (size > MAX_FILE_BYTES) {
      throw new InputError(`${path}: ${size} bytes, expected at most ${MAX_FILE_BYTES}; split the file`);
    }
    return new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path));
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${path}: cannot be read as UTF-8 text (${messageOf(error)}); expected ${LAYOUT}`);
  }
}

function parseValues(text: string, path: string): unknown[] {
  const first = text.trimStart()[0];
  if (first === undefined) throw new InputError(`${path}: is empty; expected ${LAYOUT}`);
  if (first === "[") {
    const value = parseJson(text, path);
    if (Array.isArray(value)) return value;
  }
  if (first !== "{")
    throw new InputError(`${path}: begins with ${shown(text.trimStart())}; expected ${LAYOUT}`);
  const values: unknown[] = [];
  text.split("\n").forEach((line, i) => {
    if (line.trim() !== "") values.push(parseJson(line, `${path} line ${i + 1}`));
  });
  return values;
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InputError(`${where}: not valid JSON (${messageOf(error)}); expected ${LAYOUT}`);
  }
}

function checkRecord(
  value: unknown,
  number: number,
  options: ReadOptions,
  problems: Problems,
): InstructionRecord {
  const blank: InstructionRecord = { instruction: "", input: "", output: "", answer: "" };
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    problems.add(`record ${number} is ${shown(value)}, expected an object`);
    return blank;
  }
  const fields = new Map<string, unknown>(Object.entries(value));
  const text = (field: keyof InstructionRecord): string => {
    const found = fields.get(field);
    if (typeof found === "string") return found;
    const what = fields.has(field) ? `is ${shown(found)}` : "is missing";
    problems.add(`record ${number}: field "${field}" ${what}, expected a string`);
    return "?";
  };
  const record = {
    instruction: text("instruction"),
    input: text("input"),
    output: text("output"),
    answer: options.requireAnswer || fields.has("answer") ? text("answer") : "",
  };
  if (record.instruction === "") {
    problems.add(`record ${number}: field "instruction" is "", expected a text`);
  }
  if (options.requireAnswer && record.answer === "") {
    problems.add(`record ${number}: field "answer" is "", expected the right answer`);
  }
  return record;
}

/** A value short enough for an error message. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}
