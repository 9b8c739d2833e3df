/**
 * Issue 6: one merged SBoRA adapter for another, restoring included, beside PEFT's unmerge, set and merge of LoRA. A
 * library may let flips wait for the next product, so what is timed is what a swap adds to the steps behind it.
 */
import { join } from "node:path";
import type { Compute } from "../../src/adapters/adapter.ts";
import { withScratch } from "../../src/adapters/draw.ts";
import { readWholeWeight } from "../../src/adapters/full.ts";
import { methodNamed } from "../../src/adapters/registry.ts";
import { saveAdapter } from "../../src/adapters/storage.ts";
import { withTemporaryFolder } from "../../src/formats/files.ts";
import { toHfConfig } from "../../src/formats/hf-config.ts";
import { createInferArena, inferRows, logitsOf } from "../../src/model/infer.ts";
import {
  createKvPool,
  dropSequence,
  emptySequence,
  freeKvPool,
  type KvPool,
} from "../../src/model/kv-cache.ts";
import { freeLlama, type Llama } from "../../src/model/model.ts";
import { linearNames } from "../../src/model/shapes.ts";
import { attachTrainables, freeTrainables } from "../../src/model/trainables.ts";
import { type Arena, createArena, freeArena } from "../../src/native/arena.ts";
import { sync } from "../../src/native/device.ts";
import { createTensor, freeTensor, readBytes, sizeOf, writeF32 } from "../../src/native/tensor.ts";
import type { Weight } from "../../src/native/weight.ts";
import { median } from "../../src/reporting/statistics.ts";
import { BASE } from "../../src/serving/protocol.ts";
import {
  activate,
  addWeightSet,
  createWeightSets,
  freeWeightSets,
  type WeightSets,
} from "../../src/serving/swap.ts";
import { type Bench, type BenchModel, benchModel, computesOf, loadBenchModel, roundsOf } from "./context.ts";
import { type Contender, interleave, timed } from "./interleave.ts";
import type { PeerForm } from "./options.ts";
import { formEnvironment, numberOf, type Peer, startPeer } from "./peer.ts";
import { randomValues } from "./random-weights.ts";
import { addCheck, addFigure, addTarget, type Report } from "./report.ts";

const ROUNDS = 15;
/** Swaps of a turn, there and back. */
const SWAPS = 16;
/** Steps behind a swap: the first one flips, and the second one has the caches to itself but for what is not written yet. */
const STEPS = 2;
const METHODS = ["sbora-fa", "sbora-fb"] as const;
type SwapMethod = (typeof METHODS)[number];
const RANKS = [32, 64];
/** Milliseconds at rank 64 in bf16. The columns of a panel lie together in our layout, the rows do not. */
const MOST_MS: Record<SwapMethod, number> = { "sbora-fa": 3, "sbora-fb": 6 };
const MS_RANK = 64;
const PEER_RANK = 32;
const TIMES_PEER = 50;
const FORMS: readonly PeerForm[] = ["tuned"];
const FINGERPRINT = "bench";

type Times = ReadonlyMap<string, readonly number[]>;

/** Decodes single tokens with whatever weights are active. */
interface Decoder {
  readonly pool: KvPool;
  readonly arena: Arena;
}

export async function benchSwap(bench: Bench): Promise<void> {
  const of = benchModel(bench);
  for (const compute of computesOf(bench, ["bf16", "f32"])) {
    bench.say(`swap: ${of.name} ${compute}, ${of.config.layers} layers, all seven linears`);
    const model = loadBenchModel(bench.device, of, compute, 1);
    const sets = createWeightSets(model, { fingerprint: FINGERPRINT });
    const plan = { rows: 1, sequences: 1, positions: 1, logits: 1 };
    const decoder = { pool: createKvPool(model, 1), arena: createInferArena(model, plan) };
    try {
      const ranks = RANKS.filter((rank) => rank <= narrowest(model));
      await withTemporaryFolder(async (folder) => {
        for (const rank of ranks)
          for (const method of METHODS)
            for (const which of "ab") addAdapter(sets, folder, method, rank, which);
      });
      for (const rank of ranks) for (const method of METHODS) checkSwaps(bench.report, sets, method, rank);
      await measure(bench, of, compute, sets, decoder, ranks);
    } finally {
      freeArena(decoder.arena);
      freeKvPool(decoder.pool);
      freeWeightSets(sets);
      freeLlama(model);
    }
  }
}

function weightsOf({ layers }: Llama): Weight[] {
  return layers.flatMap(({ linears }) => linearNames.map((name) => linears[name].weight));
}

function narrowest(model: Llama): number {
  return Math.min(...weightsOf(model).map((weight) => Math.min(weight.out, weight.in)));
}

function keyOf(method: SwapMethod, rank: number, which: string): string {
  return `${method}-r${rank}-${which}`;
}

/** An adapter of random values, by way of a folder as a user's would come. */
function addAdapter(sets: WeightSets, root: string, method: SwapMethod, rank: number, which: string): void {
  const { model } = sets;
  const { device } = model;
  const key = keyOf(method, rank, which);
  const seed = which.charCodeAt(0);
  const scratch = createArena(device, 1 << 20);
  const options = { method: methodNamed(method), rank, alpha: 2 * rank, targets: ["all-linear"], seed };
  const trained = attachTrainables(model, options, scratch);
  writeF32(device, trained.parameters, randomValues(sizeOf(trained.parameters), seed, 2 ** -6));
  saveAdapter(join(root, key), device, trained.adapters, {
    layout: "native",
    baseModel: "bench",
    alpha: options.alpha,
    dropout: 0,
    metadata: { method, seed, base: FINGERPRINT, recipe: null, templateHash: null },
  });
  freeTrainables(model, trained);
  freeArena(scratch);
  addWeightSet(sets, key, join(root, key));
}

/** Every value of a layer's matrices. */
function firstLayer({ device, layers }: Llama): Uint8Array {
  const parts = linearNames.map((name) => {
    const { weight } = layers[0]!.linears[name];
    const values = createTensor(device, "f32", [weight.out, weight.in]);
    readWholeWeight(device, weight, values);
    const bytes = readBytes(device, values);
    freeTensor(device, values);
    return bytes;
  });
  return Buffer.concat(parts);
}

/** Both adapters change the weights, each in its own way, whatever was there before, and leave no trace. */
function checkSwaps(report: Report, sets: WeightSets, method: SwapMethod, rank: number): void {
  const after = (which: string | null): Uint8Array => {
    activate(sets, which === null ? BASE : keyOf(method, rank, which));
    return firstLayer(sets.model);
  };
  const [base, a, b] = [after(null), after("a"), after("b")];
  const changed = (one: Uint8Array, other: Uint8Array): number => (Buffer.compare(one, other) === 0 ? 0 : 1);
  if (!changed(base, a) || !changed(base, b) || !changed(a, b)) {
    throw new Error(`${method}: an adapter that changes nothing cannot be timed`);
  }
  const error = Math.max(changed(a, after("a")), changed(base, after(null)));
  addCheck(report, { name: `swap ${method} r${rank} bit for bit`, error, tolerance: 0 });
}

async function measure(
  bench: Bench,
  of: BenchModel,
  compute: Compute,
  sets: WeightSets,
  decoder: Decoder,
  ranks: readonly number[],
): Promise<void> {
  const { options, report } = bench;
  const name = `swap.${of.name}.${compute}`;
  const ours = ranks.flatMap((rank) =>
    METHODS.flatMap((method) => [contender(sets, decoder, method, rank), atOnce(sets, method, rank)]),
  );
  const forms = options.python ? (options.forms ?? FORMS) : [];
  if (forms.length === 0) {
    report.missing.push(`${name}.r${PEER_RANK}/peft: no --peer python:PATH`);
    own(bench, of, name, await interleave(ours, roundsOf(bench, ROUNDS)));
  }
  for (const form of forms) {
    const times = await withSwapPeer(bench, of, compute, form, (peer) =>
      interleave([...ours, peerSwaps(peer)], roundsOf(bench, ROUNDS)),
    );
    if (form === forms[0]) own(bench, of, name, times);
    addFigure(report, `${name}.r${PEER_RANK}.peft-${form}`, "ms", times.get("peft")!);
    for (const method of METHODS) besidePeer(bench, of, name, method, form, times);
  }
}

/**
 * Milliseconds that a swap adds to the steps behind it: swaps and none in turn, the median of their differences. A single
 * step that the machine held up is longer than what a swap adds, and would make a mean negative.
 */
function contender(sets: WeightSets, decoder: Decoder, method: SwapMethod, rank: number): Contender<number> {
  const steps = (): void => {
    for (let i = 0; i < STEPS; i++) decodeOne(sets.model, decoder);
  };
  return {
    name: `r${rank}.${method}`,
    run() {
      activate(sets, keyOf(method, rank, "a"));
      steps();
      const added = Array.from({ length: SWAPS }, (_, i) => {
        const none = timed(steps);
        const swapped = timed(() => {
          activate(sets, keyOf(method, rank, i % 2 === 0 ? "b" : "a"));
          steps();
        });
        return swapped - none;
      });
      return median(added);
    },
  };
}

/** Milliseconds of a swap that nothing may wait for: what it costs where no step follows. Mean of a turn. */
function atOnce(sets: WeightSets, method: SwapMethod, rank: number): Contender<number> {
  const swapTo = (which: string): void => {
    activate(sets, keyOf(method, rank, which));
    sync(sets.model.device);
  };
  return {
    name: `r${rank}.${method}.at-once`,
    run() {
      swapTo("a");
      const all = timed(() => {
        for (let i = 0; i < SWAPS; i++) swapTo(i % 2 === 0 ? "b" : "a");
      });
      return all / SWAPS;
    },
  };
}

function decodeOne(model: Llama, { pool, arena }: Decoder): void {
  const sequence = emptySequence();
  withScratch(arena, () => {
    const hidden = inferRows(model, pool, [{ sequence, tokens: [1], wanted: "last" }], arena);
    logitsOf(model, hidden, arena);
  });
  dropSequence(pool, sequence);
}

function own({ report, options }: Bench, of: BenchModel, name: string, times: Times): void {
  for (const [contender, samples] of times) {
    if (contender !== "peft") addFigure(report, `${name}.${contender}`, "ms", samples);
  }
  for (const method of METHODS) {
    const target = `${name}.r${MS_RANK}.${method}`;
    const samples = times.get(`r${MS_RANK}.${method}`);
    if (samples && of.shape === "smollm2" && !options.quick && name.endsWith("bf16")) {
      const bound = { most: MOST_MS[method] };
      addTarget(report, { name: target, unit: "ms", ours: samples, peer: null, bound });
    } else report.missing.push(`${target}: the target is about SmolLM2 in bf16`);
  }
}

function besidePeer(
  { report, options }: Bench,
  of: BenchModel,
  name: string,
  method: SwapMethod,
  form: PeerForm,
  times: Times,
): void {
  const samples = times.get(`r${PEER_RANK}.${method}`);
  if (!samples || of.shape !== "smollm2" || options.quick) return;
  const rates = (ms: readonly number[]): number[] => ms.map((one) => 1000 / one);
  addTarget(report, {
    name: `${name}.r${PEER_RANK}.${method}/peft-${form}`,
    unit: "swaps/s",
    ours: rates(samples),
    peer: { name: `peft-${form}`, samples: rates(times.get("peft")!) },
    bound: { least: TIMES_PEER },
  });
}

/** A process with two LoRA adapters on a model of that shape, one of them merged. */
function withSwapPeer<R>(
  { device, options, report }: Bench,
  of: BenchModel,
  compute: Compute,
  form: PeerForm,
  body: (peer: Peer) => Promise<R>,
): Promise<R> {
  if (!options.python) throw new Error("no --peer python:PATH");
  const { python } = options;
  return withTemporaryFolder(async (folder) => {
    const peer = await startPeer(
      `PEFT (${form})`,
      python,
      "swap.py",
      [],
      await formEnvironment(form, folder),
    );
    report.peers[peer.name] = peer.about;
    const { architectures, model_type, torch_dtype, dtype, ...config } = toHfConfig(of.config);
    const { threads } = device;
    const targets = linearNames;
    try {
      await peer.ask({ do: "setup", config, dtype: compute, threads, rank: PEER_RANK, targets });
      return await body(peer);
    } finally {
      await peer.close();
    }
  });
}

function peerSwaps(peer: Peer): Contender<number> {
  return { name: "peft", run: async () => 1000 * numberOf(await peer.ask({ do: "run" }), "seconds") };
}
