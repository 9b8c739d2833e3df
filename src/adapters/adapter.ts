/**
 * The contract of a fine-tuning method (design §1): every method is a low-rank tail on a frozen linear,
 *
 *     y[T,out] = g ⊙ ( x[T,in]·Wᵀ + z[T,r]·uᵀ )
 *
 * and a method file says only which factors exist, how they start (ΔW = 0), how z is made, where the tail lands and how
 * it merges. An adapter sees tensors, the frozen weight and the ops; it knows nothing of layers or models.
 */
import type { Arena } from "../native/arena.ts";
import type { Device } from "../native/device.ts";
import type { Dropout } from "../native/ops/dropout.ts";
import type { Tensor } from "../native/tensor.ts";
import type { Weight } from "../native/weight.ts";

export type Compute = "f32" | "bf16";

/** Named tensors of one adapter; `factor()` reads one and says which is missing. */
export type Factors = Readonly<Record<string, Tensor>>;

/** Shape of one named tensor, before there is memory for it. */
export interface FactorShape {
  readonly dtype: "f32" | "i32";
  readonly shape: readonly number[];
}

/** Which linear an adapter sits on, and how large it is. */
export interface AdapterSite {
  /** Module path below `model.`, e.g. `layers.0.self_attn.q_proj`. */
  readonly name: string;
  /** Number of the module in the model, the dropout stream's word; the same with every set of targets. */
  readonly module: number;
  readonly in: number;
  readonly out: number;
  readonly rank: number;
  /** s = alpha / rank. */
  readonly scaling: number;
}

/** One method on one linear. `trainable` and `gradient` are windows of the run's flat buffers. */
export interface Adapter {
  readonly site: AdapterSite;
  readonly method: Method;
  readonly trainable: Factors;
  readonly gradient: Factors;
  /** Not trained but needed: index vectors, frozen random factors. Saved with the adapter. */
  readonly frozen: Factors;
  /** Derived from the others by `prepare`; never saved. */
  readonly derived: Factors;
}

/** What a forward or backward pass over one packed batch of T tokens hands down to every linear. */
export interface Pass {
  readonly device: Device;
  readonly compute: Compute;
  /** Lives from forward to backward: what a method must remember. */
  readonly kept: Arena;
  /** Released as soon as the linear returns. */
  readonly scratch: Arena;
  /** Mask of adapter dropout without the module word; null at p = 0 and outside training. */
  readonly dropout: Omit<Dropout, "module"> | null;
}

/** What forward remembers for backward; windows of `Pass.kept`. */
export type Saved = Factors;

export interface Method {
  readonly name: MethodName;
  /** As the paper prints it. */
  readonly title: string;
  /** One line for the documentation table and `--help`. */
  readonly summary: string;
  /** DoRA in the norm of the 4-bit experiments; left out everywhere else. */
  readonly norm?: "unscaled";
  /** True where backward reads the linear's input x[T,in]; false where r numbers a token are enough. */
  readonly keepsInput: boolean;
  /** Largest legal rank, or null where any rank is legal (settled 5). */
  maxRank(site: { in: number; out: number }): number | null;
  /** Trained tensors (all f32), in the order they lie in the flat buffer. */
  trainable(site: AdapterSite): Record<string, FactorShape>;
  frozen(site: AdapterSite): Record<string, FactorShape>;
  derived(site: AdapterSite): Record<string, FactorShape>;
  /** Fills trainable and frozen tensors so that ΔW = 0; draws come from streams of `seed`. */
  initialise(device: Device, adapter: Adapter, weight: Weight, draw: DrawOptions): void;
  /** Recomputes `derived` after the factors or the weight changed (once an optimizer step). */
  prepare(device: Device, adapter: Adapter, weight: Weight, scratch: Arena): void;
  /** y[T,out] = beta·y + adapted linear of x[T,in]; returns what backward needs. */
  forward(pass: Pass, adapter: Adapter, weight: Weight, x: Tensor, y: Tensor, beta: number): Saved;
  /**
   * dx[T,in] = betaDx·dx + gradient of the adapted linear (dx null: not wanted); gradients of the factors are added to
   * `adapter.gradient`. `x` is the forward's input when `keepsInput`, else null. dy[T,out], dx f32.
   */
  backward(
    pass: Pass,
    adapter: Adapter,
    weight: Weight,
    saved: Saved,
    x: Tensor | null,
    dy: Tensor,
    dx: Tensor | null,
    betaDx: number,
  ): void;
  /** W += ΔW in place: f32 arithmetic, one rounding to the type the weight is held in. */
  merge(device: Device, adapter: Adapter, weight: Weight, scratch: Arena): void;
}

export interface DrawOptions {
  readonly seed: number;
  /** Feature indices that SBoRA must not draw at this site (adapters that shall merge without touching). */
  readonly avoid?: ReadonlySet<number>;
}

export const methodNames = ["lora", "dora", "oa", "lora-fa", "sbora-fa", "sbora-fb", "full"] as const;
export type MethodName = (typeof methodNames)[number];

/** The named tensor; a missing one is a bug of the method file. */
export function factor(factors: Factors, name: string): Tensor {
  const tensor = factors[name];
  if (tensor === undefined)
    throw new Error(`adapter has no tensor ${name}, only ${Object.keys(factors).join(", ")}`);
  return tensor;
}

/** Dropout of this pass at this module, or null. */
export function dropoutAt(pass: Pass, site: AdapterSite): Dropout | null {
  return pass.dropout && pass.dropout.p > 0 ? { ...pass.dropout, module: site.module } : null;
}

export const f32 = (...shape: number[]): FactorShape => ({ dtype: "f32", shape });
export const i32 = (...shape: number[]): FactorShape => ({ dtype: "i32", shape });
