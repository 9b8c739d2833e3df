/**
 * Beam search with the semantics of Hugging Face 4.36 and `early_stopping=False` (protocol §2.4, settled 23), on numbers
 * alone: it is fed the best tokens of every running beam and says which beams go on. One beam is greedy search.
 */

export interface BeamOptions {
  readonly beams: number;
  readonly maxNewTokens: number;
  readonly eosIds: readonly number[];
}

interface Hypothesis {
  readonly tokens: readonly number[];
  /** Sum of log-probabilities / number of generated tokens, EOS included. */
  readonly score: number;
}

interface Beam {
  readonly tokens: readonly number[];
  readonly score: number;
}

export interface BeamState {
  readonly options: BeamOptions;
  running: Beam[];
  readonly finished: Hypothesis[];
  done: boolean;
}

/** A token that a running beam may continue with. */
export interface Candidate {
  readonly beam: number;
  readonly token: number;
  readonly logProbability: number;
}

/** A beam of the next step: which running beam it continues, and with what. */
export interface Step {
  readonly parent: number;
  readonly token: number;
}

/**
 * One beam at first. Hugging Face starts with beams - 1 copies of it at a score of -1e9, which cost rows and come to
 * nothing: the first beam alone offers 2·beams better candidates.
 */
export function startBeams(options: BeamOptions): BeamState {
  return { options, running: [{ tokens: [], score: 0 }], finished: [], done: options.maxNewTokens === 0 };
}

/**
 * One step: `candidates` holds at least the 2·beams best tokens of every running beam.
 * @returns the beams that run on, best first; empty when the search is done.
 */
export function advanceBeams(state: BeamState, candidates: readonly Candidate[]): Step[] {
  const { beams, eosIds, maxNewTokens } = state.options;
  const length = state.running[0]!.tokens.length + 1;
  const best = candidates
    .map((c) => ({ ...c, score: Math.fround(state.running[c.beam]!.score + c.logProbability) }))
    .sort((a, b) => b.score - a.score || a.token - b.token || a.beam - b.beam)
    .slice(0, 2 * beams);
  const next: (Beam & Step)[] = [];
  best.forEach(({ beam, token, score }, rank) => {
    const tokens = [...state.running[beam]!.tokens, token];
    if (eosIds.includes(token)) {
      if (rank < beams) addHypothesis(state, tokens, score);
    } else if (next.length < beams) {
      next.push({ tokens, score, parent: beam, token });
    }
  });
  state.running = next.map(({ tokens, score }) => ({ tokens, score }));
  state.done = next.length === 0 || isDone(state, next[0]!.score, length);
  if (!state.done && length === maxNewTokens) {
    for (const { tokens, score } of state.running) addHypothesis(state, tokens, score);
    state.done = true;
  }
  return state.done ? [] : next.map(({ parent, token }) => ({ parent, token }));
}

/** The best hypothesis of a search that is done: generated tokens (EOS included where it ended so) and its score. */
export function bestHypothesis(state: BeamState): Hypothesis {
  let best: Hypothesis = { tokens: [], score: Number.NEGATIVE_INFINITY };
  for (const hypothesis of state.finished) if (hypothesis.score >= best.score) best = hypothesis;
  return best;
}

function addHypothesis(state: BeamState, tokens: readonly number[], sum: number): void {
  const hypothesis = { tokens, score: sum / tokens.length };
  const { finished } = state;
  if (finished.length >= state.options.beams && hypothesis.score <= worstScore(finished)) return;
  finished.push(hypothesis);
  if (finished.length > state.options.beams) finished.splice(worstIndex(finished), 1);
}

/** Enough hypotheses, and no running beam can still beat the worst of them. */
function isDone(state: BeamState, bestSum: number, length: number): boolean {
  return state.finished.length >= state.options.beams && worstScore(state.finished) >= bestSum / length;
}

function worstScore(finished: readonly Hypothesis[]): number {
  return Math.min(...finished.map((h) => h.score));
}

function worstIndex(finished: readonly Hypothesis[]): number {
  const worst = worstScore(finished);
  return finished.findIndex((h) => h.score === worst);
}
