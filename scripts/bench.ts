/** Measures us beside the machine and beside our peers, in turn and in one run, and says which targets are met. */
import { resolve } from "node:path";
import type { ParsedArgs } from "citty";
import { closeDevice } from "../src/native/device.ts";
import { makeManifest } from "../src/reporting/manifest.ts";
import { COMPUTE_TYPES, deviceFlags, openCommandDevice, runCommand } from "./arguments.ts";
import type { Bench } from "./bench/context.ts";
import { benchDecode } from "./bench/decode.ts";
import { benchEvaluate } from "./bench/evaluate.ts";
import { benchGemm } from "./bench/gemm.ts";
import { benchMemory } from "./bench/memory.ts";
import { benchNf4 } from "./bench/nf4.ts";
import {
  type BenchmarkName,
  type BenchOptions,
  benchmarkNames,
  benchOptions,
  peerFlags,
  peerForms,
  stepMethods,
} from "./bench/options.ts";
import { describeMachine, type Machine, measureMachine } from "./bench/peaks.ts";
import { profileSteps, profileText } from "./bench/profile.ts";
import { appendResult, emptyReport, figureTable, type Report, targetLine } from "./bench/report.ts";
import { benchServe } from "./bench/serve.ts";
import { shapeNames } from "./bench/shapes.ts";
import { benchStart } from "./bench/start.ts";
import { benchStep } from "./bench/step.ts";
import { benchSwap } from "./bench/swap.ts";

const RESULTS = resolve(import.meta.dir, "../results/bench");
const SCHEMA_VERSION = 1;

const BENCHMARKS: Record<BenchmarkName, (bench: Bench) => Promise<void>> = {
  gemm: benchGemm,
  step: benchStep,
  memory: benchMemory,
  decode: benchDecode,
  nf4: benchNf4,
  evaluate: benchEvaluate,
  start: benchStart,
  swap: benchSwap,
  serve: benchServe,
};

const EXAMPLES = `Benchmarks
  gemm      matrix products of a layer beside the measured peak, few rows beside the read bandwidth (and PyTorch's)
  step      a training step over its frozen floor, and beside PEFT's; real record lengths; threads
  memory    the most memory of a training process, beside PEFT's and what train --dry-run says
  decode    tokens/s of one stream, eight streams, a prompt; beside llama.cpp
  nf4       4-bit weights beside bf16 (step, few rows, bytes) and beside llama.cpp's Q4_0 (decode)
  evaluate  beams, prompts and shared contexts together against one by one
  start     process start to first token
  swap      one merged adapter for another, beside PEFT's
  serve     merged adapters beside the base; the server with 16 streams, beside llama.cpp's server
  profile   one training step op by op (no target, nothing kept)

Examples
  bun run scripts/bench.ts all --quick --shape tiny                        does it work here? a minute, figures mean nothing
  bun run scripts/bench.ts gemm
  bun run scripts/bench.ts step --peer python:venv/bin/python
  bun run scripts/bench.ts decode --model models/smollm2-135m --peer llama:FOLDER_WITH_LIBLLAMA
  bun run scripts/bench.ts nf4 --model models/smollm2-135m --peer llama:FOLDER_WITH_LIBLLAMA
  bun run scripts/bench.ts serve --model models/smollm2-135m --peer llama-server:PATH/TO/llama-server
  bun run scripts/bench.ts step --device cuda --shape llama3-8b --tokens 8192
  bun run scripts/bench.ts profile --methods sbora-fa --compute bf16

Peers: scripts/peers/README.md. Ours and the peer take turns (A B A B); medians, spread and ratio are printed, and one line a
target at the end. Every run but a quick one is added to results/bench/<benchmark>.json. Quiet the machine first.`;

const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

const ARGS = {
  what: {
    type: "positional",
    required: false,
    description: `One of ${benchmarkNames.join(", ")}, all, profile`,
  },
  peer: text("python:PATH|llama:PATH|llama-server:PATH", "A peer to measure beside; may stand repeatedly"),
  model: text("DIR", "Model folder. Default: random weights of a named shape"),
  shape: text(shapeNames.join("|"), "Shape of the random weights. Default: those that have targets"),
  compute: text(COMPUTE_TYPES.join("|"), "Only this type. Default: those that have targets"),
  methods: text("a,b", `Methods of step, memory, serve, profile. Default: ${stepMethods.join(",")}`),
  forms: text(peerForms.join(","), "Forms of the Python peer. Default: those that have targets"),
  tokens: text("N", "Tokens of a training step, in records of 256. Default: those that have targets"),
  rounds: text("N", "Measured turns of A B. Default: the benchmark's own"),
  device: deviceFlags.device,
  threads: text("N", "Threads (default: the cores this process may use)"),
  quick: {
    type: "boolean",
    default: false,
    description: "Two layers, few sizes and rounds: whether it works; nothing is kept",
  },
  json: { type: "boolean", default: false, description: "One JSON object on stdout, all else on stderr" },
} as const;

type Args = ParsedArgs<typeof ARGS>;

async function main(args: Args): Promise<void> {
  const options = benchOptions(args.what, args, peerFlags(process.argv));
  const say = options.json ? (line: string) => console.error(line) : (line: string) => console.log(line);
  if (options.profile) return profile(options);
  const device = await openCommandDevice(args);
  const machine = await measureMachine(device, options.quick);
  try {
    for (const line of describeMachine(device, machine)) say(line);
    const reports: Report[] = [];
    for (const name of options.benchmarks) {
      const report = emptyReport(name);
      await BENCHMARKS[name]({ options, device, machine, report, say });
      say(`\n${figureTable(report.figures)}\n`);
      if (!options.quick)
        say(`added to ${appendResult(RESULTS, name, entry(options, device, machine, [report]))}`);
      reports.push(report);
    }
    finish(options, say, reports, entry(options, device, machine, reports));
  } finally {
    machine.close();
    closeDevice(device);
  }
}

/** What is kept of a run, and what --json prints. */
function entry(
  options: BenchOptions,
  device: Bench["device"],
  { f32, bf16, bandwidth, lastCacheBytes, load }: Machine,
  reports: readonly Report[],
): object {
  const model = options.model ?? `random ${options.shape ?? "shapes"}`;
  return {
    schemaVersion: SCHEMA_VERSION,
    date: new Date().toISOString(),
    quick: options.quick,
    manifest: makeManifest(device, { name: model, fingerprint: "" }, {}),
    machine: { peakF32: f32, peakBf16: bf16, bandwidth, lastCacheBytes, load },
    benchmarks: Object.fromEntries(reports.map(({ benchmark, ...report }) => [benchmark, report])),
  };
}

function finish(
  { json, quick }: BenchOptions,
  say: (line: string) => void,
  reports: readonly Report[],
  whole: object,
): void {
  for (const reason of reports.flatMap(({ missing }) => missing)) say(`not measured: ${reason}`);
  if (quick) say("a quick run: its figures show that the instrument works and nothing else");
  for (const target of reports.flatMap(({ targets }) => targets)) say(targetLine(target));
  if (json) console.log(JSON.stringify(whole));
}

async function profile(options: BenchOptions): Promise<void> {
  const profiles = await profileSteps(options);
  if (options.json) console.log(JSON.stringify(profiles));
  else console.log(profiles.map(profileText).join("\n\n"));
}

await runCommand({
  name: "bun run scripts/bench.ts",
  description: "Measure speed and memory beside the machine's peak and beside our peers.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
