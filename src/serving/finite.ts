/** Adapters of finite values whose changes are not: one weight that overflows makes every answer nonsense. */
import { type AdapterFolder, readAdapter, type StoredFactor } from "../adapters/storage.ts";
import { Problems } from "../errors.ts";
import { peftRank, peftScaling } from "../formats/peft.ts";
import type { Llama } from "../model/model.ts";

const LARGEST = { f16: 65_504, f32: 3.4e38 } as const;

/** @throws InputError naming every module whose weights could overflow, or what readAdapter finds wrong */
export function requireFiniteChanges(model: Llama, dir: string): void {
  const folder = readAdapter(dir);
  const half = model.layers.some(({ linears }) => linears.q_proj.weight.dtype === "f16");
  const largest = half ? LARGEST.f16 : LARGEST.f32;
  const problems = new Problems();
  for (const module of folder.modules.keys()) {
    const change = largestChange(folder, module);
    if (!(change <= largest))
      problems.add(
        `module ${module}: its factors may change a weight by ${change.toPrecision(3)}, expected at most ${largest}`,
      );
  }
  problems.throwIfAny(folder.file, "Check the adapter's values; training may have diverged.");
}

/** Largest |ΔW| that the factors' magnitudes allow, or DoRA's largest magnitude. */
function largestChange({ config, modules }: AdapterFolder, module: string): number {
  const { A, B, m } = modules.get(module)!;
  const product = largestOf(A) * largestOf(B) * (A && B ? peftRank(config, module) : 1);
  return Math.max(product * peftScaling(config, module), m ? largestOf(m) : 0);
}

/** Of a factor that is not there, a one in its place: SBoRA's other factor is a selection. */
function largestOf(factor: StoredFactor | undefined): number {
  let most = 0;
  if (!factor) return 1;
  for (const value of factor.values) most = Math.max(most, Math.abs(value));
  return most;
}
