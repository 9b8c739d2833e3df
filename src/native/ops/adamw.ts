import { finite, vector, whole } from "../check.ts";
import { check, type Device } from "../device.ts";
import { sizeOf, type Tensor } from "../layout.ts";

/** Parameters, gradients and both moments: f32, one size. */
export interface AdamwState {
  readonly p: Tensor;
  readonly g: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
}

export interface AdamwStep {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly decay: number;
  /** Counts from 1. */
  readonly step: number;
  /** Multiplies the gradient first (clipping). */
  readonly gradientScale: number;
}

/** One AdamW step with decoupled decay on flat buffers: p, m, v change in place. */
export function adamw(device: Device, state: AdamwState, settings: AdamwStep): void {
  const op = "adamw";
  const n = sizeOf(state.p);
  const fraction = (name: string, value: number) => {
    if (value >= 0 && value < 1) return value;
    throw new TypeError(`${op}: ${name} is ${value}; expected 0 ≤ ${name} < 1.`);
  };
  check(
    device.symbols,
    device.symbols.sb_adamw(
      device.context,
      vector(op, "p", state.p, "f32", n),
      vector(op, "g", state.g, "f32", n),
      vector(op, "m", state.m, "f32", n),
      vector(op, "v", state.v, "f32", n),
      n,
      finite(op, "lr", settings.lr),
      fraction("beta1", settings.beta1),
      fraction("beta2", settings.beta2),
      finite(op, "eps", settings.eps),
      finite(op, "decay", settings.decay),
      whole(op, "step", settings.step, 1, Number.MAX_SAFE_INTEGER),
      finite(op, "gradientScale", settings.gradientScale),
    ),
  );
}
