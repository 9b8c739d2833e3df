/** MMLU for evaluate.ts, as Table 5 asks it: its flags, its questions, and how its figures read. */
import { type MmluSet, type MmluSplit, mmluPlaces, mmluSplits, readMmlu } from "../src/data/mmlu.ts";
import { InputError } from "../src/errors.ts";
import {
  encodeMmlu,
  type LetterIds,
  type MmluOptions,
  overlongKinds,
  scoreMmlu,
} from "../src/evaluation/mmlu.ts";
import { type MmluFigures, type MmluSummary, summarizeMmlu } from "../src/evaluation/mmlu-score.ts";
import type { Prediction } from "../src/evaluation/run.ts";
import type { LlamaConfig } from "../src/formats/hf-config.ts";
import type { Llama } from "../src/model/model.ts";
import { filesHash } from "../src/reporting/manifest.ts";
import { startProgress } from "../src/reporting/progress.ts";
import type { Tokenizer } from "../src/text/tokenizer.ts";
import { choiceFlag, choicesFlag, listFlag, wholeFlag } from "./arguments.ts";

/** Name among the tasks. */
export const MMLU = "mmlu";

/** Longest prompt of the 4-bit experiments (protocol §4.4). */
const PROMPT_TOKENS = 2048;

const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description: `mmlu: ${description}` }) as const;

export const MMLU_FLAGS = {
  shots: text("N", "solved questions in front of each. Default: 5"),
  subjects: text("a,b", "only these, as its files name them. Default: all that are there"),
  splits: text(mmluSplits.join(","), "which of its sets are asked. Default: test"),
  overlong: text(
    overlongKinds.join("|"),
    "what a too long prompt loses, its end or its last shots. Default: fewer-shots",
  ),
  "prompt-tokens": text(
    "N",
    `longest prompt. Default: ${PROMPT_TOKENS}, or as many positions as the model has`,
  ),
} as const;

export interface MmluSettings {
  readonly options: MmluOptions;
  readonly sets: ReadonlyMap<MmluSplit, MmluSet>;
  /** Splits that were asked for and are not there. */
  readonly missing: readonly MmluSplit[];
}

/** @throws InputError for flags out of range, damaged files, and where no split is there */
export function mmluSettings(
  args: Record<string, unknown>,
  dataDir: string,
  { maxPositions }: LlamaConfig,
  limit: number | undefined,
): MmluSettings {
  const shots = wholeFlag(args, "shots", 0) ?? 5;
  const subjects = listFlag(args, "subjects");
  const wanted = choicesFlag(args, "splits", mmluSplits) ?? ["test"];
  const maxTokens = wholeFlag(args, "prompt-tokens", 1) ?? Math.min(PROMPT_TOKENS, maxPositions);
  if (maxTokens > maxPositions) {
    throw new InputError(
      `--prompt-tokens is ${maxTokens}, but the model was made for ${maxPositions} positions (max_position_embeddings).`,
    );
  }
  const overlong = choiceFlag(args, "overlong", overlongKinds) ?? "fewer-shots";
  const sets = new Map<MmluSplit, MmluSet>();
  for (const split of mmluSplits.filter((name) => wanted.includes(name))) {
    const set = readMmlu(dataDir, split, { shots, ...(subjects ? { subjects } : {}) });
    if (set) sets.set(split, limit === undefined ? set : firstQuestions(set, limit));
  }
  if (sets.size === 0) {
    throw new InputError(
      `${dataDir}: MMLU's ${wanted.join(" and ")} ${wanted.length > 1 ? "are" : "is"} not there; expected ${mmluPlaces(dataDir)}. ` +
        "bun run scripts/download.ts mmlu fetches it.",
    );
  }
  return { options: { shots, maxTokens, overlong }, sets, missing: wanted.filter((name) => !sets.has(name)) };
}

/** @throws InputError for flags about MMLU where it is not asked: nothing would obey them */
export function refuseMmluFlags(args: Record<string, unknown>): void {
  const given = Object.keys(MMLU_FLAGS).filter((name) => args[name] !== undefined);
  if (given.length === 0) return;
  throw new InputError(
    `${given.map((name) => `--${name}`).join(", ")}: only mmlu has these; add it to --tasks, or leave them out.`,
  );
}

function firstQuestions(set: MmluSet, limit: number): MmluSet {
  const subjects = set.subjects.map((one) => ({ ...one, questions: one.questions.slice(0, limit) }));
  return { ...set, subjects };
}

/** SHA-256 of every split's files. */
export function mmluHashes({ sets }: MmluSettings): Record<string, string> {
  return Object.fromEntries([...sets].map(([split, { files }]) => [`mmlu/${split}`, filesHash(files)]));
}

export interface AskedMmlu extends MmluSummary {
  readonly split: MmluSplit;
  readonly form: MmluSet["form"];
  /** Prompts that were too long. */
  readonly shortened: number;
}

/** Asks every subject in turn. `onSubject`: its name below MMLU ("test/anatomy") and its predictions, as they come. */
export async function askMmlu(
  model: Llama,
  tokenizer: Tokenizer,
  ids: LetterIds,
  { options, sets }: MmluSettings,
  onSubject: (name: string, predictions: readonly Prediction[]) => void,
): Promise<AskedMmlu[]> {
  const asked: AskedMmlu[] = [];
  for (const [split, { form, subjects }] of sets) {
    const total = subjects.reduce((sum, { questions }) => sum + questions.length, 0);
    const progress = startProgress(`MMLU ${split}`, total, "questions");
    const bySubject = new Map<string, readonly Prediction[]>();
    let done = 0;
    let shortened = 0;
    for (const { subject, questions, header } of subjects) {
      const encoded = encodeMmlu(tokenizer, { subject, questions, header }, options);
      const predictions = await scoreMmlu(model, { questions, prompts: encoded.prompts }, ids, (own) =>
        progress.update(done + own, subject),
      );
      done += questions.length;
      shortened += encoded.shortened;
      bySubject.set(subject, predictions);
      onSubject(`${split}/${subject}`, predictions);
    }
    progress.end();
    asked.push({ split, form, shortened, ...summarizeMmlu(bySubject) });
  }
  return asked;
}

/** "MMLU test  4 subjects, 160 questions  macro 31.9 ± 3.7  pooled 31.9 ± 3.7  1.391 nats  always A: 27.5, 27.5" */
export function mmluRows({ split, subjects, questions, shortened, oneLetter, ...rulers }: AskedMmlu): string {
  const counts = `${Object.keys(subjects).length} subjects, ${questions} questions`;
  const { letter, macro, pooled } = oneLetter;
  const spaced = rulers.spacedLabels && `  letters with their space: ${figuresText(rulers.spacedLabels)}`;
  return [
    `${`MMLU ${split}`.padEnd(11)}  ${counts}  ${figuresText(rulers.labels)}`,
    ...(spaced ? [spaced] : []),
    `  always ${letter}: macro ${macro.toFixed(1)}  pooled ${pooled.toFixed(1)}` +
      (shortened > 0 ? `; ${shortened} prompts were too long and shortened` : ""),
  ].join("\n");
}

function figuresText({ macro, pooled, nats }: MmluFigures): string {
  const percent = ({ accuracy, standardError }: MmluFigures["macro"]): string =>
    `${accuracy.toFixed(1)} ± ${standardError.toFixed(1)}`;
  return `macro ${percent(macro)}  pooled ${percent(pooled)}  ${nats.toFixed(3)} nats`;
}
