/** The matrices of one layer with everything to multiply them by: the products of a training step and nothing else. */
import type { Compute } from "../../src/adapters/adapter.ts";
import { f32ToBf16 } from "../../src/formats/half.ts";
import type { LlamaConfig } from "../../src/formats/hf-config.ts";
import { type Quantization, quantizedWeight } from "../../src/model/nf4.ts";
import { allocatedBytes, type Device, reserve, sync } from "../../src/native/device.ts";
import { linearBackward, linearForward, matmul } from "../../src/native/ops/index.ts";
import {
  createTensor,
  freeTensor,
  sizeOf,
  type Tensor,
  view,
  writeF32,
  zero,
} from "../../src/native/tensor.ts";
import { createWeight, freeWeight, type Weight } from "../../src/native/weight.ts";
import { timed } from "./interleave.ts";
import { randomMatrix, randomValues } from "./random-weights.ts";
import { layerElements, layerMatrices } from "./shapes.ts";

export type Product = "forward" | "backward";

export interface LayerBed {
  readonly device: Device;
  /** Weights of one layer's matrices. */
  readonly elements: number;
  /** Bytes of all copies as the library counts them. */
  readonly bytes: number;
  readonly copies: number;
  /** Milliseconds of X·Wᵀ or dY·W over every matrix of every copy, X and dY as the blocks have them. */
  products(what: Product, tokens: number): number;
  /** Milliseconds of dU = dYᵀ·Z over every matrix of one layer. */
  factors(tokens: number, rank: number): number;
  free(): void;
}

interface Plan {
  /** The most that will be asked for. */
  readonly tokens: number;
  readonly rank: number;
  /** Layers to go round, so that no cache holds them. */
  readonly copies?: number;
  readonly quantize?: Quantization;
}

export function openLayerBed(device: Device, config: LlamaConfig, compute: Compute, plan: Plan): LayerBed {
  const { tokens: T, rank, copies = 1, quantize } = plan;
  const matrices = layerMatrices(config);
  const width = Math.max(...matrices.flatMap((m) => [m.in, m.out]));
  reserve(device, { tokens: Math.max(T, width), width, rank: Math.max(rank, 1), vocabulary: 0 });
  const weights: Weight[] = [];
  const sources = matrices.map(({ name, in: columns, out }) => {
    const values = randomMatrix(name, out, columns);
    const data = compute === "bf16" ? f32ToBf16(values) : values;
    return { name, data, dtype: compute, out, in: columns, compute };
  });
  // The same values in every copy, but memory of its own.
  const before = allocatedBytes(device);
  for (let copy = 0; copy < copies; copy++) {
    for (const source of sources)
      weights.push(quantize ? quantizedWeight(device, source, quantize) : createWeight(device, source));
  }
  const bytes = allocatedBytes(device) - before;
  const tensors: Tensor[] = [];
  const make = (dtype: Compute, rows: number, columns: number, seed: number): Tensor => {
    const tensor = createTensor(device, dtype, [rows, columns]);
    tensors.push(tensor);
    if (seed > 0) writeF32(device, tensor, randomValues(sizeOf(tensor), seed));
    return tensor;
  };
  const x = make(compute, T, width, 1);
  const y = make(compute, T, width, 0);
  const residual = make("f32", T, width, 0);
  const dy = make("f32", T, width, 2);
  const dx = make("f32", T, width, 0);
  const z = make(compute, T, Math.max(rank, 1), 3);
  const du = make("f32", width, Math.max(rank, 1), 0);
  const window = (tensor: Tensor, rows: number, columns: number): Tensor =>
    view(device, tensor, 0, [rows, columns]);

  const forward = (weight: Weight, tokens: number): void => {
    // o and down add to the residual stream, as block.ts has them.
    const adds = /o_proj|down_proj/.test(weight.name);
    const out = window(adds ? residual : y, tokens, weight.out);
    linearForward(device, weight, window(x, tokens, weight.in), out, { beta: adds ? 1 : 0 });
  };
  const backward = (weight: Weight, tokens: number): void =>
    linearBackward(device, weight, window(dy, tokens, weight.out), window(dx, tokens, weight.in));
  const measured = (body: () => void): number =>
    timed(() => {
      body();
      sync(device);
    });
  return {
    device,
    elements: layerElements(config),
    bytes,
    copies,
    products(what, tokens) {
      // or it grows from call to call
      zero(device, residual);
      const product = what === "forward" ? forward : backward;
      return measured(() => {
        for (const weight of weights) product(weight, tokens);
      });
    },
    factors: (tokens, r) =>
      measured(() => {
        for (const { out } of matrices) {
          const a = window(dy, tokens, out);
          const b = window(z, tokens, r);
          matmul(device, { a, transposeA: true, b, c: window(du, out, r), beta: 1, compute });
        }
      }),
    free() {
      for (const weight of weights) freeWeight(device, weight);
      for (const tensor of tensors) freeTensor(device, tensor);
    },
  };
}

/** Floating-point operations of one product over every matrix of a layer, a multiply-add counted as two. */
export function layerFlops(config: LlamaConfig, tokens: number): number {
  return 2 * tokens * layerElements(config);
}

/** The same of dYᵀ·Z. */
export function factorFlops(config: LlamaConfig, tokens: number, rank: number): number {
  return layerMatrices(config).reduce((sum, { out }) => sum + 2 * tokens * out * rank, 0);
}
