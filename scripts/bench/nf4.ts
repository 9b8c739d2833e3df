/**
 * NF4 beside bf16: products of a few rows, bytes of weights, a training step; decode, beside llama.cpp's Q4_0 as well.
 * Only the blocks' linears are 4-bit: our embedding and head stay bf16, llama.cpp's quantizer takes 8 or 6 bits for them,
 * or is told to leave them (`-head-bf16`).
 */
import { join } from "node:path";
import { withTemporaryFolder } from "../../src/formats/files.ts";
import { freeLlama, type Llama } from "../../src/model/model.ts";
import type { Quantization } from "../../src/model/nf4.ts";
import { fixedBatch } from "./batch.ts";
import { checkProducts } from "./check.ts";
import { type Bench, type BenchModel, benchModel, isWide, loadBenchModel, roundsOf } from "./context.ts";
import { generateRate, llamaRate, logitsCheck, openLlama, SHORT_PROMPT } from "./decode.ts";
import { type Contender, interleave } from "./interleave.ts";
import { openLayerBed } from "./layer.ts";
import { streamBytes } from "./peaks.ts";
import type { Peer } from "./peer.ts";
import { writeRandomModel } from "./random-weights.ts";
import { addFigure, addTarget } from "./report.ts";
import { layerElements } from "./shapes.ts";
import { openStepBed } from "./step-bed.ts";

const QUANTIZATION: Quantization = "nf4-double";
const METHOD = "sbora-fa";
const ROUNDS = 7;
/** Milliseconds each: many, so that their median is steady. */
const PRODUCT_ROUNDS = 31;
const FEW_ROWS = [1, 2, 3, 4, 8];
const STEP_TOKENS = 1024;
const DECODE_TOKENS = 128;

/** Fewer rows than bf16 must not take longer; the rest as the issue has them. */
const TARGETS = { rows: 1, bytes: 0.3, step: 1.25, decode: 1.2 };
/** Logits of 4-bit weights beside those of the bf16 ones they were made from: other values, the same model. */
const SAME_MODEL = 0.5;

/** Q4_0 files of llama.cpp's quantizer, by what happens to embedding and head. */
const PEERS = [
  { name: "q4_0", head: null },
  { name: "q4_0-head-bf16", head: "bf16" },
] as const;

export async function benchNf4(bench: Bench): Promise<void> {
  const model = benchModel(bench);
  bench.say(`nf4: ${model.name}, ${QUANTIZATION} beside bf16`);
  await checkProducts(bench.report, bench.device, model.config, "bf16", QUANTIZATION);
  await fewRows(bench, model);
  await trainingStep(bench, model);
  await decoding(bench, model);
}

/** Forward products of n rows over more weights than the last cache holds, and what the weights take. */
async function fewRows(bench: Bench, { name, config }: BenchModel): Promise<void> {
  const { device, report, options, machine } = bench;
  const layerBytes = 2 * layerElements(config);
  const copies = Math.ceil(streamBytes(machine.lastCacheBytes, options.quick) / layerBytes);
  const plan = { tokens: Math.max(...FEW_ROWS), rank: 0, copies };
  const beds = {
    bf16: openLayerBed(device, config, "bf16", plan),
    nf4: openLayerBed(device, config, "bf16", { ...plan, quantize: QUANTIZATION }),
  };
  try {
    addTarget(report, {
      name: `nf4.${name}.bytes`,
      unit: "B",
      ours: [beds.nf4.bytes],
      peer: { name: "bf16", samples: [beds.bf16.bytes] },
      bound: { most: TARGETS.bytes },
    });
    for (const T of FEW_ROWS) {
      const times = await interleave<number>(
        [
          { name: "nf4", run: () => beds.nf4.products("forward", T) },
          { name: "bf16", run: () => beds.bf16.products("forward", T) },
        ],
        roundsOf(bench, PRODUCT_ROUNDS),
      );
      besideBf16(bench, `nf4.${name}.rows.T${T}`, "ms", times, { most: TARGETS.rows });
    }
  } finally {
    beds.nf4.free();
    beds.bf16.free();
  }
}

async function trainingStep(bench: Bench, model: BenchModel): Promise<void> {
  const { device, options } = bench;
  const tokens = options.quick ? 64 : STEP_TOKENS;
  const lengths = isWide(model.config) ? [tokens] : Array.from({ length: 4 }, () => tokens / 4);
  const batch = fixedBatch(lengths, model.config.vocabSize);
  const bf16 = openStepBed(device, model, "bf16", [METHOD], tokens);
  const nf4 = openStepBed(device, model, "bf16", [METHOD], tokens, QUANTIZATION);
  try {
    const times = await interleave<number>(
      [
        { name: "nf4", run: () => nf4.step(METHOD, batch).milliseconds },
        { name: "bf16", run: () => bf16.step(METHOD, batch).milliseconds },
      ],
      roundsOf(bench, ROUNDS),
    );
    const name = `nf4.${model.name}.step.${METHOD}.T${tokens}`;
    besideBf16(bench, name, "ms", times, { most: TARGETS.step });
  } finally {
    nf4.free();
    bf16.free();
  }
}

function besideBf16(
  { report }: Bench,
  name: string,
  unit: string,
  times: ReadonlyMap<string, number[]>,
  bound: { readonly most: number },
): void {
  const [ours, samples] = [times.get("nf4")!, times.get("bf16")!];
  addFigure(report, name, unit, ours);
  addFigure(report, `${name}.bf16`, unit, samples);
  addTarget(report, { name: `${name}/bf16`, unit, ours, peer: { name: "bf16", samples }, bound });
}

async function decoding(bench: Bench, of: BenchModel): Promise<void> {
  const { options, device } = bench;
  const tokens = options.quick ? 8 : DECODE_TOKENS;
  const positions = SHORT_PROMPT + tokens + 1;
  await withTemporaryFolder(async (folder) => {
    const dir = of.folder ?? join(folder, "model");
    if (options.llama && of.folder === null) writeRandomModel(dir, of.config);
    const peers: Peer[] = [];
    const models: Llama[] = [];
    try {
      models.push(loadBenchModel(device, of, "bf16", positions, QUANTIZATION));
      models.push(loadBenchModel(device, of, "bf16", positions));
      for (const { name, head } of options.llama ? PEERS : []) {
        const quantized = { name, gguf: join(folder, `${name}.gguf`), quantize: "q4_0", head };
        const peer = await openLlama(bench, of, { dir, positions, streams: [1], ...quantized });
        peers.push(peer);
        await logitsCheck(bench, models[1]!, of, peer, SAME_MODEL);
      }
      const contenders: Contender<number>[] = [
        { name: "nf4", run: () => generateRate(models[0]!, 1, 1, tokens) },
        { name: "bf16", run: () => generateRate(models[1]!, 1, 1, tokens) },
        ...peers.map((peer) => ({ name: peer.name, run: () => llamaRate(peer, 1, tokens) })),
      ];
      decoded(bench, of, await interleave(contenders, roundsOf(bench, ROUNDS)));
    } finally {
      for (const peer of peers) await peer.close();
      for (const model of models) freeLlama(model);
    }
  });
}

function decoded({ report }: Bench, of: BenchModel, rates: ReadonlyMap<string, number[]>): void {
  const name = `nf4.${of.name}.decode`;
  for (const [contender, samples] of rates) addFigure(report, `${name}.${contender}`, "tokens/s", samples);
  for (const peer of PEERS) {
    const samples = rates.get(peer.name);
    if (!samples) report.missing.push(`${name}/${peer.name}: no --peer llama:PATH`);
    else
      addTarget(report, {
        name: `${name}/${peer.name}`,
        unit: "tokens/s",
        ours: rates.get("nf4")!,
        peer: { name: peer.name, samples },
        bound: { least: TARGETS.decode },
      });
  }
}
