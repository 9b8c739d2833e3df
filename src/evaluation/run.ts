/**
 * Evaluates a merged model on one task by up to three rulers: generation as the paper does it (protocol §2.4), and the
 * finer ones that small models need, log-likelihood of the options' text and of the answer labels (settled 24).
 */
import type { InstructionRecord } from "../data/records.ts";
import { InputError } from "../errors.ts";
import { generate } from "../generation/decode.ts";
import { type LikelihoodItem, scoreContinuations } from "../generation/likelihood.ts";
import type { Llama } from "../model/model.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { type Cloze, responseOf, type Task } from "./task.ts";

export interface EvaluateOptions {
  readonly beams: number;
  /** Default: the task's own limit. */
  readonly maxNewTokens?: number;
  /** Renders the evaluation prompt of a record. */
  readonly prompt: (record: InstructionRecord) => string;
  /** Which rulers to apply; options and labels give nothing for a task without choices. */
  readonly rulers: readonly Ruler[];
  /** Records × rulers done so far. */
  readonly onProgress?: (done: number, of: number) => void;
}

export const rulers = ["generation", "options", "labels"] as const;
export type Ruler = (typeof rulers)[number];

/** What one record gave, without its text. */
export interface Prediction {
  /** Number of the record in the task's file. */
  readonly record: number;
  readonly label: string;
  /** Generated response, the answer read out of it ("" = none) and whether it is right. */
  readonly text?: string;
  readonly parsed?: string;
  readonly correct?: boolean;
  /** Most likely option by its text: whole, and per character. */
  readonly option?: string;
  readonly optionPerCharacter?: string;
  /** Most likely label after the protocol's prompt. */
  readonly likeliestLabel?: string;
  /** MMLU: the same by the letters with a space in front, where those are other tokens. */
  readonly spacedLabel?: string;
  /** MMLU: −log of the right letter's share among the four, nats, by either kind of token. */
  readonly labelNats?: number;
  readonly spacedNats?: number;
}

/** Predictions of `records` (numbered as in the task's file), in their order. */
export async function evaluateTask(
  model: Llama,
  tokenizer: Tokenizer,
  task: Task,
  records: readonly InstructionRecord[],
  options: EvaluateOptions,
): Promise<Prediction[]> {
  const wanted = (ruler: Ruler): boolean => options.rulers.includes(ruler);
  let predictions = records.map((record, i): Prediction => ({ record: i, label: record.answer }));
  const parts = options.rulers.length * records.length;
  let done = 0;
  const tick = (): void => options.onProgress?.(++done, parts);

  if (wanted("generation")) {
    const prompts = records.map((record) => options.prompt(record));
    const ids = prompts.map((text) => tokenizer.encode(text));
    const { beams, maxNewTokens = task.maxNewTokens } = options;
    checkLength(model, task, ids, maxNewTokens);
    const eosIds = [...new Set([...tokenizer.eosIds, ...model.config.eosTokenIds])];
    const generated = await generate(model, ids, { beams, maxNewTokens, eosIds, onDone: tick });
    predictions = predictions.map((prediction, i) => {
      const whole = tokenizer.decode([...ids[i]!, ...generated[i]!], {
        skipSpecialTokens: !task.specialTokens,
      });
      const text = responseOf(task, whole);
      const parsed = task.extract(text);
      return { ...prediction, text, parsed, correct: task.isCorrect(parsed, records[i]!) };
    });
  }
  if (wanted("options")) {
    const items = records.map((record) => task.cloze(record));
    const scores = await scoreTexts(model, tokenizer, items, tick);
    predictions = predictions.map((prediction, i) => {
      const labels = task.choices(records[i]!)?.labels ?? [];
      const texts = items[i]?.continuations ?? [];
      const sums = scores[i]!;
      // The leading space belongs to the layout, not to the option (settled 24).
      const perCharacter = sums.map((sum, j) => sum / Math.max(1, texts[j]!.trimStart().length));
      const pick = (values: readonly number[]): string => (values.length > 0 ? labels[argmax(values)]! : "");
      return { ...prediction, option: pick(sums), optionPerCharacter: pick(perCharacter) };
    });
  }
  if (wanted("labels")) {
    const choices = records.map((record) => task.choices(record)?.labels ?? []);
    const items = records.map((record, i) => ({
      contexts: [options.prompt(record)],
      continuations: choices[i]!.map((label) => `the correct answer is ${label}`),
    }));
    const scores = await scoreTexts(model, tokenizer, items, tick);
    predictions = predictions.map((p, i) => ({
      ...p,
      likeliestLabel: choices[i]![argmax(scores[i]!)] ?? "",
    }));
  }
  return predictions;
}

/** log p of every continuation of every item; an empty list where there is nothing to score. */
async function scoreTexts(
  model: Llama,
  tokenizer: Tokenizer,
  items: readonly (Cloze | null)[],
  tick: () => void,
): Promise<number[][]> {
  const encoded = items.map((item) => (item ? encodeCloze(tokenizer, item) : []));
  const record = encoded.flatMap((own, i) => own.map(() => i));
  for (const own of encoded) if (own.length === 0) tick();
  const done = (j: number): void => {
    if (record[j] !== record[j + 1]) tick();
  };
  const results = record.length > 0 ? await scoreContinuations(model, encoded.flat(), done) : [];
  let at = 0;
  return encoded.map((own) => own.flatMap(() => results[at++]!));
}

/** One item with all continuations behind a shared context, or one a continuation where each has its own. */
export function encodeCloze(
  tokenizer: Pick<Tokenizer, "encode">,
  { contexts, continuations }: Cloze,
): LikelihoodItem[] {
  if (continuations.length === 0) return [];
  if (contexts.length === 1) return [encodeItem(tokenizer, contexts[0]!, continuations)];
  return continuations.map((text, i) => encodeItem(tokenizer, contexts[i]!, [text]));
}

/** ids(context + text) minus ids(context); trailing spaces of the context move to the text, as lm-eval does. */
function encodeItem(
  tokenizer: Pick<Tokenizer, "encode">,
  context: string,
  continuations: readonly string[],
): LikelihoodItem {
  const kept = context.trimEnd();
  const spaces = context.slice(kept.length);
  const ids = tokenizer.encode(kept);
  return {
    context: ids,
    continuations: continuations.map((text) => tokenizer.encode(kept + spaces + text).slice(ids.length)),
  };
}

function checkLength(
  model: Llama,
  task: Task,
  prompts: readonly (readonly number[])[],
  maxNewTokens: number,
): void {
  const positions = model.rope.cosine.shape[0]!;
  const long = prompts.findIndex((ids) => ids.length + maxNewTokens > positions);
  if (long < 0) return;
  throw new InputError(
    `${task.name} record ${long + 1}: its prompt has ${prompts[long]!.length} tokens and the answer may have ${maxNewTokens}, but the ` +
      `model was opened for ${positions} positions. Leave such records out, or ask for fewer new tokens.`,
  );
}

function argmax(values: readonly number[]): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
