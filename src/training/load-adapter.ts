/** Adapter folders behind a model's linears: to start training from one, or to merge and use it. */

import { methodNamed } from "../adapters/registry.ts";
import { type AdapterFolder, loadAdapterValues } from "../adapters/storage.ts";
import { Problems } from "../errors.ts";
import { peftRank, peftScaling } from "../formats/peft.ts";
import type { Llama } from "../model/model.ts";
import { linearNames } from "../model/shapes.ts";
import {
  type AdapterOptions,
  attachTrainables,
  freeTrainables,
  mergeTrainables,
} from "../model/trainables.ts";
import { createArena, freeArena } from "../native/arena.ts";
import { planMerge } from "./plan.ts";

/**
 * What an adapter folder was trained with. Scaling is what counts: alpha is given so that alpha / rank is the folder's.
 * @throws InputError where modules differ in rank or scaling, or are no linears of a LLaMA block
 */
export function adapterOptionsOf(folder: AdapterFolder): AdapterOptions {
  const modules = [...folder.modules.keys()];
  const problems = new Problems();
  const ranks = new Set(modules.map((module) => peftRank(folder.config, module)));
  const scalings = new Set(modules.map((module) => peftScaling(folder.config, module)));
  if (ranks.size > 1) problems.add(`modules have ranks ${[...ranks].join(", ")}, expected one rank for all`);
  if (scalings.size > 1)
    problems.add(`modules have scalings ${[...scalings].join(", ")}, expected one for all`);
  const targets = new Set(modules.map((module) => module.split(".").at(-1)!));
  for (const target of targets) {
    if (!linearNames.some((name) => name === target)) {
      problems.add(`${target} is adapted, expected names out of ${linearNames.join(", ")}`);
    }
  }
  problems.throwIfAny(`${folder.dir}`, "Adapters like this cannot be used here.");
  const [rank] = ranks;
  const [scaling] = scalings;
  return {
    method: methodNamed(folder.method),
    rank: rank!,
    alpha: scaling! * rank!,
    targets: linearNames.filter((name) => targets.has(name)),
    seed: folder.metadata?.seed ?? 0,
  };
}

/** Whether an adapter belongs to this base, as far as its folder tells; a sentence for the user where it does not. */
export function baseMismatch(folder: AdapterFolder, fingerprint: string): string | null {
  const base = folder.metadata?.base;
  if (!base || base === fingerprint) return null;
  return (
    `${folder.dir} was trained on another base model (fingerprint ${base.slice(0, 12)}, this one is ` +
    `${fingerprint.slice(0, 12)}): results may be meaningless.`
  );
}

/** W += ΔW of a folder's adapter: what remains is a plain model. */
export function mergeFolder(model: Llama, folder: AdapterFolder): void {
  const options = adapterOptionsOf(folder);
  const load = { compute: model.compute, positions: 1 };
  const arena = createArena(model.device, planMerge(model.config, load, options));
  try {
    const trained = attachTrainables(model, options, arena);
    loadAdapterValues(folder, model.device, trained.adapters);
    mergeTrainables(model, trained, arena);
    freeTrainables(model, trained);
  } finally {
    freeArena(arena);
  }
}
