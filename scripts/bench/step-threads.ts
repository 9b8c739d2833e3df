/** Target 6: all threads against one, and not a bit between their parameters. */
import { closeDevice } from "../../src/native/device.ts";
import { fixedBatch } from "./batch.ts";
import { type Bench, benchModel, computesOf, openWithThreads, roundsOf } from "./context.ts";
import { interleave } from "./interleave.ts";
import { addTarget } from "./report.ts";
import { openStepBed, type StepBed } from "./step-bed.ts";

const ROUNDS = 7;
/** 1.8 for two threads; in proportion for more. */
const EFFICIENCY_TARGET = 0.9;

export async function benchThreads(bench: Bench): Promise<void> {
  const { options, device, report } = bench;
  const model = benchModel(bench);
  const compute = computesOf(bench, ["bf16"])[0]!;
  const method = options.methods[0]!;
  const name = `step.${model.name}.${compute}.${method}.threads`;
  if (device.threads < 2) {
    report.missing.push(`${name}: one thread is all there is`);
    return;
  }
  bench.say(`step: ${model.name} ${compute}, ${device.threads} threads against 1`);
  const single = await openWithThreads(device, 1);
  const lengths = options.quick ? [32] : [256, 256];
  const batch = fixedBatch(lengths, model.config.vocabSize);
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const beds: StepBed[] = [];
  try {
    for (const on of [device, single]) beds.push(openStepBed(on, model, compute, [method], tokens));
    const [many, one] = beds as [StepBed, StepBed];
    const samples = await interleave<number>(
      [
        { name: "many", run: () => (tokens / many.step(method, batch).milliseconds) * 1000 },
        { name: "one", run: () => (tokens / one.step(method, batch).milliseconds) * 1000 },
      ],
      roundsOf(bench, ROUNDS),
    );
    addTarget(report, {
      name,
      unit: "tokens/s",
      ours: samples.get("many")!,
      peer: { name: "1-thread", samples: samples.get("one")! },
      bound: { least: EFFICIENCY_TARGET * device.threads },
    });
    const [a, b] = [many.parameters(method), one.parameters(method)];
    const differing = a.reduce((count, byte, i) => count + (byte === b[i] ? 0 : 1), 0);
    addTarget(report, {
      name: `${name}.differing-bytes`,
      unit: "B",
      ours: [differing],
      peer: null,
      bound: { most: 0 },
    });
  } finally {
    for (const bed of beds) bed.free();
    closeDevice(single);
  }
}
