/** Issue 6: a request that comes while 16 streams run waits for two steps of theirs at most, and for its own prompt. */
import { median } from "../../src/reporting/statistics.ts";
import { fixedTokens } from "./batch.ts";
import { type Bench, type BenchModel, roundsOf } from "./context.ts";
import { interleave } from "./interleave.ts";
import { addFigure, addTarget } from "./report.ts";
import { type ChildServer, counterOf, openStream, type Stream } from "./serve-server.ts";

export const STREAMS = 16;
const JOINS = 9;
/** A tiny model may be done with all streams before a busy machine lets another request come. */
const TRIES = 6;
/** Tokens that every stream has had when another request comes. */
const RUNNING = 12;

/** In tokens. */
export interface Sizes {
  readonly prompt: number;
  /** Of every stream's answer. */
  readonly tokens: number;
  /** Prompt of the request that comes in between. */
  readonly joining: number;
  readonly context: number;
}

export function prompt({ config }: BenchModel, length: number, seed: number): number[] {
  return [...fixedTokens(length, config.vocabSize, seed)];
}

/** One request among 16 that run. Milliseconds, but for `steps`. */
interface Joined {
  /** To its first token. */
  readonly first: number;
  /** The same request on an idle server. */
  readonly own: number;
  /** One step of the running batch. */
  readonly step: number;
  /** Most tokens that one of the others was given meanwhile. */
  readonly steps: number;
}

export async function measureJoining(
  bench: Bench,
  of: BenchModel,
  name: string,
  sizes: Sizes,
  ours: ChildServer,
): Promise<void> {
  const { report, options } = bench;
  const turns = await interleave(
    [{ name: "joined", run: (round) => joinedTurn(ours, of, sizes, round) }],
    roundsOf(bench, JOINS),
  );
  const joined = turns.get("joined")!;
  const label = `${name}.first-token-among-${STREAMS}`;
  const first = joined.map((turn) => turn.first);
  const allowed = joined.map(({ step, own }) => 2 * step + own);
  addFigure(report, label, "ms", first);
  addFigure(
    report,
    `${label}.own-prefill`,
    "ms",
    joined.map(({ own }) => own),
  );
  addFigure(
    report,
    `${label}.step`,
    "ms",
    joined.map(({ step }) => step),
  );
  addFigure(
    report,
    `${label}.tokens-of-others`,
    "tokens",
    joined.map(({ steps }) => steps),
  );
  if (of.shape !== "smollm2" || options.quick) {
    report.missing.push(`${label}: the target is about SmolLM2, measured at length`);
    return;
  }
  const peer = { name: "two-steps-and-own-prefill", samples: allowed };
  addTarget(report, { name: label, unit: "ms", ours: first, peer, bound: { most: 1 } });
}

async function joinedTurn(ours: ChildServer, of: BenchModel, sizes: Sizes, round: number): Promise<Joined> {
  for (let tries = 0; tries < TRIES; tries++) {
    const joined = await join16(ours, of, sizes, round);
    if (joined) return joined;
  }
  throw new Error("the others were always done too early");
}

/** null: the others were done before. */
async function join16(
  ours: ChildServer,
  of: BenchModel,
  sizes: Sizes,
  round: number,
): Promise<Joined | null> {
  const wish = { prompt: prompt(of, sizes.joining, 99 + round), tokens: 1, logprobs: 0 };
  const firstToken = async (): Promise<{ sent: number; told: number }> => {
    const sent = performance.now();
    const stream = openStream(ours, wish);
    await stream.done;
    return { sent, told: stream.times[0]! };
  };
  const alone = await firstToken();
  const length = sizes.context - sizes.prompt;
  const others = Array.from({ length: STREAMS }, (_, i) =>
    openStream(ours, { prompt: prompt(of, sizes.prompt, i), tokens: length, logprobs: 0 }),
  );
  try {
    await until(() => others.every(({ times }) => times.length >= RUNNING));
    if (others.some(({ times }) => times.length >= length)) return null;
    const { sent, told } = await firstToken();
    const given = others.map(({ times }) => times.filter((time) => time > sent && time <= told).length);
    return {
      ...{ first: told - sent, own: alone.told - alone.sent },
      step: median(others.map((stream) => gapBefore(stream, sent))),
      steps: Math.max(...given),
    };
  } finally {
    for (const stream of others) stream.leave();
    await Promise.allSettled(others.map(({ done }) => done));
    // They leave between two steps; the next turn starts from an idle server.
    await until(async () => (await counterOf(ours, "sbora_sequences_running")) === 0);
  }
}

/** Mean milliseconds from one token of a stream to the next, over the last ones before `time`. */
function gapBefore({ times }: Stream, time: number): number {
  const known = times.filter((at) => at <= time).slice(-RUNNING);
  return (known.at(-1)! - known[0]!) / (known.length - 1);
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 20_000; tries++) {
    if (await condition()) return;
    await Bun.sleep(1);
  }
  throw new Error("the server did not do what was waited for");
}
