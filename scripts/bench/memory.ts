/** Target 3: the most memory a process holds that trains (VmHWM, Bun and mapped weights included), beside PEFT's and the plan's. */
import { join } from "node:path";
import type { Compute } from "../../src/adapters/adapter.ts";
import { InputError } from "../../src/errors.ts";
import { withTemporaryFolder } from "../../src/formats/files.ts";
import { checkTraining } from "./check.ts";
import { type Bench, type BenchModel, benchModel, computesOf, roundsOf } from "./context.ts";
import { type Contender, interleave } from "./interleave.ts";
import type { MemoryRequest, MemoryResult } from "./memory-child.ts";
import type { StepMethod } from "./options.ts";
import { numberOf } from "./peer.ts";
import { writeRandomModel } from "./random-weights.ts";
import { addFigure, addTarget } from "./report.ts";
import { peerMethods, withStepPeer } from "./step-peer.ts";

/** Memory is the same every time, but for the collector's moments. */
const ROUNDS = 3;
const STEPS = 3;
const OVER_PEER = 0.4;
/** Share by which a process may differ from what `train --dry-run` says. */
const PLAN_WITHIN = 0.05;
/** The paper's order at equal rank. */
const ORDER: readonly (readonly [StepMethod, StepMethod])[] = [
  ["sbora-fa", "lora"],
  ["lora", "dora"],
];

export async function benchMemory(bench: Bench): Promise<void> {
  const model = benchModel(bench);
  await withTemporaryFolder(async (folder) => {
    const dir = model.folder ?? folder;
    if (model.folder === null) writeRandomModel(dir, model.config);
    for (const compute of computesOf(bench, ["f32", "bf16"]))
      await measureCompute(bench, model, dir, compute);
  });
}

async function measureCompute(bench: Bench, model: BenchModel, dir: string, compute: Compute): Promise<void> {
  const { options, report, device } = bench;
  const name = `memory.${model.name}.${compute}`;
  bench.say(`memory: ${model.name} ${compute}`);
  await checkTraining(report, device, model.config, compute, options.methods);
  const length = options.quick ? 32 : 256;
  const lengths = [length, length, length, length];
  const ours = options.methods.map((method): Contender<MemoryResult> => {
    const request = { dir, compute, method, lengths, steps: STEPS, threads: device.threads };
    return { name: method, run: () => childPeak(request) };
  });
  const form = options.forms?.[0] ?? "tuned";
  const theirs = (options.python ? peerMethods(options.methods) : []).map(
    (method): Contender<MemoryResult> => ({
      name: `torch ${method}`,
      run: async () => {
        const only = method === "frozen" ? [] : [method];
        const bytes = await withStepPeer(bench, model.config, compute, form, only, async (peer) => {
          for (let i = 0; i < STEPS; i++) await peer.ask({ do: "run", method, lengths });
          return numberOf(await peer.ask({ do: "peak" }), "bytes");
        });
        return { peak: bytes, planned: 0, allocated: 0 };
      },
    }),
  );
  // No warm-up: every turn is a process of its own.
  const results = await interleave([...ours, ...theirs], roundsOf(bench, ROUNDS), 0);
  const mebibytes = (contender: string, part: keyof MemoryResult): number[] =>
    results.get(contender)!.map((result) => result[part] / 2 ** 20);
  for (const contender of results.keys()) {
    addFigure(report, `${name}.${contender.replace(" ", "-")}`, "MiB", mebibytes(contender, "peak"));
  }
  for (const method of options.methods) {
    addFigure(report, `${name}.${method}.planned`, "MiB", mebibytes(method, "planned"));
    addFigure(report, `${name}.${method}.allocated`, "MiB", mebibytes(method, "allocated"));
    addTarget(report, {
      name: `${name}.${method}/planned`,
      unit: "MiB",
      ours: mebibytes(method, "peak"),
      peer: { name: "dry-run", samples: mebibytes(method, "planned") },
      bound: { within: PLAN_WITHIN },
    });
  }
  for (const [less, more] of ORDER) {
    if (!results.has(less) || !results.has(more)) continue;
    addTarget(report, {
      name: `${name}.${less}/${more}`,
      unit: "MiB",
      ours: mebibytes(less, "peak"),
      peer: { name: more, samples: mebibytes(more, "peak") },
      // below, not beside
      bound: { most: 0.9999 },
    });
  }
  for (const method of options.methods) {
    if (!results.has("torch lora")) report.missing.push(`${name}.${method}/peft-lora: no --peer python:PATH`);
    else {
      addTarget(report, {
        name: `${name}.${method}/peft-lora`,
        unit: "MiB",
        ours: mebibytes(method, "peak"),
        peer: { name: `peft-lora-${form}`, samples: mebibytes("torch lora", "peak") },
        bound: { most: OVER_PEER },
      });
    }
  }
}

/** Steps in a process of its own, which then says what it held. */
async function childPeak(request: MemoryRequest): Promise<MemoryResult> {
  const script = join(import.meta.dir, "memory-child.ts");
  const child = Bun.spawn([process.execPath, "run", script, JSON.stringify(request)], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0)
    throw new InputError(`The process that measures memory ended with ${code}:\n${errors.trim()}`);
  return JSON.parse(out) as MemoryResult;
}
