/**
 * The six task files of Table 4 about the tiny world: sums and differences up to four in the layouts of LLM-Adapters
 * (protocol §3.2). Larger numbers are words the embedded model has never read. The numbers of a test question occur in
 * training too, with other people and foods: what can be learned is a table of small sums, not arithmetic.
 */
import type { InstructionRecord } from "../../src/data/records.ts";
import { type Part, partOf } from "./items.ts";
import { foods, people } from "./names.ts";
import { pickOthers, type Random, randomFor, shuffled } from "./random.ts";

/** A word problem and the number that comes out. */
interface Problem {
  readonly question: string;
  readonly result: number;
}

/** People p, q and foods f, g of a problem. */
interface Words {
  readonly p: string;
  readonly q: string;
  readonly f: string;
  readonly g: string;
}

interface TinySum {
  /** Folder name of the test set. */
  readonly name: string;
  readonly draw: (random: Random, words: Words) => Problem;
  /** Options A to E behind the question, as AQuA has them. */
  readonly letters?: true;
}

const LARGEST = 4;
const LETTERS = ["A", "B", "C", "D", "E"] as const;

const between = (random: Random, least: number, most: number): number =>
  least + random.below(most - least + 1);

/** [a, b, a + b]: every sum from `least` up as often as any other. */
function drawSum(random: Random, least = 2): [number, number, number] {
  const sum = between(random, least, LARGEST);
  const a = between(random, 1, sum - 1);
  return [a, sum - a, sum];
}

/** [a, b, a - b]: every difference from 1 up as often as any other. */
function drawDifference(random: Random): [number, number, number] {
  const difference = between(random, 1, LARGEST - 1);
  const b = between(random, 1, LARGEST - difference);
  return [difference + b, b, difference];
}

export const tinySums: readonly TinySum[] = [
  {
    name: "MultiArith",
    draw(random, { p, f }) {
      const [a, b, sum] = drawSum(random);
      const result = between(random, 1, sum - 1);
      return {
        question: `${p} has ${a} ${f} and takes ${b} more. then ${p} eats ${sum - result}. how many ${f} does ${p} have?`,
        result,
      };
    },
  },
  {
    name: "gsm8k",
    draw(random, { p, q, f }) {
      const [a, b, result] = drawSum(random);
      return {
        question: `${p} has ${a} ${f}. ${q} has ${b} more than ${p}. how many ${f} does ${q} have?`,
        result,
      };
    },
  },
  {
    name: "AddSub",
    draw(random, { p, q, f }) {
      const [a, b, result] = drawDifference(random);
      return { question: `${p} has ${a} ${f}. ${q} takes ${b}. how many ${f} does ${p} have?`, result };
    },
  },
  {
    name: "AQuA",
    letters: true,
    draw(random, { p, q, f }) {
      const [a, b, result] = drawSum(random);
      return { question: `${p} has ${a} ${f}. ${q} has ${b}. how many ${f} do they have?`, result };
    },
  },
  {
    name: "SingleEq",
    draw(random, { p, q, f }) {
      const [a, b, result] = drawSum(random);
      return { question: `${p} has ${a} ${f} and ${q} has ${b}. how many ${f} do they have?`, result };
    },
  },
  {
    name: "SVAMP",
    draw(random, { p, f, g }) {
      const [a, b, result] = drawDifference(random);
      const other = between(random, 1, LARGEST);
      return {
        question: `${p} has ${a} ${f} and ${other} ${g}. ${p} eats ${b} ${f}. how many ${f} does ${p} have?`,
        result,
      };
    },
  },
];

/** As the published files have it: a sentence as output, a number or a letter as answer. */
function recordOf({ letters }: TinySum, random: Random, { question, result }: Problem): InstructionRecord {
  if (!letters) {
    return { instruction: question, input: "", output: `the answer is ${result}.`, answer: `${result}.0` };
  }
  // A value stands at its place modulo five, as in the other tasks (items.ts).
  const place = result % LETTERS.length;
  const options = LETTERS.map((_, i) => (i === place ? result : i + 5 * random.below(2)));
  const shown = LETTERS.map((letter, i) => `(${letter}) ${options[i]}`).join(" ");
  const answer = LETTERS[place]!;
  return {
    instruction: `${question} Answer Choices: ${shown}`,
    input: "",
    output: `the answer is (${answer}).`,
    answer,
  };
}

/** `count` distinct records of one part: a test question's words were never put together in training. */
function sumRecords(task: TinySum, part: Part, count: number, seed: number): InstructionRecord[] {
  const random = randomFor(seed, 60 + 2 * tinySums.indexOf(task) + (part === "test" ? 1 : 0));
  const records = new Map<string, InstructionRecord>();
  while (records.size < count) {
    const [p, q] = pickOthers(random, people, 2);
    const [f, g] = pickOthers(random, foods, 2);
    if (partOf(task.name, p!, f!) !== part) continue;
    const record = recordOf(task, random, task.draw(random, { p: p!, q: q!, f: f!, g: g! }));
    records.set(record.instruction, record);
  }
  return [...records.values()];
}

/** Files by their path below the data folder: the mix that is trained on and a test set a task. */
export function tinySumFiles(
  trainRecords: number,
  testRecords: number,
  seed: number,
): Map<string, InstructionRecord[]> {
  const mix = tinySums.flatMap((task) => sumRecords(task, "train", trainRecords, seed));
  const files = new Map([["ft-training_set/tiny_math.json", shuffled(randomFor(seed, 4), mix)]]);
  for (const task of tinySums) {
    files.set(`dataset/${task.name}/test.json`, sumRecords(task, "test", testRecords, seed));
  }
  return files;
}
