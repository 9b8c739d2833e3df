/** AdamW over the flat buffers, with the global-norm clip in front of it. */
import type { Device } from "../native/device.ts";
import { adamw, sumSquares } from "../native/ops/index.ts";
import { createTensor, freeTensor, type Tensor } from "../native/tensor.ts";

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Largest global gradient norm; 0: no clipping. */
  readonly clip: number;
}

/** transformers' defaults (protocol §2.1). */
export const adamwDefaults: AdamWOptions = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, clip: 1 };

/** First and second moment, f32 [n] each. */
export interface AdamWState {
  readonly m: Tensor;
  readonly v: Tensor;
}

export function createAdamW(device: Device, parameters: Tensor): AdamWState {
  return {
    m: createTensor(device, "f32", parameters.shape),
    v: createTensor(device, "f32", parameters.shape),
  };
}

export function freeAdamW(device: Device, state: AdamWState): void {
  freeTensor(device, state.m);
  freeTensor(device, state.v);
}

/**
 * One optimizer step, `step` counted from 1.
 * @returns the gradient's norm before clipping; when it is not finite nothing was changed.
 */
export function adamwStep(
  device: Device,
  parameters: Tensor,
  gradients: Tensor,
  state: AdamWState,
  options: AdamWOptions,
  lr: number,
  step: number,
): number {
  const norm = Math.sqrt(sumSquares(device, gradients));
  if (!Number.isFinite(norm)) return norm;
  // torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm
  const gradientScale = options.clip > 0 ? Math.min(1, options.clip / (norm + 1e-6)) : 1;
  const { beta1, beta2, eps, weightDecay: decay } = options;
  const buffers = { p: parameters, g: gradients, m: state.m, v: state.v };
  adamw(device, buffers, { lr, beta1, beta2, eps, decay, step, gradientScale });
  return norm;
}
