/** Target 1: the products of a layer beside the measured peak, and the memory-bound ones beside the read bandwidth. */
import type { Compute } from "../../src/adapters/adapter.ts";
import type { LlamaConfig } from "../../src/formats/hf-config.ts";
import { checkProducts } from "./check.ts";
import { type Bench, benchModel, computesOf, roundsOf } from "./context.ts";
import { interleave } from "./interleave.ts";
import { factorFlops, type LayerBed, layerFlops, openLayerBed } from "./layer.ts";
import { streamBytes } from "./peaks.ts";
import { numberOf, type Peer, startPeer } from "./peer.ts";
import { addFigure, addTarget } from "./report.ts";
import { layerElements, layerMatrices, type ShapeName } from "./shapes.ts";

const SHAPES: readonly ShapeName[] = ["smollm2", "llama-7b", "llama3-8b"];
const TOKENS = [256, 512, 1024, 2048];
const QUICK_TOKENS = [64];
const FEW_TOKENS = [1, 2, 4, 8];
const RANKS = [32, 64];
const ROUNDS = 7;
/** Short work is repeated until a sample is this long. */
const LEAST_MS = 40;
const QUICK_MS = 4;

const PRODUCT_TARGETS = { f32: 0.9, bf16: 0.88 };
const FACTOR_TARGET = 0.6;
const BANDWIDTH_TARGET = 0.85;

export async function benchGemm(bench: Bench): Promise<void> {
  const { options, device, report } = bench;
  const named = options.model === null && options.shape === null && !options.quick;
  const models = named ? SHAPES.map((shape) => benchModel({ options }, shape)) : [benchModel(bench)];
  for (const { name, config } of models) {
    for (const compute of computesOf(bench, ["f32", "bf16"])) {
      bench.say(`gemm: ${name} ${compute}`);
      await checkProducts(report, device, config, compute);
      await computeBound(bench, name, config, compute);
      await memoryBound(bench, name, config, compute);
    }
  }
}

/** One kind of product at one size. */
interface Cell {
  readonly name: string;
  readonly flops: number;
  readonly ours: () => number;
  readonly theirs: (peer: Peer, repeat: number) => Promise<number>;
}

/** Rates of ours and what stood beside them, GFLOP/s, round by round. */
interface Measured {
  readonly cell: Cell;
  readonly ours: readonly number[];
  readonly peak: readonly number[];
}

async function computeBound(
  bench: Bench,
  name: string,
  config: LlamaConfig,
  compute: Compute,
): Promise<void> {
  const { options, device } = bench;
  const tokens = options.quick ? QUICK_TOKENS : TOKENS;
  const bed = openLayerBed(device, config, compute, {
    tokens: Math.max(...tokens),
    rank: Math.max(...RANKS),
  });
  const peer = options.python ? await openPeer(bench, options.python, config, compute, tokens) : null;
  try {
    const products: Measured[] = [];
    const factors = new Map<number, Measured[]>(RANKS.map((rank) => [rank, []]));
    for (const T of tokens) {
      for (const what of ["forward", "backward"] as const) {
        const cell = productCell(bed, config, what, T);
        products.push(await measure(bench, `gemm.${name}.${compute}`, cell, compute, peer));
      }
      for (const rank of RANKS) {
        const cell = factorCell(bed, config, T, rank);
        factors.get(rank)!.push(await measure(bench, `gemm.${name}.${compute}`, cell, compute, peer));
      }
    }
    weighted(bench, `gemm.${name}.${compute}.products`, products, PRODUCT_TARGETS[compute]);
    for (const [rank, cells] of factors) {
      weighted(bench, `gemm.${name}.${compute}.factor-r${rank}`, cells, FACTOR_TARGET);
    }
  } finally {
    await peer?.close();
    bed.free();
  }
}

function productCell(bed: LayerBed, config: LlamaConfig, what: "forward" | "backward", T: number): Cell {
  return {
    name: `${what}.T${T}`,
    flops: layerFlops(config, T),
    ours: () => bed.products(what, T),
    theirs: async (peer, repeat) => secondsOf(peer, { what, tokens: T, repeat }),
  };
}

function factorCell(bed: LayerBed, config: LlamaConfig, T: number, rank: number): Cell {
  return {
    name: `factor-r${rank}.T${T}`,
    flops: factorFlops(config, T, rank),
    ours: () => bed.factors(T, rank),
    theirs: async (peer, repeat) => secondsOf(peer, { what: "factor", tokens: T, repeat, rank }),
  };
}

async function secondsOf(peer: Peer, request: object): Promise<number> {
  return numberOf(await peer.ask({ do: "run", ...request }), "seconds");
}

/** Peak, ours, PyTorch in turn; figures of each. */
async function measure(
  bench: Bench,
  prefix: string,
  cell: Cell,
  compute: Compute,
  peer: Peer | null,
): Promise<Measured> {
  const { report, machine, options } = bench;
  const { flops, ours, theirs } = cell;
  const repeat = Math.max(1, Math.ceil((options.quick ? QUICK_MS : LEAST_MS) / Math.max(ours(), 1e-3)));
  const rate = (milliseconds: number): number => flops / milliseconds / 1e6;
  const mean = (): number => {
    let sum = 0;
    for (let i = 0; i < repeat; i++) sum += ours();
    return sum / repeat;
  };
  const samples = await interleave<number>(
    [
      { name: "peak", run: () => machine.flops(compute) },
      { name: "ours", run: () => rate(mean()) },
      ...(peer ? [{ name: "torch", run: async () => rate(1000 * (await theirs(peer, repeat))) }] : []),
    ],
    roundsOf(bench, ROUNDS),
  );
  addFigure(report, `${prefix}.${cell.name}`, "GFLOP/s", samples.get("ours")!);
  if (peer) addFigure(report, `${prefix}.${cell.name}.torch`, "GFLOP/s", samples.get("torch")!);
  return { cell, ours: samples.get("ours")!, peak: samples.get("peak")! };
}

/** FLOP-weighted: all operations over all the time they took, and over what the peak would have taken. */
function weighted(bench: Bench, name: string, cells: readonly Measured[], least: number): void {
  const rounds = cells[0]!.ours.map((_, round) => round);
  const rate = (of: "ours" | "peak"): number[] =>
    rounds.map((round) => {
      const flops = cells.reduce((sum, { cell }) => sum + cell.flops, 0);
      return flops / cells.reduce((sum, m) => sum + m.cell.flops / m[of][round]!, 0);
    });
  addTarget(bench.report, {
    name,
    unit: "GFLOP/s",
    ours: rate("ours"),
    peer: { name: "peak", samples: rate("peak") },
    bound: { least },
  });
}

async function openPeer(
  { device, options, report }: Bench,
  python: string,
  config: LlamaConfig,
  compute: Compute,
  tokens: readonly number[],
): Promise<Peer> {
  const peer = await startPeer("PyTorch", python, "gemm.py");
  report.peers[peer.name] = peer.about;
  await peer.ask({
    do: "setup",
    matrices: layerMatrices(config).map((m) => [m.out, m.in]),
    dtype: compute,
    threads: options.threads ?? device.threads,
    tokens: Math.max(...tokens),
    rank: Math.max(...RANKS),
  });
  return peer;
}

/** A few rows through more weights than the last cache holds: bytes of weights a second. */
async function memoryBound(bench: Bench, name: string, config: LlamaConfig, compute: Compute): Promise<void> {
  const { device, machine, options, report } = bench;
  const layer = layerElements(config) * (compute === "bf16" ? 2 : 4);
  const copies = Math.ceil(streamBytes(machine.lastCacheBytes, options.quick) / layer);
  const few = options.quick ? FEW_TOKENS.slice(0, 1) : FEW_TOKENS;
  const bed = openLayerBed(device, config, compute, { tokens: Math.max(...few), rank: 0, copies });
  try {
    for (const T of few) {
      const samples = await interleave<number>(
        [
          { name: "reading", run: () => machine.read() },
          { name: "ours", run: () => bed.bytes / bed.products("forward", T) / 1e6 },
        ],
        roundsOf(bench, ROUNDS),
      );
      const ours = addFigure(report, `gemm.${name}.${compute}.weights.T${T}`, "GB/s", samples.get("ours")!);
      addTarget(report, {
        name: ours.name,
        unit: "GB/s",
        ours: ours.samples,
        peer: { name: "reading", samples: samples.get("reading")! },
        bound: { least: BANDWIDTH_TARGET },
      });
    }
  } finally {
    bed.free();
  }
}
