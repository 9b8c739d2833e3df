/** What every benchmark is given: the options, the device, what the machine can do, and where to put results. */
import { basename } from "node:path";
import type { Compute } from "../../src/adapters/adapter.ts";
import { type LlamaConfig, readLlamaConfig } from "../../src/formats/hf-config.ts";
import { buildLlama, type Llama, loadLlama } from "../../src/model/model.ts";
import type { Quantization } from "../../src/model/nf4.ts";
import type { Device } from "../../src/native/device.ts";
import { openDevice } from "../../src/native/device.ts";
import type { BenchOptions } from "./options.ts";
import type { Machine } from "./peaks.ts";
import { randomSource } from "./random-weights.ts";
import type { Report } from "./report.ts";
import { type ShapeName, shapeConfig, shapeOf } from "./shapes.ts";

export interface Bench {
  readonly options: BenchOptions;
  readonly device: Device;
  readonly machine: Machine;
  readonly report: Report;
  /** Progress and remarks: on stdout, or on stderr where stdout is for JSON. */
  readonly say: (text: string) => void;
}

/** Layers of a quick run, and of random shapes whose layers are wide enough to speak for all. */
const FEW_LAYERS = 2;
const WIDE = 2048;

/** Rounds to measure: --rounds, or `usual`; 2 in a quick run. */
export function roundsOf({ options }: Bench, usual: number): number {
  return options.rounds ?? (options.quick ? 2 : usual);
}

export function computesOf({ options }: Bench, usual: readonly Compute[]): readonly Compute[] {
  return options.computes ?? usual;
}

/** A model to measure: its config, and how to get it into memory. */
export interface BenchModel {
  readonly name: string;
  /** The named shape that it has, whatever its number of layers; null: none that has targets. */
  readonly shape: ShapeName | null;
  readonly config: LlamaConfig;
  /** null: random weights. */
  readonly folder: string | null;
}

/** --model, else --shape, else `usual`; random ones that are wide, or measured in a hurry, with two layers. */
export function benchModel({ options }: Pick<Bench, "options">, usual: ShapeName = "smollm2"): BenchModel {
  if (options.model !== null) {
    const config = readLlamaConfig(options.model);
    return {
      name: basename(options.model).toLowerCase(),
      shape: shapeOf(config),
      config,
      folder: options.model,
    };
  }
  const name = options.shape ?? usual;
  const config = shapeConfig(name);
  const layers = options.quick || isWide(config) ? FEW_LAYERS : config.layers;
  return { name, shape: name, config: shapeConfig(name, layers), folder: null };
}

/** Wide enough that one sequence keeps its products busy. */
export function isWide(config: LlamaConfig): boolean {
  return config.hiddenSize > WIDE;
}

export function loadBenchModel(
  device: Device,
  model: BenchModel,
  compute: Compute,
  positions: number,
  quantize: Quantization | null = null,
): Llama {
  const load = { compute, positions };
  return model.folder === null
    ? buildLlama(device, model.config, randomSource(device, quantize), load)
    : loadLlama(device, model.folder, quantize ? { ...load, quantize } : load);
}

/** A second device of the same kind with another number of threads. */
export function openWithThreads(device: Device, threads: number): Promise<Device> {
  return openDevice({ threads, isa: device.isa });
}
