/**
 * One training run and nothing else, started by memory-sample.ts: whatever this process holds is the method's. Its events
 * go to stdout, a JSON object a line; the parent keeps the clock and reads the memory.
 */
import { readInstructionRecords } from "../src/data/records.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";
import { fineTune } from "../src/training/fine-tune.ts";
import type { MemoryForecast } from "../src/training/forecast.ts";
import type { TrainRecipe } from "../src/training/recipe.ts";

export interface MemoryRequest {
  readonly modelDir: string;
  readonly dataFile: string;
  readonly recipe: TrainRecipe;
  readonly maxTokens: number;
  /** Training folder; the parent removes it. */
  readonly out: string;
  readonly threads: number | null;
}

/** Bytes, and what the processor is. */
export type MemoryEvent =
  | {
      readonly event: "start";
      readonly parameters: number;
      readonly steps: number;
      readonly forecast: MemoryForecast;
      readonly device: { readonly name: string; readonly isa: string; readonly threads: number };
    }
  | { readonly event: "step"; readonly step: number; readonly seconds: number; readonly tokens: number };

async function main({ threads, dataFile, ...request }: MemoryRequest): Promise<void> {
  const device = await openDevice(threads === null ? {} : { threads });
  const say = (event: MemoryEvent): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
  const run = await fineTune({
    ...request,
    dataFile,
    records: readInstructionRecords(dataFile),
    device,
    resume: false,
    saveAs: "native",
    // A pause for a checkpoint is no part of training.
    checkpointEvery: Number.POSITIVE_INFINITY,
    onStart: ({ plan, steps }, forecast) =>
      say({
        event: "start",
        parameters: plan.parameters,
        steps,
        forecast,
        device: { name: device.name, isa: device.isa, threads: device.threads },
      }),
    onStep: ({ step, seconds, tokens }) => say({ event: "step", step, seconds, tokens }),
  });
  run.close();
  closeDevice(device);
}

if (import.meta.main) await main(JSON.parse(process.argv[2] ?? "{}") as MemoryRequest);
