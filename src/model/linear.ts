/** A frozen linear with or without an adapter behind it: the only place where a model meets a method. */
import type { Adapter, Pass, Saved } from "../adapters/adapter.ts";
import { linearBackward, linearForward } from "../native/ops/index.ts";
import type { Tensor } from "../native/tensor.ts";
import type { Weight } from "../native/weight.ts";

export interface Linear {
  readonly weight: Weight;
  /** null: the frozen product alone. */
  adapter: Adapter | null;
}

/** True where backward will ask for this linear's input. */
export function keepsInput(linear: Linear): boolean {
  return linear.adapter?.method.keepsInput ?? false;
}

/** y[T,out] = beta·y + linear(x[T,in]). */
export function forward(pass: Pass, linear: Linear, x: Tensor, y: Tensor, beta = 0): Saved {
  const { adapter, weight } = linear;
  if (adapter) return adapter.method.forward(pass, adapter, weight, x, y, beta);
  linearForward(pass.device, weight, x, y, { beta });
  return {};
}

/** dx[T,in] = betaDx·dx + gradient; adapter gradients are added. x: the input where it was kept, else null. */
export function backward(
  pass: Pass,
  linear: Linear,
  saved: Saved,
  x: Tensor | null,
  dy: Tensor,
  dx: Tensor | null,
  betaDx = 0,
): void {
  const { adapter, weight } = linear;
  if (adapter) adapter.method.backward(pass, adapter, weight, saved, x, dy, dx, betaDx);
  else if (dx) linearBackward(pass.device, weight, dy, dx, { beta: betaDx });
}
