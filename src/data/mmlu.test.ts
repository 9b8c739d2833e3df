import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { InputError } from "../errors.ts";
import { readMmlu } from "./mmlu.ts";

const root = mkdtempSync(join(tmpdir(), "sbora-mmlu-"));
afterAll(() => rmSync(root, { recursive: true }));

let folders = 0;
/** A data folder with these files. */
function folder(files: Readonly<Record<string, string>>): string {
  const dir = join(root, `${++folders}`);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), text);
  }
  return dir;
}

const dev = 'One?,a,b,c,d,A\n"Two, or\nthree?",1,2,3,4,C\n';
const files = {
  "mmlu/dev/us_history_dev.csv": dev,
  "mmlu/test/us_history_test.csv": 'Who?,"x, y",b,c,d,B\nWhen?,now,then,never,"""soon""",D\n',
};
const two = { shots: 2 };

describe("Hendrycks' CSV files", () => {
  test("header, shots and question as published: two spaces before the subject", () => {
    const set = readMmlu(folder(files), "test", two)!;
    expect(set.form).toBe("csv");
    expect(set.files.map((path) => path.split("/").slice(-2).join("/"))).toEqual([
      "test/us_history_test.csv",
      "dev/us_history_dev.csv",
    ]);
    const [subject] = set.subjects;
    expect(subject!.subject).toBe("us_history");
    expect(subject!.header).toBe(
      "The following are multiple choice questions (with answers) about  us history.\n\n",
    );
    const [first, second] = subject!.questions;
    expect(first!.shots).toEqual([
      "One?\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\n",
      "Two, or\nthree?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: C\n\n",
    ]);
    expect(second!.shots).toBe(first!.shots);
    expect(first).toMatchObject({ text: "Who?\nA. x, y\nB. b\nC. c\nD. d\nAnswer:", answer: "B" });
    expect(second!.text).toContain('\nD. "soon"\n');
    expect(readMmlu(folder(files), "test", { shots: 1 })!.subjects[0]!.questions[0]!.shots).toHaveLength(1);
  });

  test("a split that is not there is null; subjects can be chosen, unknown ones are named", () => {
    const dir = folder({ ...files, "mmlu/dev/b_dev.csv": dev, "mmlu/test/b_test.csv": "Q?,1,2,3,4,A\n" });
    expect(readMmlu(dir, "val", two)).toBeNull();
    const names = (subjects: string[]) =>
      readMmlu(dir, "test", { ...two, subjects })!.subjects.map(({ subject }) => subject);
    expect(names(["us_history"])).toEqual(["us_history"]);
    expect(names(["us_history", "b"])).toEqual(["b", "us_history"]);
    expect(() => names(["c"])).toThrow(/there is no subject c; expected b, us_history/);
  });

  const refused = (over: Record<string, string>): string => {
    try {
      readMmlu(folder({ ...files, ...over }), "test", two);
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
      return (error as Error).message;
    }
    return "nothing was thrown";
  };
  const path = "mmlu/test/us_history_test.csv";

  test("malformed rows: file, line, number of fields, value", () => {
    expect(refused({ [path]: 'Who?,a,b,c,d,B\n"two\nlines",a,b,c,A\n' })).toMatch(
      /us_history_test\.csv: line 2 has 5 fields, expected 6\./,
    );
    expect(refused({ [path]: "Who?,a,b,c,d,B\n\nWho?,a,b,c,d,E\n" })).toMatch(
      /line 2 has 1 field, expected 6; line 3: the answer is "E", expected A, B, C or D/,
    );
    expect(refused({ [path]: " ,a,b,c,d,B\n" })).toMatch(/line 1: the question is empty/);
    expect(refused({ [path]: 'Who?,a"b,b,c,d,B\n' })).toMatch(/us_history_test\.csv line 1: a quote stands/);
    expect(refused({ [path]: "" })).toMatch(/us_history_test\.csv holds no questions/);
    expect(refused({ "mmlu/dev/us_history_dev.csv": "x\n" })).toMatch(
      /us_history_dev\.csv: line 1 has 1 field/,
    );
  });

  test("a subject without dev rows, or with too few", () => {
    expect(refused({ "mmlu/test/other_test.csv": "Q?,1,2,3,4,A\n" })).toMatch(
      /other has questions, but .*other_dev\.csv is not there, expected 2 solved ones.*--subjects/,
    );
    expect(refused({ "mmlu/dev/us_history_dev.csv": "One?,a,b,c,d,A\n" })).toMatch(/has 1 rows, expected 2/);
  });
});

describe("the JSON form", () => {
  const header = "The following are multiple choice questions (with answers) about  us history.\n\n";
  const shots = [
    "One?\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\n",
    "Two?\n\nreally\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: C\n\n",
  ];
  const text = "Who?\nA. x\nB. b\nC. c\nD. d\nAnswer:";
  const record = { subject: "us_history", input: header + shots.join("") + text, output: "B" };
  const json = (records: unknown): string =>
    folder({ "mmlu/five_shot_mmlu_val.json": JSON.stringify(records) });

  test("the baked prompt comes apart, and is the same when joined again", () => {
    const set = readMmlu(json([record, { ...record, subject: "a_b" }]), "val", two)!;
    expect(set.form).toBe("json");
    expect(set.subjects.map(({ subject }) => subject)).toEqual(["a_b", "us_history"]);
    const [, subject] = set.subjects;
    expect(subject).toMatchObject({ header, questions: [{ shots, text, answer: "B" }] });
    const [question] = subject!.questions;
    expect(subject!.header + question!.shots.join("") + question!.text).toBe(record.input);
  });

  test.each([
    [[{ ...record, output: "E" }], /record 1: field "output" is "E", expected A, B, C or D/],
    [[{ ...record, input: 3 }], /record 1: field "input" is 3, expected a text/],
    [[record, null], /record 2 is null, expected an object/],
    [[record, { ...record, input: `x\n\n${text}` }], /record 2 begins with "x\\n\\n", the other prompts/],
    [{}, /expected a JSON array/],
    [[], /holds no records/],
  ])("%j is refused", (records, message) => {
    expect(() => readMmlu(json(records), "val", two)).toThrow(message);
  });
});

const real = join(import.meta.dir, "../../../shared/data");
test.skipIf(!existsSync(join(real, "mmlu/test")))(
  "the real files: 38 subjects, 8,807 questions, five shots each",
  () => {
    const { subjects } = readMmlu(real, "test", { shots: 5 })!;
    expect(subjects).toHaveLength(38);
    expect(subjects.reduce((sum, { questions }) => sum + questions.length, 0)).toBe(8807);
    expect(subjects.every(({ questions }) => questions.every(({ shots }) => shots.length === 5))).toBe(true);
    expect(readMmlu(real, "val", { shots: 5 })).toBeNull();
  },
);
