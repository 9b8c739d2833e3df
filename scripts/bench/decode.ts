/** Target 4: tokens a second of one stream, eight streams and a prompt, beside llama.cpp on the same bf16 weights. */
import { join } from "node:path";
import type { Compute } from "../../src/adapters/adapter.ts";
import { withScratch } from "../../src/adapters/draw.ts";
import { withTemporaryFolder } from "../../src/formats/files.ts";
import { generate } from "../../src/generation/decode.ts";
import { createInferArena, inferRows, logitsOf } from "../../src/model/infer.ts";
import { createKvPool, dropSequence, emptySequence, freeKvPool, pagesFor } from "../../src/model/kv-cache.ts";
import { freeLlama, type Llama } from "../../src/model/model.ts";
import { freeArena } from "../../src/native/arena.ts";
import { sync } from "../../src/native/device.ts";
import { readF32 } from "../../src/native/tensor.ts";
import { fixedTokens } from "./batch.ts";
import { checkInference, relativeError } from "./check.ts";
import { type Bench, type BenchModel, benchModel, computesOf, loadBenchModel, roundsOf } from "./context.ts";
import { type Contender, interleave } from "./interleave.ts";
import { numberOf, type Peer, startPeer } from "./peer.ts";
import { writeRandomModel } from "./random-weights.ts";
import { addCheck, addFigure, addTarget } from "./report.ts";

const ROUNDS = 7;
const STREAMS = 8;
const BEAMS = 4;
/** Tokens in front of what is generated. */
export const SHORT_PROMPT = 16;
const TARGETS = { "1-stream": 1.25, "8-streams": 2, "prompt-512": 2.5 };
type Measured = keyof typeof TARGETS | "4-beams";
/** Both in bf16, with other orders of summation and llama.cpp's f16 cache. */
const SAME_MODEL = 0.05;

interface Sizes {
  readonly prompt: number;
  readonly tokens: number;
}

export async function benchDecode(bench: Bench): Promise<void> {
  const { options, report, device } = bench;
  const model = benchModel(bench);
  const sizes = options.quick ? { prompt: 64, tokens: 8 } : { prompt: 512, tokens: 128 };
  for (const compute of computesOf(bench, ["bf16"])) {
    bench.say(`decode: ${model.name} ${compute}`);
    await checkInference(report, device, model.config, compute);
    await withTemporaryFolder((folder) => measure(bench, model, compute, sizes, folder));
  }
}

async function measure(
  bench: Bench,
  of: BenchModel,
  compute: Compute,
  sizes: Sizes,
  folder: string,
): Promise<void> {
  const { options, device, report } = bench;
  const dir = of.folder ?? join(folder, "model");
  const needsPeer = options.llama !== null && compute === "bf16";
  if (needsPeer && of.folder === null) writeRandomModel(dir, of.config);
  const positions = Math.max(sizes.prompt, SHORT_PROMPT + sizes.tokens + 1);
  const model = loadBenchModel(device, of, compute, positions);
  const source = {
    name: "llama.cpp",
    dir,
    gguf: join(folder, "model.gguf"),
    positions,
    streams: [1, STREAMS],
  };
  const peer = needsPeer ? await openLlama(bench, of, source) : null;
  try {
    if (peer) await logitsCheck(bench, model, of, peer, SAME_MODEL);
    const results = await interleave<number>(
      [...ourContenders(model, sizes), ...(peer ? peerContenders(peer, sizes) : [])],
      roundsOf(bench, ROUNDS),
    );
    const name = `decode.${of.name}.${compute}`;
    for (const [contender, samples] of results) {
      addFigure(report, `${name}.${contender.replace(" ", "-")}`, "tokens/s", samples);
    }
    for (const [what, least] of Object.entries(TARGETS)) {
      const samples = results.get(`llama.cpp ${what}`);
      if (!samples) {
        report.missing.push(
          `${name}.${what}: ${compute === "bf16" ? "no --peer llama:PATH" : "the peer is bf16"}`,
        );
        continue;
      }
      const peerSide = { name: "llama.cpp", samples };
      addTarget(report, {
        name: `${name}.${what}`,
        unit: "tokens/s",
        ours: results.get(what)!,
        peer: peerSide,
        bound: { least },
      });
    }
  } finally {
    await peer?.close();
    freeLlama(model);
  }
}

function ourContenders(model: Llama, sizes: Sizes): Contender<number>[] {
  const generated = (streams: number, beams: number) => () =>
    generateRate(model, streams, beams, sizes.tokens);
  const named = (name: Measured, run: () => number | Promise<number>): Contender<number> => ({ name, run });
  return [
    named("1-stream", generated(1, 1)),
    named("8-streams", generated(STREAMS, 1)),
    named("prompt-512", () => promptRate(model, sizes.prompt)),
    named("4-beams", generated(1, BEAMS)),
  ];
}

/** Tokens a second of decoding alone: from the end of the first step to the end of the last. */
export async function generateRate(
  model: Llama,
  streams: number,
  beams: number,
  tokens: number,
): Promise<number> {
  const { vocabSize } = model.config;
  const prompts = Array.from({ length: streams }, (_, i) => [...fixedTokens(SHORT_PROMPT, vocabSize, i)]);
  const ends: number[] = [];
  const started = performance.now();
  await generate(model, prompts, {
    beams,
    maxNewTokens: tokens + 1,
    eosIds: [],
    concurrency: streams,
    onToken: () => ends.push(performance.now()),
  });
  // A search says nothing on its way: its prompt is counted too.
  if (beams > 1) return (tokens + 1) / ((performance.now() - started) / 1000);
  const seconds = (ends.at(-1)! - ends[streams - 1]!) / 1000;
  return (streams * tokens) / seconds;
}

/** Tokens a second of a prompt in one batch, up to the logits after its last token. */
function promptRate(model: Llama, tokens: number): number {
  const prompt = [...fixedTokens(tokens, model.config.vocabSize, 0)];
  const pool = createKvPool(model, pagesFor(1, tokens));
  const arena = createInferArena(model, { rows: tokens, sequences: 1, positions: tokens, logits: 1 });
  const sequence = emptySequence();
  const started = performance.now();
  withScratch(arena, () => {
    logitsOf(model, inferRows(model, pool, [{ sequence, tokens: prompt, wanted: "last" }], arena), arena);
    sync(model.device);
  });
  const seconds = (performance.now() - started) / 1000;
  dropSequence(pool, sequence);
  freeArena(arena);
  freeKvPool(pool);
  return tokens / seconds;
}

interface LlamaSource {
  /** As the report has it. */
  readonly name: string;
  /** The model folder, and the file that is made of it. */
  readonly dir: string;
  readonly gguf: string;
  readonly positions: number;
  readonly streams: readonly number[];
  /** A type of llama.cpp's quantizer, and "bf16" where embedding and head are left out of it. */
  readonly quantize?: string;
  readonly head?: "bf16" | null;
}

export async function openLlama(
  { options, device, report, say }: Bench,
  { config }: BenchModel,
  { name, dir, gguf, positions, streams, quantize, head }: LlamaSource,
): Promise<Peer> {
  const python = options.python ?? Bun.which("python3") ?? "python3";
  const peer = await startPeer(name, python, "llama_decode.py", [options.llama!]);
  const { system, bytes } = await peer.ask({
    do: "load",
    folder: dir,
    gguf,
    vocabulary: config.vocabSize,
    threads: device.threads,
    positions,
    streams,
    quantize: quantize ?? null,
    head: head ?? null,
  });
  report.peers[peer.name] = { ...peer.about, system, bytes };
  say(`decode: ${name} ${peer.about.library}, ${bytes} bytes of weights, ${system}`);
  return peer;
}

/** Ours and llama.cpp's logits after the same tokens: what is compared is the same model. */
export async function logitsCheck(
  bench: Bench,
  model: Llama,
  { name, config }: BenchModel,
  peer: Peer,
  tolerance: number,
): Promise<void> {
  const tokens = [...fixedTokens(SHORT_PROMPT, config.vocabSize, 3)];
  const pool = createKvPool(model, pagesFor(1, tokens.length));
  const plan = { rows: tokens.length, sequences: 1, positions: tokens.length, logits: 1 };
  const arena = createInferArena(model, plan);
  const hidden = inferRows(model, pool, [{ sequence: emptySequence(), tokens, wanted: "last" }], arena);
  const ours = readF32(model.device, logitsOf(model, hidden, arena));
  freeArena(arena);
  freeKvPool(pool);
  const theirs = (await peer.ask({ do: "logits", tokens })).logits as number[];
  addCheck(bench.report, {
    name: `${name} logits beside ${peer.name}'s`,
    error: relativeError(ours, theirs),
    tolerance,
  });
}

/** Tokens a second of llama.cpp's decoding alone. */
export async function llamaRate(peer: Peer, streams: number, tokens: number): Promise<number> {
  const answer = await peer.ask({ do: "generate", streams, prompt: SHORT_PROMPT, tokens });
  return (streams * tokens) / numberOf(answer, "seconds");
}

function peerContenders(peer: Peer, { prompt, tokens }: Sizes): Contender<number>[] {
  const named = (name: Measured, run: () => Promise<number>): Contender<number> => ({
    name: `llama.cpp ${name}`,
    run,
  });
  return [
    named("1-stream", () => llamaRate(peer, 1, tokens)),
    named("8-streams", () => llamaRate(peer, STREAMS, tokens)),
    named(
      "prompt-512",
      async () => prompt / numberOf(await peer.ask({ do: "prompt", tokens: prompt }), "seconds"),
    ),
  ];
}
