/** One answer in the making. Prompt and answer are one list of tokens; what is not in the KV cache yet is computed next. */
import { samplingKey } from "../generation/sampling.ts";
import { emptySequence, type KvPool, type KvSequence, PAGE } from "../model/kv-cache.ts";
import type { Submission } from "./protocol.ts";

export interface Sequence {
  readonly submission: Submission;
  readonly choice: number;
  /** Arrival; earlier ones are never put back for later ones. */
  readonly order: number;
  /** Prompt, then answer. */
  readonly tokens: number[];
  /** Positions 0..length-1 of `tokens` are computed. */
  kv: KvSequence;
  /** Names of the whole pages of `tokens` up to here. */
  readonly pageNames: string[];
  /** Prompt positions whose scores have been told. */
  scored: number;
  /** Answers that fork off when the prompt is done. */
  forks: number;
  started: boolean;
  readonly key: bigint;
  /** How often the answer holds a token. */
  readonly counts: Map<number, number>;
}

/** Choices of one request stand between it and the next in `order`. */
const MOST_CHOICES = 1024;

export function newSequence(submission: Submission): Sequence {
  return {
    submission,
    choice: 0,
    order: submission.id,
    tokens: [...submission.prompt],
    kv: emptySequence(),
    pageNames: [],
    scored: 0,
    forks: submission.choices - 1,
    started: false,
    key: samplingKey(submission.sampling.seed, 0),
    counts: new Map(),
  };
}

/** Another answer behind the same prompt; `kv` is its own. */
export function forkedSequence(leader: Sequence, choice: number, kv: KvSequence): Sequence {
  const { submission } = leader;
  return {
    ...leader,
    choice,
    order: submission.id + choice / MOST_CHOICES,
    tokens: [...submission.prompt],
    kv,
    pageNames: [...leader.pageNames],
    forks: 0,
    key: samplingKey(submission.sampling.seed, choice),
    counts: new Map(),
  };
}

/** Tokens not computed yet. */
export function remaining({ tokens, kv }: Sequence): number {
  return tokens.length - kv.length;
}

/** Pages that computing `count` more tokens takes, a shared last page's copy included. */
export function pagesToAdd(pool: KvPool, { kv }: Sequence, count: number): number {
  const shared = kv.length % PAGE !== 0 && pool.references[kv.pages[kv.pages.length - 1]!]! > 1;
  return Math.ceil((kv.length + count) / PAGE) - kv.pages.length + (shared ? 1 : 0);
}
