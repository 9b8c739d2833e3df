/** Where one training step spends its time, op by op: what to work on next. */
import type { Compute } from "../../src/adapters/adapter.ts";
import { closeDevice, openDevice } from "../../src/native/device.ts";
import { timeCalls } from "../../src/native/timed.ts";
import { summarize } from "../../src/reporting/statistics.ts";
import { textTable } from "../../src/reporting/table.ts";
import { fixedBatch } from "./batch.ts";
import { type BenchModel, benchModel, isWide } from "./context.ts";
import type { BenchOptions, StepMethod } from "./options.ts";
import { openStepBed } from "./step-bed.ts";

const STEPS = 5;

export interface Profile {
  readonly model: string;
  readonly method: StepMethod | "floor";
  readonly compute: Compute;
  readonly tokens: number;
  /** Median milliseconds of a step. */
  readonly step: number;
  /** Calls and milliseconds a step, slowest first; the last is what passes between the calls. */
  readonly ops: readonly { readonly name: string; readonly calls: number; readonly milliseconds: number }[];
}

/** A profile of the frozen floor and of every method, in every compute type asked for. */
export async function profileSteps(options: BenchOptions): Promise<Profile[]> {
  const model = benchModel({ options });
  const length = options.quick ? 32 : 256;
  const lengths = isWide(model.config) ? [length] : [length, length, length, length];
  const profiles: Profile[] = [];
  for (const compute of options.computes ?? (["bf16"] as const)) {
    profiles.push(...(await profileModel(options, model, compute, lengths)));
  }
  return profiles;
}

async function profileModel(
  options: BenchOptions,
  model: BenchModel,
  compute: Compute,
  lengths: readonly number[],
): Promise<Profile[]> {
  const opened = await openDevice(options.threads === null ? {} : { threads: options.threads });
  const { device, times, reset } = timeCalls(opened);
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const bed = openStepBed(device, model, compute, options.methods, tokens);
  const batch = fixedBatch(lengths, model.config.vocabSize);
  const steps = options.rounds ?? (options.quick ? 1 : STEPS);
  try {
    return (["floor", ...options.methods] as const).map((method) => {
      const run = (): number =>
        (method === "floor" ? bed.floor(batch) : bed.step(method, batch)).milliseconds;
      run();
      reset();
      const taken = Array.from({ length: steps }, run);
      const ops = [...times]
        .filter(([, { calls }]) => calls > 0)
        .map(([name, { calls, milliseconds }]) => ({
          name,
          calls: calls / steps,
          milliseconds: milliseconds / steps,
        }))
        .sort((a, b) => b.milliseconds - a.milliseconds);
      const native = ops.reduce((sum, op) => sum + op.milliseconds, 0);
      const whole = taken.reduce((sum, ms) => sum + ms, 0) / steps;
      const between = { name: "(between the calls)", calls: 0, milliseconds: whole - native };
      return {
        model: model.name,
        method,
        compute,
        tokens,
        step: summarize(taken).median,
        ops: [...ops, between],
      };
    });
  } finally {
    bed.free();
    closeDevice(device);
  }
}

export function profileText({ model, method, compute, tokens, step, ops }: Profile): string {
  const whole = ops.reduce((sum, op) => sum + op.milliseconds, 0);
  const table = textTable({
    columns: [
      { title: "op" },
      { title: "calls", align: "right" },
      { title: "ms", align: "right" },
      { title: "share", align: "right" },
    ],
    rows: ops.map(({ name, calls, milliseconds }) => [
      name,
      calls === 0 ? "" : `${Math.round(calls)}`,
      milliseconds.toFixed(2),
      `${((100 * milliseconds) / whole).toFixed(1)} %`,
    ]),
  });
  const speed = `${step.toFixed(1)} ms a step, ${Math.round((tokens / step) * 1000)} tokens/s`;
  return `${model} ${compute} ${method}: ${tokens} tokens, ${speed}\n${table}`;
}
