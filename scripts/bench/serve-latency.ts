/**
 * Issue 6, zero extra latency: base and merged model in short alternating turns on one engine, the unmerged mode beside
 * them; and before that the reason, which is no measurement: the same native calls, nothing behind any linear.
 */
import type { Compute } from "../../src/adapters/adapter.ts";
import { withTemporaryFolder } from "../../src/formats/files.ts";
import { buildLlama, freeLlama, type Llama } from "../../src/model/model.ts";
import { linearNames } from "../../src/model/shapes.ts";
import { closeDevice } from "../../src/native/device.ts";
import { timeCalls } from "../../src/native/timed.ts";
import { pairedMedian } from "../../src/reporting/statistics.ts";
import { BASE } from "../../src/serving/protocol.ts";
import { fixedTokens } from "./batch.ts";
import { type Bench, type BenchModel, loadBenchModel, openWithThreads, roundsOf } from "./context.ts";
import { interleave } from "./interleave.ts";
import type { StepMethod } from "./options.ts";
import { randomSource } from "./random-weights.ts";
import { addCheck, addFigure, addTarget, formatFigure } from "./report.ts";
import { type BenchEngine, loadRandomAdapter, openEngine } from "./serve-engine.ts";

/** Pairs of a method: what it takes for an interval of ± 0.02 where a turn's time spreads by a tenth. */
const ROUNDS = 120;
/** Of the unmerged mode, whose ratio nobody asks to be 1. */
const UNMERGED_ROUNDS = 15;
const CHECK_LAYERS = 2;
const CHECK_PROMPT = 12;

interface Sizes {
  readonly prompt: number;
  readonly tokens: number;
}
const USUAL: Sizes = { prompt: 100, tokens: 16 };
const QUICK: Sizes = { prompt: 16, tokens: 4 };

/** One turn: a prompt to its first token, then single tokens. */
interface Turn {
  /** Milliseconds. */
  readonly first: number;
  /** Tokens a second after the first. */
  readonly decode: number;
}

interface Pair {
  readonly base: Turn;
  readonly other: Turn;
}

const PARTS = {
  decode: { unit: "tokens/s", label: "decode" },
  first: { unit: "ms", label: "first-token" },
} as const;
type Part = keyof typeof PARTS;
const parts = Object.keys(PARTS) as Part[];

export async function benchLatency(bench: Bench, of: BenchModel, compute: Compute): Promise<void> {
  const { options, device } = bench;
  const sizes = options.quick ? QUICK : USUAL;
  const { methods } = options;
  await withTemporaryFolder((folder) => checkSameCalls(bench, of, compute, folder));
  const positions = sizes.prompt + sizes.tokens + 1;
  const [model, other] = [0, 1].map(() => loadBenchModel(device, of, compute, positions)) as [Llama, Llama];
  const merged = openEngine(model, "merged", positions);
  const unmerged = openEngine(other, "unmerged", positions);
  try {
    await withTemporaryFolder(async (folder) => {
      for (const method of methods) loadRandomAdapter([merged, unmerged], model, folder, method);
    });
    const name = `serve.${of.name}.${compute}`;
    const prompt = [...fixedTokens(sizes.prompt, of.config.vocabSize, 2)];
    const turn = (engine: BenchEngine, weights: string) => (): Turn =>
      measured(engine, weights, prompt, sizes);
    // Base beside base: what the instrument itself makes of two equal things.
    for (const weights of [BASE, ...methods]) {
      const pairs = await pairsOf(turn(merged, BASE), turn(merged, weights), roundsOf(bench, ROUNDS));
      tell(bench, name, weights || "base", pairs);
      if (weights !== BASE) judge(bench, of, name, weights as StepMethod, pairs);
    }
    for (const method of methods) {
      const rounds = roundsOf(bench, UNMERGED_ROUNDS);
      tell(
        bench,
        name,
        `unmerged-${method}`,
        await pairsOf(turn(merged, BASE), turn(unmerged, method), rounds),
      );
    }
  } finally {
    for (const engine of [merged, unmerged]) engine.free();
    for (const one of [model, other]) freeLlama(one);
  }
}

/** Two sides in turn, who is first changing from round to round. */
async function pairsOf(base: () => Turn, other: () => Turn, rounds: number): Promise<Pair[]> {
  const pair = (round: number): Pair => {
    if (round % 2 === 0) return { base: base(), other: other() };
    const second = other();
    return { base: base(), other: second };
  };
  return (await interleave([{ name: "pair", run: pair }], rounds)).get("pair")!;
}

function measured(engine: BenchEngine, weights: string, prompt: readonly number[], { tokens }: Sizes): Turn {
  // The swap, and whatever the other side has left in the caches, are no part of the turn.
  engine.answer(weights, prompt.slice(0, 2), 1);
  const { at } = engine.answer(weights, prompt, tokens + 1);
  return { first: at[0]!, decode: tokens / ((at.at(-1)! - at[0]!) / 1000) };
}

/** Both sides' figures, the ratio of every pair, and a line with the interval. */
function tell({ report, say }: Bench, name: string, what: string, pairs: readonly Pair[]): void {
  const told = parts.map((part) => {
    const { unit, label } = PARTS[part];
    const [ours, base] = [pairs.map(({ other }) => other[part]), pairs.map((pair) => pair.base[part])];
    addFigure(report, `${name}.${label}.${what}`, unit, ours);
    addFigure(
      report,
      `${name}.${label}.${what}/base`,
      "of its base's turn",
      ours.map((v, i) => v / base[i]!),
    );
    const { ratio, low, high } = pairedMedian(ours, base);
    return `${label} ${formatFigure(ratio)} [${formatFigure(low)}, ${formatFigure(high)}]`;
  });
  say(`serve: ${what} / base, ${pairs.length} pairs: ${told.join(", ")}`);
}

function judge(bench: Bench, of: BenchModel, name: string, method: StepMethod, pairs: readonly Pair[]): void {
  const { report, options } = bench;
  for (const part of parts) {
    const { unit, label } = PARTS[part];
    const target = `${name}.${label}.${method}/base`;
    if (of.shape !== "smollm2" || options.quick || pairs.length < 2) {
      report.missing.push(`${target}: the target is about SmolLM2, measured at length`);
      continue;
    }
    addTarget(report, {
      name: target,
      unit,
      ours: pairs.map(({ other }) => other[part]),
      peer: { name: "base", samples: pairs.map(({ base }) => base[part]) },
      bound: { equal: true },
    });
  }
}

/**
 * An answer with merged weights makes the base's native calls, each as often, and finds no adapter behind a linear; SBoRA
 * has not even another matrix there. The unmerged mode, where adapters do stand behind the linears, shows that this sees.
 */
async function checkSameCalls(
  { report, options, device }: Bench,
  of: BenchModel,
  compute: Compute,
  folder: string,
): Promise<void> {
  const counted = timeCalls(await openWithThreads(device, device.threads));
  const config = { ...of.config, layers: Math.min(CHECK_LAYERS, of.config.layers) };
  const prompt = [...fixedTokens(CHECK_PROMPT, config.vocabSize, 4)];
  const tokens = QUICK.tokens;
  const load = { compute, positions: CHECK_PROMPT + tokens + 1 };
  const build = (): Llama => buildLlama(counted.device, config, randomSource(counted.device), load);
  const [model, other] = [build(), build()];
  const merged = openEngine(model, "merged", load.positions);
  const unmerged = openEngine(other, "unmerged", load.positions);
  const seen = (engine: BenchEngine, weights: string): { said: string; calls: Map<string, number> } => {
    engine.answer(weights, prompt, 1);
    counted.reset();
    const said = engine.answer(weights, prompt, tokens, true).logprobs.join();
    return { said, calls: new Map([...counted.times].map(([name, { calls }]) => [name, calls])) };
  };
  try {
    for (const method of options.methods) loadRandomAdapter([merged, unmerged], model, folder, method);
    const base = seen(merged, BASE);
    const matrices = linearsOf(model).map(({ weight }) => weight);
    const differences = (calls: ReadonlyMap<string, number>): number =>
      [...calls].filter(([name, count]) => count !== base.calls.get(name)).length;
    for (const method of options.methods) {
      const { said, calls } = seen(merged, method);
      const behind = linearsOf(model).filter(({ adapter }) => adapter !== null).length;
      const replaced = linearsOf(model).filter(({ weight }, i) => weight !== matrices[i]).length;
      const name = `${of.name} ${compute} ${method}`;
      const error = differences(calls) + behind + (method.startsWith("sbora") ? replaced : 0);
      addCheck(report, { name: `${name} merged: the base's native calls, no adapter`, error, tolerance: 0 });
      if (said === base.said) throw new Error(`${name}: an adapter that changes nothing proves nothing`);
      if (differences(seen(unmerged, method).calls) === 0) throw new Error(`${name}: calls are not seen`);
    }
  } finally {
    for (const engine of [merged, unmerged]) engine.free();
    for (const one of [model, other]) freeLlama(one);
    closeDevice(counted.device);
  }
}

function linearsOf({ layers }: Llama): Llama["layers"][number]["linears"]["q_proj"][] {
  return layers.flatMap(({ linears }) => linearNames.map((name) => linears[name]));
}
