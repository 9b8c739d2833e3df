/**
 * Which tokens the next step computes. Sequences of one group (in merged mode: of one weight set) run together: a new
 * one joins at any step, its prompt in chunks beside the others' single tokens. When pages run out the latest sequences are put back and computed again
 * later, which changes nothing in their answers; the oldest always gets on, so nothing waits for ever.
 */
import { dropSequence, type KvPool, PAGE } from "../model/kv-cache.ts";
import { evictPages, findPrefix, type PrefixCache, pageName, rememberPage } from "./prefix-cache.ts";
import { BASE } from "./protocol.ts";
import { pagesToAdd, remaining, type Sequence } from "./sequence.ts";

export interface SchedulerLimits {
  readonly maxSequences: number;
  readonly prefillTokens: number;
  readonly quantumMs: number;
}

export interface Scheduler {
  readonly pool: KvPool;
  readonly cache: PrefixCache;
  readonly limits: SchedulerLimits;
  /** Names of a weight set's pages start from here. */
  readonly rootOf: (weights: string) => string;
  /** Sequences of equal group run in one batch. */
  readonly groupOf: (weights: string) => string;
  /** In order of arrival. */
  readonly waiting: Sequence[];
  /** In order of arrival, all weight sets. */
  readonly running: Sequence[];
  group: string;
  /** Since when `group` has had the machine, in ms. */
  since: number;
  /** When each group had the machine last. */
  readonly lastTurn: Map<string, number>;
  preemptions: number;
}

/** The next `count` tokens of a sequence. */
export interface PlannedChunk {
  readonly sequence: Sequence;
  readonly count: number;
}

export function createScheduler(
  pool: KvPool,
  cache: PrefixCache,
  limits: SchedulerLimits,
  { rootOf, groupOf }: Pick<Scheduler, "rootOf" | "groupOf">,
): Scheduler {
  const turns = { group: BASE, since: 0, lastTurn: new Map<string, number>() };
  return { pool, cache, limits, rootOf, groupOf, waiting: [], running: [], ...turns, preemptions: 0 };
}

/** Tokens of one group's sequences, those of equal weights together; null: there is nothing to do. `now` in ms. */
export function planStep(scheduler: Scheduler, now: number): PlannedChunk[] | null {
  const { running, waiting, lastTurn, group: current, limits, groupOf } = scheduler;
  const groups = new Set([...running, ...waiting].map(({ submission }) => groupOf(submission.weights)));
  const others = [...groups]
    .filter((group) => group !== current)
    .sort((a, b) => (lastTurn.get(a) ?? -1) - (lastTurn.get(b) ?? -1));
  const over = now - scheduler.since >= limits.quantumMs;
  const turns = !groups.has(current) ? others : over ? [...others, current] : [current, ...others];
  for (const group of turns) {
    admit(scheduler, group);
    const chunks = planChunks(scheduler, group);
    if (chunks.length === 0) continue;
    if (group !== current) scheduler.since = now;
    lastTurn.set(group, now);
    scheduler.group = group;
    const byWeights = Map.groupBy(chunks, ({ sequence }) => sequence.submission.weights);
    return [...byWeights.values()].flat();
  }
  return null;
}

/** Lets waiting sequences of one group run while there is room for their tokens and one page for each that runs. */
function admit(scheduler: Scheduler, group: string): void {
  const { limits, pool } = scheduler;
  for (const sequence of ofGroup(scheduler, scheduler.waiting, group)) {
    const active = ofGroup(scheduler, scheduler.running, group);
    const seats = active.reduce((n, { forks }) => n + 1 + forks, 0);
    if (seats + 1 + sequence.forks > limits.maxSequences) return;
    adoptPrefix(scheduler, sequence);
    const pages = Math.min(pagesToAdd(pool, sequence, remaining(sequence)) + active.length, pool.pages);
    // A group that nobody runs in yet may push out later sequences of others; else running ones go first.
    if (!reclaim(scheduler, pages, active.length === 0 ? sequence.order : Infinity)) {
      dropSequence(pool, sequence.kv);
      return;
    }
    remove(scheduler.waiting, sequence);
    insert(scheduler.running, sequence);
  }
}

/** Takes pages of the prefix cache; one token at least is left to compute, for its logits. */
function adoptPrefix(scheduler: Scheduler, sequence: Sequence): void {
  const { submission, tokens } = sequence;
  const unscored = submission.scorePrompt !== null && sequence.scored < submission.prompt.length - 1;
  if (!scheduler.cache.enabled || unscored) return;
  const whole = Math.floor((tokens.length - 1) / PAGE);
  sequence.kv = findPrefix(scheduler.cache, namedPages(scheduler, sequence).slice(0, whole));
}

/** Names of all whole pages of the sequence's tokens. */
function namedPages({ rootOf }: Scheduler, { submission, tokens, pageNames }: Sequence): readonly string[] {
  while ((pageNames.length + 1) * PAGE <= tokens.length) {
    const start = pageNames.length * PAGE;
    const parent = pageNames.at(-1) ?? rootOf(submission.weights);
    pageNames.push(pageName(parent, tokens.slice(start, start + PAGE)));
  }
  return pageNames;
}

/** After a step: pages that have become full since the sequence had `before` positions can be found by others. */
export function rememberPages(scheduler: Scheduler, sequence: Sequence, before: number): void {
  if (!scheduler.cache.enabled) return;
  const { kv } = sequence;
  const names = namedPages(scheduler, sequence);
  for (let i = Math.floor(before / PAGE); i < Math.floor(kv.length / PAGE); i++) {
    rememberPage(scheduler.cache, names[i]!, kv.pages[i]!);
  }
}

function planChunks(scheduler: Scheduler, group: string): PlannedChunk[] {
  const { limits, pool } = scheduler;
  const chunks: PlannedChunk[] = [];
  let budget = limits.prefillTokens;
  let promised = 0;
  // Oldest first, so that whoever is put back has no chunk in this step yet.
  for (const sequence of ofGroup(scheduler, scheduler.running, group)) {
    if (!scheduler.running.includes(sequence)) continue;
    const left = remaining(sequence);
    const count = left === 1 ? 1 : Math.min(left, budget);
    if (count === 0) continue;
    const pages = pagesToAdd(pool, sequence, count);
    if (!reclaim(scheduler, promised + pages, sequence.order)) {
      putBack(scheduler, sequence);
      continue;
    }
    promised += pages;
    if (left > 1) budget -= count;
    chunks.push({ sequence, count });
  }
  return chunks;
}

/** Whether `wanted` pages are free now: cached ones are given up, then sequences later than `order` put back. */
function reclaim(scheduler: Scheduler, wanted: number, order: number): boolean {
  const { pool, cache, running } = scheduler;
  evictPages(cache, wanted);
  while (pool.free.length < wanted) {
    const last = running.at(-1);
    if (!last || last.order <= order) return false;
    putBack(scheduler, last);
    evictPages(cache, wanted);
  }
  return true;
}

/** The sequence waits again, to be computed anew: the same tokens give the same numbers (settled 18). */
function putBack(scheduler: Scheduler, sequence: Sequence): void {
  scheduler.preemptions++;
  remove(scheduler.running, sequence);
  dropSequence(scheduler.pool, sequence.kv);
  insert(scheduler.waiting, sequence);
}

export function addSequence(scheduler: Scheduler, sequence: Sequence): void {
  insert(scheduler.waiting, sequence);
}

/** A sequence that runs beside its leader from here on. */
export function addFork(scheduler: Scheduler, sequence: Sequence): void {
  insert(scheduler.running, sequence);
}

/** The sequence is done or not wanted any more; its pages are free, but for those others or the cache hold. */
export function endSequence(scheduler: Scheduler, sequence: Sequence): void {
  remove(scheduler.running, sequence);
  remove(scheduler.waiting, sequence);
  dropSequence(scheduler.pool, sequence.kv);
}

/** Sequences of a request, or one choice of it. */
export function sequencesOf(scheduler: Scheduler, id: number, choice: number | null): Sequence[] {
  return [...scheduler.running, ...scheduler.waiting].filter(
    (s) => s.submission.id === id && (choice === null || s.choice === choice),
  );
}

function ofGroup({ groupOf }: Scheduler, sequences: readonly Sequence[], group: string): Sequence[] {
  return sequences.filter(({ submission }) => groupOf(submission.weights) === group);
}

function remove(list: Sequence[], sequence: Sequence): void {
  const at = list.indexOf(sequence);
  if (at >= 0) list.splice(at, 1);
}

function insert(list: Sequence[], sequence: Sequence): void {
  const at = list.findIndex(({ order }) => order > sequence.order);
  list.splice(at < 0 ? list.length : at, 0, sequence);
}
