/**
 * MMLU with shots in front, as the 4-bit experiments score it (protocol §4.4): the likeliest of the four letters behind
 * "Answer:", by their logits at the prompt's last position.
 */
import type { Letter, MmluQuestion, MmluSubject } from "../data/mmlu.ts";
import { letters } from "../data/mmlu.ts";
import { InputError } from "../errors.ts";
import { nextTokenLogits } from "../generation/next-token.ts";
import type { Llama } from "../model/model.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { Prediction } from "./run.ts";

/**
 * What happens to a prompt that is too long. `cut`: its end goes, the question with it, as in the published code.
 * `fewer-shots`: its last shots go, one after the other, as Hendrycks' own code does; a question that is too long by itself
 * loses its beginning.
 */
export const overlongKinds = ["cut", "fewer-shots"] as const;
export type Overlong = (typeof overlongKinds)[number];

export interface MmluOptions {
  /** Solved questions in front, at most. */
  readonly shots: number;
  /** Longest prompt in tokens, BOS included. */
  readonly maxTokens: number;
  readonly overlong: Overlong;
}

/** A prompt as token ids. */
export interface MmluPrompt {
  readonly tokens: readonly number[];
  /** How many shots stand in it whole. */
  readonly shots: number;
  /** It was too long. */
  readonly shortened: boolean;
}

/** What the predictions of one subject do not say. */
export interface MmluPrompts {
  readonly prompts: readonly MmluPrompt[];
  readonly shortened: number;
}

export function encodeMmlu(
  tokenizer: Pick<Tokenizer, "encode" | "bosId">,
  { header, questions }: MmluSubject,
  options: MmluOptions,
): MmluPrompts {
  const prompts = questions.map((question) => encodeQuestion(tokenizer, header, question, options));
  return { prompts, shortened: prompts.filter(({ shortened }) => shortened).length };
}

function encodeQuestion(
  { encode, bosId }: Pick<Tokenizer, "encode" | "bosId">,
  header: string,
  { shots: all, text }: MmluQuestion,
  { shots: wanted, maxTokens, overlong }: MmluOptions,
): MmluPrompt {
  const most = Math.min(wanted, all.length);
  let shots = most;
  for (;;) {
    const tokens = encode(header + all.slice(0, shots).join("") + text);
    if (tokens.length <= maxTokens) return { tokens, shots, shortened: shots < most };
    if (overlong === "cut") return { tokens: tokens.slice(0, maxTokens), shots, shortened: true };
    if (shots > 0) shots--;
    else {
      const bos = tokens[0] === bosId ? 1 : 0;
      const kept = [...tokens.slice(0, bos), ...tokens.slice(tokens.length - maxTokens + bos)];
      return { tokens: kept, shots, shortened: true };
    }
  }
}

/** The tokens that stand for the letters. */
export interface LetterIds {
  /** As the published code looks them up: each letter tokenized alone. Where a text's first word gets a space (SentencePiece)
   * that is the letter with its space, else the one without. */
  readonly alone: readonly number[];
  /** As a letter follows "Answer:", with its space; null where that is no token of its own, or the same one. */
  readonly spaced: readonly number[] | null;
}

/** @throws InputError where the tokenizer has no token of its own for each letter */
export function letterIds(tokenizer: Pick<Tokenizer, "encodeWithoutBos">, dir: string): LetterIds {
  const alone = letters.map((letter) => tokenizer.encodeWithoutBos(letter)[0] ?? -1);
  if (new Set(alone).size < letters.length) {
    throw new InputError(
      `${dir}: the tokenizer begins the letters A, B, C and D with the tokens ${alone.join(", ")}, which are not four different ` +
        "ones; MMLU is scored by them, so this model cannot be asked.",
    );
  }
  const before = tokenizer.encodeWithoutBos("Answer:");
  const after = letters.map((letter) => tokenizer.encodeWithoutBos(`Answer: ${letter}`));
  const own = after.every(
    (ids) => ids.length === before.length + 1 && before.every((id, i) => ids[i] === id),
  );
  const spaced = after.map((ids) => ids.at(-1)!);
  const differs = spaced.some((id, i) => id !== alone[i]) && new Set(spaced).size === letters.length;
  return { alone, spaced: own && differs ? spaced : null };
}

/** A subject to be asked. */
export interface MmluRun {
  readonly questions: readonly Pick<MmluQuestion, "answer">[];
  readonly prompts: readonly MmluPrompt[];
}

/**
 * Predictions in the order of the questions: `likeliestLabel` by the published ids, `spacedLabel` by those with a space
 * where they are others. Prompts with equally many shots share what they begin with.
 */
export async function scoreMmlu(
  model: Llama,
  { questions, prompts }: MmluRun,
  ids: LetterIds,
  onDone: (questions: number) => void = () => {},
): Promise<Prediction[]> {
  // Prompts with other shots would end what the rest has in common.
  const counts = [...new Set(prompts.map(({ shots }) => shots))];
  const order = counts.map((count) => prompts.flatMap(({ shots }, i) => (shots === count ? [i] : [])));
  const groups = order.map((numbers) => numbers.map((i) => prompts[i]!.tokens));
  const asked = [...new Set([...ids.alone, ...(ids.spaced ?? [])])];
  const logits = await nextTokenLogits(model, groups, asked, onDone);
  const byQuestion = new Map(order.flat().map((question, i) => [question, logits[i]!]));
  return questions.map(({ answer }, record): Prediction => {
    const row = byQuestion.get(record)!;
    const of = (wanted: readonly number[]): number[] => wanted.map((id) => row[asked.indexOf(id)]!);
    const alone = choose(of(ids.alone), answer);
    const spaced = ids.spaced && choose(of(ids.spaced), answer);
    return {
      record,
      label: answer,
      likeliestLabel: alone.letter,
      labelNats: alone.nats,
      ...(spaced ? { spacedLabel: spaced.letter, spacedNats: spaced.nats } : {}),
    };
  });
}

/** The likeliest letter, the first of equals, and −log of the right one's share among the four (rounded: it is no ruler of bits). */
function choose(logits: readonly number[], answer: Letter): { letter: Letter; nats: number } {
  const most = Math.max(...logits);
  const sum = logits.reduce((total, value) => total + Math.exp(value - most), 0);
  const nats = Math.log(sum) + most - logits[letters.indexOf(answer)]!;
  return { letter: letters[logits.indexOf(most)]!, nats: Number(nats.toFixed(5)) };
}
