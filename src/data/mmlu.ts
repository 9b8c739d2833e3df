/**
 * MMLU's questions, from Hendrycks' CSV files (`dev/`, `val/`, `test/`: question, four options, letter) or from the JSON
 * form of the 4-bit experiments (`five_shot_mmlu_{val,test}.json`, protocol §4.4), whose prompts hold their shots already.
 * Both become the same: a header, solved questions, and the question up to "Answer:".
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { InputError, messageOf, Problems } from "../errors.ts";
import { withFile } from "../formats/files.ts";
import { type CsvRow, parseCsv } from "./csv.ts";

export const letters = ["A", "B", "C", "D"] as const;
export type Letter = (typeof letters)[number];

/** In the order they are reported. */
export const mmluSplits = ["val", "test"] as const;
export type MmluSplit = (typeof mmluSplits)[number];

export interface MmluQuestion {
  /** Solved questions that may stand in front, each with its blank line; of a CSV subject one array for all. */
  readonly shots: readonly string[];
  /** The question up to "Answer:". */
  readonly text: string;
  readonly answer: Letter;
}

export interface MmluSubject {
  /** As files name it: "high_school_biology". */
  readonly subject: string;
  /** What every prompt of the subject begins with, its blank line included. */
  readonly header: string;
  /** In the order of the file. */
  readonly questions: readonly MmluQuestion[];
}

export interface MmluSet {
  readonly form: "csv" | "json";
  /** By name. */
  readonly subjects: readonly MmluSubject[];
  /** What it was read from, for hashes. */
  readonly files: readonly string[];
}

export interface ReadMmluOptions {
  /** Solved questions in front: so many rows dev files must have. */
  readonly shots: number;
  /** Only these subjects. */
  readonly subjects?: readonly string[];
}

/** The JSON form of the test set, its shots repeated in every prompt, is about 50 MB. */
const MAX_FILE_BYTES = 256 << 20;

/** Where MMLU may lie below a data folder: itself, a folder of its own, or the checkout it comes from. */
const FOLDERS = ["", "mmlu", "data/mmlu", "data"];

/** The set of one split below a data folder; null when it is not there. @throws InputError for damaged files */
export function readMmlu(root: string, split: MmluSplit, options: ReadMmluOptions): MmluSet | null {
  for (const folder of FOLDERS) {
    const json = join(root, folder, `five_shot_mmlu_${split}.json`);
    if (existsSync(json)) return readJsonSet(json, options);
    const dir = join(root, folder, split);
    if (csvNames(dir, split).length > 0) return readCsvSet(join(root, folder), split, options);
  }
  return null;
}

/** What users see where neither form was found. */
export function mmluPlaces(root: string): string {
  return `${root}/mmlu/test/<subject>_test.csv with ${root}/mmlu/dev/<subject>_dev.csv, or ${root}/mmlu/five_shot_mmlu_test.json`;
}

function csvNames(dir: string, split: MmluSplit): string[] {
  if (!existsSync(dir)) return [];
  const end = `_${split}.csv`;
  const names = readdirSync(dir).filter((name) => name.endsWith(end) && !name.startsWith("."));
  return names.map((name) => name.slice(0, -end.length)).sort();
}

function chosen(names: readonly string[], where: string, { subjects }: ReadMmluOptions): string[] {
  if (!subjects) return [...names];
  const unknown = subjects.filter((subject) => !names.includes(subject));
  if (unknown.length === 0) return names.filter((name) => subjects.includes(name));
  throw new InputError(`${where}: there is no subject ${unknown.join(", ")}; expected ${names.join(", ")}.`);
}

function readCsvSet(root: string, split: MmluSplit, options: ReadMmluOptions): MmluSet {
  const dir = join(root, split);
  const names = chosen(csvNames(dir, split), dir, options);
  const problems = new Problems();
  const files: string[] = [];
  const subjects = names.map((subject): MmluSubject => {
    const path = join(dir, `${subject}_${split}.csv`);
    const dev = join(root, "dev", `${subject}_dev.csv`);
    const items = readItems(path);
    const solved = existsSync(dev) ? readItems(dev) : [];
    if (solved.length < options.shots) {
      const found = existsSync(dev) ? `has ${solved.length} rows` : "is not there";
      problems.add(`${subject} has questions, but ${dev} ${found}, expected ${options.shots} solved ones`);
    }
    if (items.length === 0) problems.add(`${path} holds no questions`);
    files.push(path, dev);
    const shots = solved.slice(0, options.shots).map(({ text, answer }) => `${text} ${answer}\n\n`);
    return { subject, header: headerOf(subject), questions: items.map((item) => ({ shots, ...item })) };
  });
  problems.throwIfAny(dir, "Complete the dev folder, or leave these subjects out (--subjects).");
  return { form: "csv", subjects, files };
}

/** Two spaces before the subject, as in the published prompts. */
function headerOf(subject: string): string {
  return `The following are multiple choice questions (with answers) about  ${subject.replaceAll("_", " ")}.\n\n`;
}

type Item = Omit<MmluQuestion, "shots">;

const COLUMNS = ["question", "option A", "option B", "option C", "option D", "answer"];

function readItems(path: string): Item[] {
  const problems = new Problems();
  const items = parseCsv(readText(path), path).map((row) => itemOf(row, problems));
  problems.throwIfAny(path, `Expected the ${COLUMNS.length} fields ${COLUMNS.join(", ")} in every row.`);
  return items;
}

function itemOf({ line, fields }: CsvRow, problems: Problems): Item {
  if (fields.length !== COLUMNS.length) {
    problems.add(
      `line ${line} has ${fields.length} field${fields.length === 1 ? "" : "s"}, expected ${COLUMNS.length}`,
    );
    return { text: "", answer: "A" };
  }
  const [question, ...rest] = fields as [string, ...string[]];
  const answer = letters.find((letter) => letter === rest[4]);
  if (!answer) problems.add(`line ${line}: the answer is ${shown(rest[4]!)}, expected A, B, C or D`);
  if (question.trim() === "") problems.add(`line ${line}: the question is empty`);
  const options = letters.map((letter, i) => `\n${letter}. ${rest[i]}`);
  return { text: `${question}${options.join("")}\nAnswer:`, answer: answer ?? "A" };
}

function readJsonSet(path: string, options: ReadMmluOptions): MmluSet {
  const problems = new Problems();
  const bySubject = new Map<string, { header: string; questions: MmluQuestion[] }>();
  parseArray(path).forEach((value, i) => {
    const record = recordOf(value, i + 1, problems);
    if (!record) return;
    const { header, ...question } = partsOf(record.input, record.output);
    const known = bySubject.get(record.subject) ?? { header, questions: [] };
    bySubject.set(record.subject, known);
    if (header !== known.header)
      problems.add(
        `record ${i + 1} begins with ${shown(header)}, the other prompts of ${record.subject} with ${shown(known.header)}`,
      );
    known.questions.push(question);
  });
  problems.throwIfAny(path, 'Expected a JSON array of {"subject", "input", "output"} objects.');
  const names = chosen([...bySubject.keys()].sort(), path, options);
  if (names.length === 0) throw new InputError(`${path}: holds no records.`);
  const subjects = names.map((subject) => ({ subject, ...bySubject.get(subject)! }));
  return { form: "json", subjects, files: [path] };
}

/** A baked prompt taken apart behind every "Answer: X" with its blank line; joined again it is the same text. */
function partsOf(input: string, answer: Letter): MmluQuestion & { readonly header: string } {
  const end = input.indexOf("\n\n");
  const header = end < 0 ? "" : input.slice(0, end + 2);
  const pieces = input.slice(header.length).split(/(?<=\nAnswer: [A-D]\n\n)/);
  return { header, shots: pieces.slice(0, -1), text: pieces.at(-1)!, answer };
}

function recordOf(
  value: unknown,
  number: number,
  problems: Problems,
): { subject: string; input: string; output: Letter } | null {
  if (typeof value !== "object" || value === null) {
    problems.add(`record ${number} is ${shown(value)}, expected an object`);
    return null;
  }
  const fields = new Map<string, unknown>(Object.entries(value));
  const [subject, input] = ["subject", "input"].map((name) => {
    const field = fields.get(name);
    if (typeof field === "string" && field !== "") return field;
    problems.add(`record ${number}: field "${name}" is ${shown(field)}, expected a text`);
    return null;
  });
  const output = letters.find((letter) => letter === fields.get("output"));
  if (!output)
    problems.add(`record ${number}: field "output" is ${shown(fields.get("output"))}, expected A, B, C or D`);
  return subject && input && output ? { subject, input, output } : null;
}

function parseArray(path: string): unknown[] {
  let json: unknown;
  try {
    json = JSON.parse(readText(path));
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${path}: not valid JSON (${messageOf(error)}).`);
  }
  if (Array.isArray(json)) return json;
  throw new InputError(`${path}: expected a JSON array of {"subject", "input", "output"} objects.`);
}

function readText(path: string): string {
  return withFile(path, (fd, bytes) => {
    if (bytes > MAX_FILE_BYTES)
      throw new InputError(`${path}: ${bytes} bytes, expected at most ${MAX_FILE_BYTES}.`);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(readFileSync(fd));
    } catch (error) {
      throw new InputError(`${path}: is not UTF-8 text (${messageOf(error)}); save it as UTF-8.`);
    }
  });
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
