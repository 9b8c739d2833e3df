/** The linears of a LLaMA block: their names, sizes and numbers, from the config alone. */
import { InputError } from "../errors.ts";
import type { LlamaConfig } from "../formats/hf-config.ts";

/** In the order of the module numbers. */
export const linearNames = [
  "q_proj",
  "k_proj",
  "v_proj",
  "o_proj",
  "gate_proj",
  "up_proj",
  "down_proj",
] as const;
export type LinearName = (typeof linearNames)[number];

export interface LinearShape {
  /** Path below `model.`, e.g. `layers.3.mlp.up_proj`. */
  readonly name: string;
  readonly module: number;
  readonly in: number;
  readonly out: number;
}

/** Path of a linear below `model.`. */
export function linearPath(layer: number, name: LinearName): string {
  const part =
    name.startsWith("gate") || name.startsWith("up") || name.startsWith("down") ? "mlp" : "self_attn";
  return `layers.${layer}.${part}.${name}`;
}

export function linearShape(config: LlamaConfig, layer: number, name: LinearName): LinearShape {
  const { hiddenSize: H, intermediateSize: F, heads, kvHeads, headSize: D } = config;
  const sizes: Record<LinearName, [number, number]> = {
    q_proj: [H, heads * D],
    k_proj: [H, kvHeads * D],
    v_proj: [H, kvHeads * D],
    o_proj: [heads * D, H],
    gate_proj: [H, F],
    up_proj: [H, F],
    down_proj: [F, H],
  };
  const [width, out] = sizes[name];
  return {
    name: linearPath(layer, name),
    module: layer * linearNames.length + linearNames.indexOf(name),
    in: width,
    out,
  };
}

/** Every linear that ends with one of the targets (protocol §1.1), in module order; `all-linear` means all seven. */
export function targetedLinears(config: LlamaConfig, targets: readonly string[]): LinearShape[] {
  const wanted = targets.includes("all-linear") ? linearNames : targets;
  for (const target of wanted) {
    if (!linearNames.some((name) => name === target)) {
      throw new InputError(
        `unknown target "${target}"; expected all-linear or names out of ${linearNames.join(", ")}`,
      );
    }
  }
  const shapes: LinearShape[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    for (const name of linearNames)
      if (wanted.some((t) => t === name)) shapes.push(linearShape(config, layer, name));
  }
  return shapes;
}

/** Widest feature dimension any product of the model has, for the workspace. */
export function widestFeature(config: LlamaConfig): number {
  return Math.max(config.hiddenSize, config.intermediateSize, config.heads * config.headSize);
}
