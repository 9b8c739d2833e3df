import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "../../errors.ts";
import { majority } from "../score.ts";
import { readTaskRecords, responseOf, taskFile } from "../task.ts";
import { strictLetter } from "./aqua.ts";
import { arithmeticTasks, commonsenseTasks, taskNamed, tasks, tasksNamed } from "./registry.ts";

const root = join(import.meta.dir, "../../../../shared/data/llm-adapters");
const present = existsSync(join(root, "dataset"));

/** Instructions in the layouts of protocol §2.3, one a task, with what is to be read out of them. */
const layouts = {
  boolq: {
    instruction:
      "Please answer the following question with true or false, question: is it so?\n\nAnswer format: true/false",
    labels: ["true", "false"],
    texts: ["true", "false"],
    contexts: ["Question: is it so?\nAnswer:"],
    continuations: [" true", " false"],
  },
  piqa: {
    instruction:
      "Please choose the correct solution to the question: how?\n\nSolution1: do a\n\nSolution2: do b\n\nAnswer format: solution1/solution2",
    labels: ["solution1", "solution2"],
    texts: ["do a", "do b"],
    contexts: ["Question: how?\nAnswer:"],
    continuations: [" do a", " do b"],
  },
  social_i_qa: {
    instruction:
      "Please choose the correct answer to the question: who?\n\nAnswer1: x Answer2: y z Answer3: w\n\nAnswer format: answer1/answer2/answer3",
    labels: ["answer1", "answer2", "answer3"],
    texts: ["x", "y z", "w"],
    contexts: ["Question: who?\nAnswer:"],
    continuations: [" x", " y z", " w"],
  },
  hellaswag: {
    instruction:
      "Please choose the correct ending to complete the given sentence: Cooking: she\n\nEnding1: a Ending2: b Ending3: c Ending4: d\n\nAnswer format: ending1/ending2/ending3/ending4",
    labels: ["ending1", "ending2", "ending3", "ending4"],
    texts: ["a", "b", "c", "d"],
    contexts: ["Question: Cooking: she\nAnswer:"],
    continuations: [" a", " b", " c", " d"],
  },
  winogrande: {
    instruction:
      "Please choose the correct answer to fill in the blank to complete the given sentence: Ann thanked Eve because _ had helped.\n\nOption1: Ann Option2: Eve Answer format: option1/option2",
    labels: ["option1", "option2"],
    texts: ["Ann", "Eve"],
    contexts: ["Ann thanked Eve because Ann", "Ann thanked Eve because Eve"],
    continuations: [" had helped.", " had helped."],
  },
  AQuA: {
    instruction: "How many? Answer Choices: (A) 1 (B) 2 (C) 3 (D) 4 (E) none",
    labels: ["A", "B", "C", "D", "E"],
    texts: ["1", "2", "3", "4", "none"],
    contexts: ["Question: How many?\nAnswer:"],
    continuations: [" 1", " 2", " 3", " 4", " none"],
  },
};

describe.each(Object.entries(layouts))("%s", (name, expected) => {
  const { instruction, labels, texts, contexts, continuations } = expected;
  test("question and options are read from the instruction", () => {
    expect(taskNamed(name).choices({ instruction })).toEqual({ labels, texts });
    expect(taskNamed(name).cloze({ instruction })).toEqual({ contexts, continuations });
  });

  test("another layout is none", () => {
    expect(taskNamed(name).cloze({ instruction: "What is it?" })).toBeNull();
  });
});

describe("commonsense answers", () => {
  test.each(commonsenseTasks.map((t) => [t.name, t] as const))(
    "%s: the first match, case-sensitive",
    (_, task) => {
      const [label] = task.choices({ instruction: "?" })?.labels ?? [
        layouts[task.name as keyof typeof layouts]?.labels[0] ?? "answer1",
      ];
      expect(task.extract(`the correct answer is ${label}`)).toBe(label!);
      expect(task.extract(label!.toUpperCase())).toBe("");
      expect(task.extract("")).toBe("");
      expect(task.isCorrect(label!, { answer: label! })).toBe(true);
      expect(task.isCorrect("", { answer: label! })).toBe(false);
    },
  );

  test("golden cases of protocol §2.4", () => {
    const arc = taskNamed("ARC-Easy");
    expect(arc.extract("the correct answer is answer3")).toBe("answer3");
    expect(arc.extract("answer5 or answer1")).toBe("answer5");
    expect(arc.extract("Answer1: x")).toBe("");
    expect(taskNamed("boolq").extract("True")).toBe("");
    expect(taskNamed("boolq").extract("it is untrue, so false")).toBe("true");
  });
});

describe("arithmetic answers", () => {
  test.each([
    ["The answer is 43.", "43"],
    ["$1,200.", "1200"],
    ["so 5-3", "-3"],
    ["1/2", "2"],
    [".5", "5"],
    ["3.14.15", "15"],
    ["12%.</s>", "12"],
    ["none", ""],
  ])("%s -> %s", (response, number) => {
    for (const task of arithmeticTasks.filter((t) => t.name !== "AQuA"))
      expect(task.extract(response)).toBe(number);
  });

  test("a number is right within 0.001, an absent one never", () => {
    const task = taskNamed("SingleEq");
    expect(task.isCorrect("0.667", { answer: "0.6666666666666666" })).toBe(true);
    expect(task.isCorrect("0.668", { answer: "0.6666666666666666" })).toBe(false);
    expect(task.isCorrect("15", { answer: "15.0" })).toBe(true);
    expect(task.isCorrect("", { answer: "0" })).toBe(false);
  });

  test.each([
    ["The answer is (C).", "C", "C"],
    ["By algebra, the answer is (C).", "B", "C"],
    ["Answer: B", "A", ""],
    ["<s> none", "", ""],
  ])("AQuA: %s -> %s by the official rule, %s by the strict one", (response, official, strict) => {
    expect(taskNamed("AQuA").extract(response)).toBe(official);
    expect(strictLetter(response)).toBe(strict);
  });
});

test("the response is behind the last marker, or between the first two", () => {
  const whole = "### Instruction: x ### Response: one\n### Response:\n two  ";
  expect(responseOf({ response: "last" }, whole)).toBe("two");
  expect(responseOf({ response: "second" }, whole)).toBe("one");
  expect(responseOf({ response: "second" }, "no marker")).toBe("");
});

describe("registry", () => {
  test("the paper's columns, each once", () => {
    expect(commonsenseTasks.map((t) => t.title)).toEqual([
      "BoolQ",
      "PIQA",
      "SIQA",
      "HellaSwag",
      "WinoGrande",
      "ARC-e",
      "ARC-c",
      "OBQA",
    ]);
    expect(new Set(tasks.map((t) => t.name)).size).toBe(14);
  });

  test("names, suites, and an unknown one", () => {
    expect(tasksNamed("boolq, commonsense").map((t) => t.name)).toEqual(commonsenseTasks.map((t) => t.name));
    expect(tasksNamed("gsm8k,boolq").map((t) => t.name)).toEqual(["gsm8k", "boolq"]);
    expect(tasksNamed("boolq,boolq,").map((t) => t.name)).toEqual(["boolq"]);
    expect(() => tasksNamed(" ,")).toThrow(InputError);
    expect(() => tasksNamed("boolq,mnli")).toThrow(InputError);
    expect(() => tasksNamed("mnli")).toThrow("boolq, piqa");
  });

  test("an absent test set is null", () => {
    expect(taskFile("/nonexistent", taskNamed("boolq"))).toBeNull();
    expect(readTaskRecords("/nonexistent", taskNamed("boolq"))).toBeNull();
  });
});

describe.skipIf(!present)("the published test sets", () => {
  /** Records and majority share as protocol §2.3 and the data's README count them. */
  const counts: Record<string, [number, number?]> = {
    boolq: [3270, 62.2],
    piqa: [1838, 50.5],
    social_i_qa: [1954, 33.6],
    winogrande: [1267, 50.4],
    "ARC-Easy": [2376, 26.6],
    "ARC-Challenge": [1172, 26.5],
    openbookqa: [500, 27.6],
    MultiArith: [600],
    gsm8k: [1319],
    AddSub: [395],
    SingleEq: [508],
  };
  test.each(Object.entries(counts))("%s: every record parses", (name, [n, share]) => {
    const task = taskNamed(name);
    const records = readTaskRecords(root, task)!;
    expect(records.length).toBe(n);
    if (share !== undefined) {
      expect(majority(records.map((r) => r.answer)).accuracy).toBeWithin(share - 0.051, share + 0.051);
    }
    for (const record of records) {
      if (task.suite === "arithmetic") {
        expect(Number.isFinite(Number(record.answer))).toBe(true);
        continue;
      }
      const choices = task.choices(record);
      const cloze = task.cloze(record);
      expect(choices?.labels).toContain(record.answer);
      expect(cloze?.continuations.length).toBe(choices?.labels.length);
      expect(choices?.texts.every((text) => text !== "")).toBe(true);
      expect(record.instruction).toEndWith(choices!.labels.join("/"));
      expect(task.extract(record.output)).toBe(record.answer);
    }
  });
});
