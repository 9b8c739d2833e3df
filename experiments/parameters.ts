/** Trained parameters of a method, counted from the shapes of the model and of the method's own factors. */
import type { MethodName } from "../src/adapters/adapter.ts";
import { methods } from "../src/adapters/registry.ts";
import type { LlamaConfig } from "../src/formats/hf-config.ts";
import { targetedLinears } from "../src/model/shapes.ts";

/** Adapters behind every targeted linear; `full` is not counted here, it trains what is no linear too. */
export function trainedParameters(
  config: LlamaConfig,
  method: MethodName,
  rank: number,
  targets: readonly string[],
): number {
  let count = 0;
  for (const shape of targetedLinears(config, targets)) {
    const factors = methods[method].trainable({ ...shape, rank, scaling: 1 });
    for (const { shape: size } of Object.values(factors)) count += size.reduce((a, b) => a * b, 1);
  }
  return count;
}

/** The method behind a name of the paper's tables; Q stands for the 4-bit base. */
export function methodOfTitle(title: string): MethodName | null {
  const plain = title.replace(/^Q/, "");
  return Object.values(methods).find((method) => method.title === plain)?.name ?? null;
}

/** "sbora-fa" -> "SBoRA-FA", "base" -> "base model". */
export function methodTitle(name: string): string {
  return name === "base" ? "base model" : methods[name as MethodName].title;
}

/** 28049408 -> "28.0M", as the paper prints it. */
export function inMillions(count: number): string {
  return count >= 1e5 ? `${(count / 1e6).toFixed(1)}M` : `${(count / 1e3).toFixed(1)}k`;
}
