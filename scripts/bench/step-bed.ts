/** One model, several methods in turn: the product's training step, and its frozen floor. */
import type { Adapter, Compute } from "../../src/adapters/adapter.ts";
import { methodNamed } from "../../src/adapters/registry.ts";
import type { PackedBatch } from "../../src/data/batches.ts";
import { freeLlama, type Llama } from "../../src/model/model.ts";
import type { Quantization } from "../../src/model/nf4.ts";
import { linearNames, widestFeature } from "../../src/model/shapes.ts";
import { trainPass } from "../../src/model/train-pass.ts";
import {
  attachTrainables,
  freeTrainables,
  prepareTrainables,
  type Trainables,
  zeroGradients,
} from "../../src/model/trainables.ts";
import { createArena, freeArena } from "../../src/native/arena.ts";
import { type Device, reserve, sync } from "../../src/native/device.ts";
import { readBytes } from "../../src/native/tensor.ts";
import {
  type AdamWState,
  adamwDefaults,
  adamwStep,
  createAdamW,
  freeAdamW,
} from "../../src/training/optimizer.ts";
import { planTraining } from "../../src/training/plan.ts";
import { type BenchModel, loadBenchModel } from "./context.ts";
import { timed } from "./interleave.ts";
import type { StepMethod } from "./options.ts";

export const STEP_RANK = 32;
export const STEP_ALPHA = 64;
export const STEP_TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"];
const LEARNING_RATE = 1e-4;

export interface Stepped {
  readonly milliseconds: number;
  /** Mean over the labels. */
  readonly loss: number;
}

export interface StepBed {
  readonly model: Llama;
  /** Forward, backward, clipping, AdamW, and what the adapters derive from their factors. */
  step(method: StepMethod, batch: PackedBatch): Stepped;
  /** Forward and input gradient of the frozen model. */
  floor(batch: PackedBatch): Stepped;
  /** The method's trained parameters, f32 bytes. */
  parameters(method: StepMethod): Uint8Array;
  free(): void;
}

/** A method's adapters, behind the linears only while it has its turn. */
interface Prepared {
  readonly trained: Trainables;
  readonly moments: AdamWState;
  readonly behind: readonly (Adapter | null)[];
  steps: number;
}

export function adapterOptions(method: StepMethod, targets: readonly string[] = STEP_TARGETS) {
  return { method: methodNamed(method), rank: STEP_RANK, alpha: STEP_ALPHA, targets, seed: 1 };
}

/** @param tokens the most that a batch will have */
export function openStepBed(
  device: Device,
  of: BenchModel,
  compute: Compute,
  methods: readonly StepMethod[],
  tokens: number,
  quantize: Quantization | null = null,
): StepBed {
  const { config } = of;
  const positions = tokens;
  const model = loadBenchModel(device, of, compute, positions, quantize);
  const plans = methods.map((method) =>
    planTraining(config, { compute, positions }, adapterOptions(method), 0, tokens, 4),
  );
  const floorPlan = planTraining(
    config,
    { compute, positions },
    adapterOptions("sbora-fa", []),
    0,
    tokens,
    4,
  );
  const largest = (part: "kept" | "scratch"): number =>
    Math.max(floorPlan[part], ...plans.map((p) => p[part]));
  const kept = createArena(device, largest("kept"));
  const scratch = createArena(device, largest("scratch"));
  const linears = model.layers.flatMap((layer) => linearNames.map((name) => layer.linears[name]));
  const prepare = (trained: Trainables): Prepared => {
    const behind = linears.map(({ adapter }) => adapter);
    for (const linear of linears) linear.adapter = null;
    return { trained, moments: createAdamW(device, trained.parameters), behind, steps: 0 };
  };
  const frozen = prepare(attachTrainables(model, adapterOptions("sbora-fa", []), scratch));
  const prepared = new Map(
    methods.map((method) => [method, prepare(attachTrainables(model, adapterOptions(method), scratch))]),
  );
  reserve(device, {
    tokens,
    width: widestFeature(config),
    rank: STEP_RANK,
    vocabulary: config.vocabSize,
  });
  const select = ({ behind }: Prepared): void =>
    linears.forEach((linear, i) => {
      linear.adapter = behind[i]!;
    });
  const pass = (batch: PackedBatch, { trained }: Prepared): number => {
    const losses = trainPass(model, trained, batch, { kept, scratch, dropout: null });
    return losses.reduce((sum, loss, i) => sum + batch.labelWeights[i]! * loss, 0);
  };
  const preparedOf = (method: StepMethod): Prepared => {
    const found = prepared.get(method);
    if (found) return found;
    throw new Error(`${method} was not prepared`);
  };
  return {
    model,
    step(method, batch) {
      const own = preparedOf(method);
      const { trained, moments } = own;
      select(own);
      let loss = Number.NaN;
      const milliseconds = timed(() => {
        zeroGradients(model, trained);
        loss = pass(batch, own);
        const { parameters, gradients } = trained;
        adamwStep(device, parameters, gradients, moments, adamwDefaults, LEARNING_RATE, ++own.steps);
        prepareTrainables(model, trained, scratch);
        sync(device);
      });
      return finite({ milliseconds, loss }, method);
    },
    floor(batch) {
      select(frozen);
      let loss = Number.NaN;
      const milliseconds = timed(() => {
        loss = pass(batch, frozen);
        sync(device);
      });
      return finite({ milliseconds, loss }, "the frozen model");
    },
    parameters: (method) => readBytes(device, preparedOf(method).trained.parameters),
    free() {
      for (const own of [frozen, ...prepared.values()]) {
        select(own);
        freeTrainables(model, own.trained);
        freeAdamW(device, own.moments);
      }
      freeArena(kept);
      freeArena(scratch);
      freeLlama(model);
    },
  };
}

/** A step that computed nothing sensible is no measurement. */
function finite(stepped: Stepped, what: string): Stepped {
  if (Number.isFinite(stepped.loss)) return stepped;
  throw new Error(`${what}: loss ${stepped.loss}`);
}
