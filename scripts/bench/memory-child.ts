/** Started by memory.ts: a few training steps and nothing else, then the most memory this process has held. */
import type { Compute } from "../../src/adapters/adapter.ts";
import { readLlamaConfig } from "../../src/formats/hf-config.ts";
import { allocatedBytes, closeDevice, openDevice } from "../../src/native/device.ts";
import { mostResidentBytes } from "../../src/reporting/memory.ts";
import { forecastMemory } from "../../src/training/forecast.ts";
import { planTraining } from "../../src/training/plan.ts";
import { fixedBatch } from "./batch.ts";
import type { StepMethod } from "./options.ts";
import { adapterOptions, openStepBed, STEP_RANK } from "./step-bed.ts";

export interface MemoryRequest {
  /** Model folder, its weights in bf16. */
  readonly dir: string;
  readonly compute: Compute;
  readonly method: StepMethod;
  readonly lengths: readonly number[];
  readonly steps: number;
  readonly threads: number;
}

/** In bytes. */
export interface MemoryResult {
  /** VmHWM. */
  readonly peak: number;
  /** What `train --dry-run` foresees, without the host copies of a run that saves: this one does not. */
  readonly planned: number;
  /** Alive on the device: tensors, weights, workspace. */
  readonly allocated: number;
}

/** What the folder's weights take: bf16 either way, f32 compute keeps the storage type. */
const BYTES_PER_WEIGHT = 2;

async function main({ dir, compute, method, lengths, steps, threads }: MemoryRequest): Promise<void> {
  const config = readLlamaConfig(dir);
  const device = await openDevice({ threads });
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const load = { compute, positions: tokens };
  const plan = planTraining(config, load, adapterOptions(method), 0, tokens, BYTES_PER_WEIGHT);
  const foreseen = { config, plan, maxTokens: tokens, rank: STEP_RANK, copies: 0 };
  const planned = (await forecastMemory(device, foreseen)).total;
  const bed = openStepBed(device, { name: dir, shape: null, config, folder: dir }, compute, [method], tokens);
  const batch = fixedBatch(lengths, config.vocabSize);
  for (let i = 0; i < steps; i++) {
    bed.step(method, batch);
    await Bun.sleep(0);
  }
  const allocated = allocatedBytes(device);
  const peak = mostResidentBytes();
  if (peak === null) throw new Error("/proc/self/status has no VmHWM; memory is measured on Linux only");
  const result: MemoryResult = { peak, planned, allocated };
  bed.free();
  closeDevice(device);
  console.log(JSON.stringify(result));
}

if (import.meta.main) await main(JSON.parse(process.argv[2] ?? "{}") as MemoryRequest);
