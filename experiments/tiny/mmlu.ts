/**
 * Table 5's files about the tiny world: subjects in the layout of Hendrycks' CSV files, records like Alpaca's, rows like
 * FLAN v2's. What val and test ask about was asked neither in dev nor in training.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { InstructionRecord } from "../../src/data/records.ts";
import { writeTextFile } from "../../src/formats/files.ts";
import { makeFolder } from "../../src/formats/model-folder.ts";
import { csvText } from "../../src/reporting/csv.ts";
import { WORLD_SEED } from "./data.ts";
import {
  type Draw,
  drawCheck,
  drawFactQuestion,
  drawObjectQuestion,
  drawStep,
  drawTwoHops,
  type Item,
  type Part,
} from "./items.ts";
import { pick, type Random, randomFor, shuffled } from "./random.ts";
import { makeWorld, type World } from "./world.ts";

const LETTERS = ["A", "B", "C", "D"] as const;
const DEV_ROWS = 5;
const VAL_ROWS = 20;
const TEST_ROWS = 40;
const RECORDS = 800;
const FLAN_ROWS = 600;

/** Questions of four options each. */
const subjects: readonly (readonly [string, Draw])[] = [
  ["daily_routines", drawStep],
  ["household_objects", drawObjectQuestion],
  ["people_and_animals", drawFactQuestion],
  ["two_step_reasoning", drawTwoHops],
];

/** Texts by their path below the data folder. */
export function tinyMmluFiles(): Map<string, string> {
  const world = makeWorld(WORLD_SEED);
  const files = new Map<string, string>();
  for (const [i, [subject, draw]] of subjects.entries()) {
    const seen = new Set<string>();
    const rows = (part: Part, count: number, purpose: number): string => {
      const random = randomFor(WORLD_SEED, purpose);
      const items = distinct(count, seen, () => draw(random, world, part));
      const [first, ...rest] = items.map(({ question, options, right }) => [
        question,
        ...options,
        LETTERS[right]!,
      ]);
      return csvText(first!, rest);
    };
    files.set(`mmlu/dev/${subject}_dev.csv`, rows("train", DEV_ROWS, 90 + 3 * i));
    files.set(`mmlu/val/${subject}_val.csv`, rows("test", VAL_ROWS, 91 + 3 * i));
    files.set(`mmlu/test/${subject}_test.csv`, rows("test", TEST_ROWS, 92 + 3 * i));
  }
  const alpaca = tinyAlpaca(world, RECORDS);
  files.set("tiny_alpaca.json", `${JSON.stringify(alpaca, null, 1)}\n`);
  files.set(
    "tiny_flan.jsonl",
    tinyFlan(world, FLAN_ROWS)
      .map((row) => `${JSON.stringify(row)}\n`)
      .join(""),
  );
  return files;
}

/** Writes them; those that are there and equal stay. */
export function writeTinyMmlu(root: string): void {
  for (const [path, text] of tinyMmluFiles()) {
    const target = join(root, path);
    if (existsSync(target) && readFileSync(target, "utf8") === text) continue;
    makeFolder(dirname(target));
    writeTextFile(target, text);
  }
}

/** `count` items whose questions, options included, are in `seen` not yet. */
function distinct(count: number, seen: Set<string>, draw: () => Item): Item[] {
  const items: Item[] = [];
  while (items.length < count) {
    const item = draw();
    const key = [item.question, ...item.options].join("|");
    if (seen.has(key)) continue;
    seen.add(key);
    items.push(item);
  }
  return items;
}

function anyQuestion(random: Random, world: World): Item {
  return pick(random, subjects)[1](random, world, "train");
}

/** Questions answered in words; some with their question as input, as two of five of Alpaca's records have one. */
function tinyAlpaca(world: World, count: number): Omit<InstructionRecord, "answer">[] {
  const random = randomFor(WORLD_SEED, 110);
  return Array.from({ length: count }, () => {
    if (random.below(5) < 2) {
      const { question, right } = drawCheck(random, world, "train");
      return { instruction: "answer yes or no", input: `${question}?`, output: right === 0 ? "yes" : "no" };
    }
    const { question, options, right } = anyQuestion(random, world);
    return { instruction: question, input: "", output: `${options[right]}.` };
  });
}

interface FlanRow {
  readonly inputs: string;
  readonly targets: string;
  readonly task_source: string;
  readonly task_name: string;
  readonly template_type: string;
}

/** Questions with letters, with options in a sentence, and to be answered by yes or no: three of FLAN's kinds. */
function tinyFlan(world: World, each: number): FlanRow[] {
  const random = randomFor(WORLD_SEED, 111);
  const rows = Array.from({ length: each }, (): FlanRow[] => {
    const lettered = anyQuestion(random, world);
    const named = anyQuestion(random, world);
    const check = drawCheck(random, world, "train");
    const options = lettered.options.map((text, i) => `\n${LETTERS[i]}. ${text}`).join("");
    return [
      row("Flan2021", `${lettered.question}${options}\nAnswer:`, LETTERS[lettered.right]!),
      row("P3", `${named.question} ${named.options.join(", ")}? so`, ` ${named.options[named.right]}.`),
      row("NIv2", `${check.question}?`, check.right === 0 ? " yes" : " no"),
    ];
  });
  return shuffled(random, rows.flat());
}

function row(source: string, inputs: string, targets: string): FlanRow {
  return { inputs, targets, task_source: source, task_name: "tiny", template_type: "zs_opt" };
}
