/** Issue 6, the server with 16 streams at once: answers, throughput, a request that comes in between; beside llama.cpp's. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Compute } from "../../src/adapters/adapter.ts";
import { withTemporaryFolder } from "../../src/formats/files.ts";
import { exportGguf } from "../../src/formats/hf-to-gguf.ts";
import { BYTE_LEVEL } from "../../src/text/testing.ts";
import { relativeError } from "./check.ts";
import { type Bench, type BenchModel, roundsOf } from "./context.ts";
import { type Contender, interleave } from "./interleave.ts";
import { writeRandomModel } from "./random-weights.ts";
import { addCheck, addFigure, addTarget } from "./report.ts";
import { measureJoining, prompt, type Sizes, STREAMS } from "./serve-joining.ts";
import {
  type ChildServer,
  complete,
  counterOf,
  llamaServerVersion,
  openStream,
  type ServerPlan,
  startLlamaServer,
  startOurs,
} from "./serve-server.ts";

const ROUNDS = 7;
const SIXTEEN = `${STREAMS}-streams`;
const TIMES_ONE = 4;
const TIMES_PEER = 2;
/** Both in bf16, with other orders of summation and llama.cpp's f16 cache. */
const SAME_MODEL = 0.05;
const SAME_PROMPTS = 4;
const CHECK_TOKENS = 12;
const CHECK_LOGPROBS = 5;

const USUAL: Sizes = { prompt: 32, tokens: 64, joining: 100, context: 512 };
const QUICK: Sizes = { prompt: 8, tokens: 12, joining: 24, context: 512 };

export async function benchStreams(bench: Bench, of: BenchModel, compute: Compute): Promise<void> {
  await withTemporaryFolder(async (folder) => {
    const dir = of.folder ?? join(folder, "model");
    if (of.folder === null) writeServedModel(dir, of);
    const usual = bench.options.quick ? QUICK : USUAL;
    const sizes = { ...usual, context: Math.min(usual.context, of.config.maxPositions) };
    // One slot more than streams: for the request that comes in between.
    const plan = { threads: bench.device.threads, slots: STREAMS + 1, context: sizes.context };
    const servers: ChildServer[] = [];
    try {
      const ours = await startOurs(dir, compute, plan);
      servers.push(ours);
      const name = `serve.${of.name}.${compute}`;
      await checkSameAnswers(bench, of, name, ours);
      const peer = await openPeer(bench, of, compute, dir, folder, plan);
      if (peer) {
        servers.push(peer);
        await checkSameModel(bench, of, name, ours, peer);
      }
      await measureThroughput(bench, of, name, sizes, servers);
      await measureJoining(bench, of, name, sizes, ours);
    } finally {
      for (const server of servers) await server.close();
    }
  });
}

/** Random weights with a tokenizer: prompts are ids, but a server needs something to spell answers with. */
function writeServedModel(dir: string, { config }: BenchModel): void {
  writeRandomModel(dir, config);
  for (const [name, content] of Object.entries(BYTE_LEVEL)) {
    const own = structuredClone(content) as { model?: { vocab: Record<string, number> } };
    const vocab = own.model?.vocab;
    for (let id = Object.keys(vocab ?? {}).length; vocab && id < config.vocabSize; id++) vocab[`x${id}`] = id;
    writeFileSync(join(dir, name), JSON.stringify(own));
  }
}

/** Texts, log-probabilities and candidates of 16 prompts, alone and together: the same to the last bit. */
async function checkSameAnswers(
  bench: Bench,
  of: BenchModel,
  name: string,
  ours: ChildServer,
): Promise<void> {
  const wishes = Array.from({ length: STREAMS }, (_, i) => ({
    prompt: prompt(of, 3 + 7 * i, i),
    tokens: CHECK_TOKENS,
    logprobs: CHECK_LOGPROBS,
  }));
  const answer = async (wish: (typeof wishes)[number]): Promise<string> =>
    JSON.stringify((await complete(ours, wish)).choices);
  const steps = (): Promise<number> => counterOf(ours, "sbora_step_seconds_count");
  const alone: string[] = [];
  await answer(wishes[0]!);
  const start = await steps();
  for (const wish of wishes) alone.push(await answer(wish));
  const between = await steps();
  const together = await Promise.all(wishes.map(answer));
  const [one, all] = [between - start, (await steps()) - between];
  if (all > one / 2) throw new Error(`${name}: ${all} steps for 16 requests at once, ${one} one by one`);
  if (new Set(alone).size < STREAMS / 2) throw new Error(`${name}: too many answers are equal to prove much`);
  const error = together.filter((text, i) => text !== alone[i]).length;
  addCheck(bench.report, { name: `${name} alone = among ${STREAMS}, bit for bit`, error, tolerance: 0 });
}

/** llama.cpp's server on the same bits, or the reason why not. */
async function openPeer(
  { options, report, say }: Bench,
  of: BenchModel,
  compute: Compute,
  dir: string,
  folder: string,
  plan: ServerPlan,
): Promise<ChildServer | null> {
  const reason =
    options.llamaServer === null
      ? "no --peer llama-server:PATH"
      : compute !== "bf16"
        ? "the peer is bf16"
        : of.folder === null || !existsSync(join(dir, "tokenizer.json"))
          ? "the peer needs a model with a tokenizer, --model"
          : null;
  if (reason !== null || options.llamaServer === null) {
    report.missing.push(`serve.${of.name}.${compute}.${SIXTEEN}/llama-server: ${reason}`);
    return null;
  }
  const version = llamaServerVersion(options.llamaServer);
  report.peers["llama-server"] = { version };
  say(`serve: llama.cpp's server, ${version}`);
  const gguf = join(folder, "model.gguf");
  exportGguf(dir, gguf, { type: "BF16" });
  return startLlamaServer(options.llamaServer, gguf, { ...plan, slots: STREAMS });
}

/** What is compared is the same model: both find the same next token as likely. */
async function checkSameModel(
  { report }: Bench,
  of: BenchModel,
  name: string,
  ours: ChildServer,
  peer: ChildServer,
): Promise<void> {
  const scores = async (server: ChildServer): Promise<number[]> => {
    const all: number[] = [];
    for (let i = 0; i < SAME_PROMPTS; i++) {
      const wish = { prompt: prompt(of, 24, 30 + i), tokens: 1, logprobs: 1 };
      all.push(firstScore(await complete(server, wish)));
    }
    return all;
  };
  const error = relativeError(await scores(peer), await scores(ours));
  addCheck(report, { name: `${name} log-probabilities beside llama.cpp's`, error, tolerance: SAME_MODEL });
}

/** llama.cpp reports as OpenAI's chat route does, on this route too. */
function firstScore({ choices }: Awaited<ReturnType<typeof complete>>): number {
  const report = choices[0]?.logprobs as
    | { token_logprobs?: number[]; content?: { logprob: number }[] }
    | null
    | undefined;
  return report?.token_logprobs?.[0] ?? report?.content?.[0]?.logprob ?? Number.NaN;
}

async function measureThroughput(
  bench: Bench,
  of: BenchModel,
  name: string,
  sizes: Sizes,
  servers: readonly ChildServer[],
): Promise<void> {
  const { report, options } = bench;
  const rate = (server: ChildServer, streams: number) => async (): Promise<number> => {
    const start = performance.now();
    const open = Array.from({ length: streams }, (_, i) =>
      openStream(server, { prompt: prompt(of, sizes.prompt, i), tokens: sizes.tokens }),
    );
    const counts = await Promise.all(open.map(({ done }) => done));
    const total = counts.reduce((sum, count) => sum + count, 0);
    return total / ((performance.now() - start) / 1000);
  };
  const contenders = servers.flatMap((server): Contender<number>[] => [
    { name: rateName(server, "1-stream"), run: rate(server, 1) },
    { name: rateName(server, SIXTEEN), run: rate(server, STREAMS) },
  ]);
  const results = await interleave(contenders, roundsOf(bench, ROUNDS));
  for (const [who, samples] of results) addFigure(report, `${name}.${who}`, "tokens/s", samples);
  const sixteen = results.get(SIXTEEN)!;
  const target = (label: string, peer: string, key: string, least: number): void => {
    const samples = results.get(key);
    if (!samples) return;
    if (of.shape !== "smollm2" || options.quick) {
      report.missing.push(`${name}.${label}: the target is about SmolLM2, measured at length`);
    } else {
      const bound = { least };
      const beside = { name: peer, samples };
      addTarget(report, { name: `${name}.${label}`, unit: "tokens/s", ours: sixteen, peer: beside, bound });
    }
  };
  target(`${SIXTEEN}/1-stream`, "1-stream", "1-stream", TIMES_ONE);
  target(`${SIXTEEN}/llama-server`, "llama-server", `llama-server.${SIXTEEN}`, TIMES_PEER);
}

/** Ours carry no name of their own. */
function rateName({ name }: ChildServer, what: string): string {
  return name === "ours" ? what : `${name}.${what}`;
}
