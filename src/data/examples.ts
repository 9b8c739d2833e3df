/** From records to token ids with labels: the tokenization of protocol §2.1 and the response mask of settled 25. */
import type { PromptFormat } from "./prompts/prompt.ts";
import type { Encode, InstructionRecord } from "./records.ts";

/** A tokenized record. The label of position p is tokens[p + 1]. */
export interface TrainingExample {
  /** Number of the record in its file, counted from 0; names its dropout masks. */
  readonly id: number;
  readonly tokens: Int32Array;
  /** First token that is predicted, at least 1; tokens.length: none is. */
  readonly labelFrom: number;
}

export interface ExampleOptions {
  readonly encode: Encode;
  readonly prompt: PromptFormat;
  /** Put in front unless `encode` did so; null for tokenizers that add none. */
  readonly bosId: number | null;
  readonly eosId: number;
  /** Longest example in tokens, BOS included. */
  readonly cutoff: number;
  readonly lossOn: "all" | "response";
  /** Prompt and reply are tokenized apart, each cut at its own limit (protocol §4.2); the cutoff is their sum. */
  readonly lengths?: PieceLengths | undefined;
}

/** Tokens of a prompt, BOS included, and of a reply, EOS included. */
export interface PieceLengths {
  readonly source: number;
  readonly target: number;
}

export interface EncodedRecords {
  readonly examples: TrainingExample[];
  /** Records longer than the cutoff, or with a piece beyond its limit: they lost the end of it. Worth a warning. */
  readonly truncated: number;
}

/** Tokenizes `records`; `ids` are their numbers in the file (all of it when left out). */
export function encodeRecords(
  records: readonly InstructionRecord[],
  options: ExampleOptions,
  ids: readonly number[] = records.map((_, i) => i),
): EncodedRecords {
  let truncated = 0;
  const examples = ids.map((id): TrainingExample => {
    const { tokens, labelFrom, cut } = (options.lengths ? encodePieces : encodeRecord)(records[id]!, options);
    if (cut) truncated++;
    return { id, tokens, labelFrom };
  });
  return { examples, truncated };
}

/** One paragraph for the user, or null when no record was cut. */
export function truncationWarning(
  { examples, truncated }: EncodedRecords,
  { cutoff, lengths }: Pick<ExampleOptions, "cutoff" | "lengths">,
): string | null {
  if (truncated === 0) return null;
  const share = ((100 * truncated) / examples.length).toFixed(1);
  if (lengths) {
    return (
      `${truncated} of ${examples.length} records (${share} %) have a prompt of more than ${lengths.source} tokens or a reply ` +
      `of more than ${lengths.target} and lose the rest of it.`
    );
  }
  return (
    `${truncated} of ${examples.length} records (${share} %) are longer than the cutoff of ${cutoff} tokens and lose ` +
    `the end of their reply, where the answer is. A larger --cutoff keeps it.`
  );
}

interface EncodedRecord {
  readonly tokens: Int32Array;
  readonly labelFrom: number;
  readonly cut: boolean;
}

/** `encode` with the BOS in front. */
function withBos({ encode, bosId }: ExampleOptions): Encode {
  return (text) => {
    const ids = encode(text);
    return bosId === null || ids[0] === bosId ? ids : [bosId, ...ids];
  };
}

/** Two encodings one behind the other; a reply as long as its limit loses its EOS, as in the published code. */
function encodePieces(record: InstructionRecord, options: ExampleOptions): EncodedRecord {
  const { source, target } = options.lengths!;
  const encode = withBos(options);
  const prompt = encode(options.prompt.train(record));
  const reply = encode(record.output);
  if (reply[0] === options.bosId) reply.shift();
  if (reply.at(-1) !== options.eosId) reply.push(options.eosId);
  const kept = prompt.slice(0, source);
  return {
    tokens: Int32Array.from([...kept, ...reply.slice(0, target)]),
    labelFrom: options.lossOn === "all" ? 1 : Math.max(1, kept.length),
    cut: prompt.length > source || reply.length > target,
  };
}

function encodeRecord(record: InstructionRecord, options: ExampleOptions): EncodedRecord {
  const { eosId, cutoff, lossOn } = options;
  const encode = withBos(options);
  const prompt = options.prompt.train(record);
  const ids = encode(prompt + record.output);
  const labelFrom = lossOn === "all" ? 1 : responseStart(encode, prompt, ids);
  const kept = ids.slice(0, cutoff);
  if (kept.length < cutoff && kept.at(-1) !== eosId) kept.push(eosId);
  return {
    tokens: Int32Array.from(kept),
    labelFrom: Math.min(Math.max(labelFrom, 1), kept.length),
    cut: ids.length > cutoff,
  };
}

/** The trailing blanks of a prompt are at most this many; further back no token border is looked for. */
const LONGEST_BLANK_RUN = 32;

/**
 * Tokens of the whole text that hold nothing of the reply. A tokenizer may join the prompt's last blank with the reply's
 * first word (" Sure", or 15 of 16 spaces and " the"), so the prompt encoded alone does not always begin the whole:
 * the border is where the longest beginning of the prompt does.
 */
function responseStart(encode: Encode, prompt: string, whole: readonly number[]): number {
  const alone = encode(prompt);
  if (isPrefix(alone, whole)) return alone.length;
  for (let cut = 1; cut <= Math.min(LONGEST_BLANK_RUN, prompt.length); cut++) {
    const beginning = encode(prompt.slice(0, -cut));
    if (isPrefix(beginning, whole)) return beginning.length;
  }
  return Math.min(alone.length, whole.length);
}

function isPrefix(beginning: readonly number[], whole: readonly number[]): boolean {
  return beginning.length <= whole.length && beginning.every((id, i) => id === whole[i]);
}
