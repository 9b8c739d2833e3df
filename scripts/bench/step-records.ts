/** Target 2 on real records: lengths are uneven, ours packs them, PEFT pads. */
import { fixedBatch, longestRecordStep, recordLengths } from "./batch.ts";
import { type Bench, benchModel, computesOf, roundsOf } from "./context.ts";
import { interleave } from "./interleave.ts";
import { numberOf } from "./peer.ts";
import { addFigure, addTarget } from "./report.ts";
import { openStepBed } from "./step-bed.ts";
import { withStepPeer } from "./step-peer.ts";

const TARGET = 2.5;
/** Twice every step of the lengths. */
const ROUNDS = 8;
const COMPUTE = "bf16";
const OURS = "sbora-fa";
const THEIRS = "lora";

export async function benchRecords(bench: Bench): Promise<void> {
  const { options, device, report } = bench;
  const model = benchModel(bench);
  const name = `step.${model.name}.${COMPUTE}.records`;
  if (!computesOf(bench, [COMPUTE]).includes(COMPUTE) || !options.methods.includes(OURS)) return;
  if (!options.python) {
    report.missing.push(`${name}: no --peer python:PATH`);
    return;
  }
  const form = options.forms?.[0] ?? "tuned";
  bench.say(`step: ${model.name} ${COMPUTE}, real record lengths`);
  const bed = openStepBed(device, model, COMPUTE, [OURS], longestRecordStep());
  // The rounds that warm up are numbered below 0.
  const lengthsOf = (round: number): number[] => recordLengths(Math.max(0, round));
  const rate = (lengths: readonly number[], milliseconds: number): number =>
    (lengths.reduce((sum, length) => sum + length, 0) / milliseconds) * 1000;
  try {
    const samples = await withStepPeer(bench, model.config, COMPUTE, form, [THEIRS], (peer) =>
      interleave<number>(
        [
          {
            name: "ours",
            run: (round) => {
              const lengths = lengthsOf(round);
              return rate(lengths, bed.step(OURS, fixedBatch(lengths, model.config.vocabSize)).milliseconds);
            },
          },
          {
            name: "torch",
            run: async (round) => {
              const lengths = lengthsOf(round);
              const answer = await peer.ask({ do: "run", method: THEIRS, lengths });
              return rate(lengths, 1000 * numberOf(answer, "seconds"));
            },
          },
        ],
        roundsOf(bench, ROUNDS),
      ),
    );
    addFigure(report, name, "tokens/s", samples.get("ours")!);
    addFigure(report, `${name}.torch-${THEIRS}-${form}`, "tokens/s", samples.get("torch")!);
    addTarget(report, {
      name,
      unit: "tokens/s",
      ours: samples.get("ours")!,
      peer: { name: `${THEIRS}-${form}`, samples: samples.get("torch")! },
      bound: { least: TARGET },
    });
  } finally {
    bed.free();
  }
}
