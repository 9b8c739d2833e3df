/**
 * Target 2: a training step (forward, backward, AdamW; dropout 0, rank 32, every token labelled) over our own frozen
 * floor, and beside PyTorch's in each of its forms.
 */
import type { Compute } from "../../src/adapters/adapter.ts";
import type { LlamaConfig } from "../../src/formats/hf-config.ts";
import { fixedBatch } from "./batch.ts";
import { checkTraining } from "./check.ts";
import { type Bench, type BenchModel, benchModel, computesOf, isWide, roundsOf } from "./context.ts";
import { type Contender, interleave } from "./interleave.ts";
import { layerFlops, openLayerBed } from "./layer.ts";
import type { PeerForm } from "./options.ts";
import { addFigure, addTarget } from "./report.ts";
import { layerElements } from "./shapes.ts";
import { openStepBed } from "./step-bed.ts";
import { peerSteps, withStepPeer } from "./step-peer.ts";
import { benchRecords } from "./step-records.ts";
import { FLOOR_TARGETS, PEER_TARGETS } from "./step-targets.ts";
import { benchThreads } from "./step-threads.ts";

const ROUNDS = 7;

/** What is stepped: a model at a batch. */
interface Workload {
  readonly model: BenchModel;
  readonly lengths: readonly number[];
  readonly computes: readonly Compute[];
}

/** MKL's vendor check touches f32 products only. */
const FORMS: Record<Compute, readonly PeerForm[]> = { f32: ["tuned", "vendor"], bf16: ["tuned"] };

export async function benchStep(bench: Bench): Promise<void> {
  for (const workload of workloads(bench)) {
    for (const compute of workload.computes) await benchWorkload(bench, workload, compute);
  }
  // Their targets are the small model's.
  if (isWide(benchModel(bench).config)) return;
  await benchRecords(bench);
  await benchThreads(bench);
}

/**
 * 4 × 256 tokens of the small model, 1 × 256 of two layers of LLaMA-7B's width; or what --model, --shape and --tokens say.
 */
function workloads(bench: Bench): Workload[] {
  const { options } = bench;
  const length = options.quick ? 32 : 256;
  const records = (usual: number): number[] =>
    options.tokens === null
      ? Array.from({ length: usual }, () => length)
      : Array.from({ length: Math.ceil(options.tokens / length) }, (_, i) =>
          Math.min(length, options.tokens! - i * length),
        );
  const workload = (model: BenchModel): Workload =>
    isWide(model.config)
      ? { model, lengths: records(1), computes: computesOf(bench, ["bf16"]) }
      : { model, lengths: records(4), computes: computesOf(bench, ["f32", "bf16"]) };
  const chosen = options.model !== null || options.shape !== null || options.quick;
  const models = chosen ? [benchModel(bench)] : [benchModel(bench, "smollm2"), benchModel(bench, "llama-7b")];
  return models.map(workload);
}

/** Milliseconds of every round, by contender: "products", "floor", our methods, "torch <method>". */
type Times = Map<string, number[]>;

async function benchWorkload(bench: Bench, workload: Workload, compute: Compute): Promise<void> {
  const { options, device, report } = bench;
  const { model, lengths } = workload;
  const name = `step.${model.name}.${compute}`;
  bench.say(
    `step: ${model.name} ${compute}, ${model.config.layers} layers, ${lengths.length} × ${lengths[0]} tokens`,
  );
  await checkTraining(report, device, model.config, compute, options.methods);
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const bed = openStepBed(device, model, compute, options.methods, tokens);
  const layer = openLayerBed(device, model.config, compute, { tokens, rank: 0 });
  try {
    const batch = fixedBatch(lengths, model.config.vocabSize);
    const contenders: Contender<number>[] = [
      { name: "products", run: () => layer.products("forward", tokens) + layer.products("backward", tokens) },
      { name: "floor", run: () => bed.floor(batch).milliseconds },
      ...options.methods.map((method) => ({ name: method, run: () => bed.step(method, batch).milliseconds })),
    ];
    const forms = options.python ? (options.forms ?? FORMS[compute]) : [];
    if (forms.length === 0)
      floors(bench, name, workload, await interleave(contenders, roundsOf(bench, ROUNDS)));
    for (const form of forms) {
      const times = await withStepPeer(bench, model.config, compute, form, options.methods, (peer) =>
        interleave(
          alternating(contenders, peerSteps(peer, options.methods, lengths)),
          roundsOf(bench, ROUNDS),
        ),
      );
      if (form === forms[0]) floors(bench, name, workload, times);
      besidePeer(bench, workload, compute, form, times);
    }
    if (!options.python) {
      const missed = PEER_TARGETS.filter((t) => t.shape === model.shape && t.compute === compute);
      for (const t of missed)
        report.missing.push(`${name}.${t.ours}/${t.peer}-${t.form}: no --peer python:PATH`);
    }
  } finally {
    layer.free();
    bed.free();
  }
}

/** Ours and theirs in turn. */
function alternating<T>(ours: readonly Contender<T>[], theirs: readonly Contender<T>[]): Contender<T>[] {
  const all: Contender<T>[] = [];
  for (let i = 0; i < Math.max(ours.length, theirs.length); i++)
    all.push(...ours.slice(i, i + 1), ...theirs.slice(i, i + 1));
  return all;
}

/** Our methods over our floor, and the floor's rate over that of a layer's products. */
function floors(bench: Bench, name: string, { model, lengths }: Workload, times: Times): void {
  const { report, options } = bench;
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const targets = (model.shape && FLOOR_TARGETS[model.shape]) ?? {};
  const floor = times.get("floor")!;
  for (const contender of ["floor", ...options.methods]) {
    addFigure(report, `${name}.${contender}`, "tokens/s", rates(times, contender, tokens));
  }
  for (const method of options.methods) {
    const most = targets[method];
    if (most === undefined) continue;
    const peer = { name: "floor", samples: floor };
    addTarget(report, {
      name: `${name}.${method}/floor`,
      unit: "ms",
      ours: times.get(method)!,
      peer,
      bound: { most },
    });
  }
  const flops = floorFlops(model.config, lengths);
  const ours = floor.map((ms) => flops / ms / 1e6);
  const samples = times.get("products")!.map((ms) => (2 * layerFlops(model.config, tokens)) / ms / 1e6);
  addFigure(report, `${name}.floor-rate`, "GFLOP/s", ours);
  addFigure(report, `${name}.product-rate`, "GFLOP/s", samples);
  if (targets.floor !== undefined) {
    const peer = { name: "products", samples };
    addTarget(report, {
      name: `${name}.floor-rate`,
      unit: "GFLOP/s",
      ours,
      peer,
      bound: { least: targets.floor },
    });
  }
}

function rates(times: Times, contender: string, tokens: number): number[] {
  return times.get(contender)!.map((ms) => (tokens / ms) * 1000);
}

/** Multiply-adds of the frozen model's products, forward and input gradient; attention's are not counted. */
export function floorFlops(config: LlamaConfig, lengths: readonly number[]): number {
  const { hiddenSize: H, heads, kvHeads, headSize, layers, vocabSize } = config;
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const labels = tokens - lengths.length;
  // The first layer's gradient goes no further than its q, k and v.
  const first = H * (heads + 2 * kvHeads) * headSize;
  return 4 * tokens * layers * layerElements(config) - 2 * tokens * first + 4 * labels * H * vocabSize;
}

function besidePeer(
  bench: Bench,
  { model, lengths }: Workload,
  compute: Compute,
  form: PeerForm,
  times: Times,
): void {
  const { report, options } = bench;
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const name = `step.${model.name}.${compute}`;
  for (const contender of times.keys()) {
    if (!contender.startsWith("torch ")) continue;
    addFigure(
      report,
      `${name}.${contender.replace(" ", "-")}-${form}`,
      "tokens/s",
      rates(times, contender, tokens),
    );
  }
  for (const target of PEER_TARGETS) {
    const { ours, peer, least } = target;
    if (target.shape !== model.shape || target.compute !== compute || target.form !== form) continue;
    if (!options.methods.includes(ours) || !times.has(`torch ${peer}`)) continue;
    addTarget(report, {
      name: `${name}.${ours}/${peer}-${form}`,
      unit: "tokens/s",
      ours: rates(times, ours, tokens),
      peer: { name: `${peer}-${form}`, samples: rates(times, `torch ${peer}`, tokens) },
      bound: { least },
    });
  }
}
