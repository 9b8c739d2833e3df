/** Adapter folders behind a model's linears: to start training from one, to run it live, or to merge it. */
import { methodInNorm } from "../adapters/registry.ts";
import { type AdapterFolder, loadAdapterValues, type StoredFactors } from "../adapters/storage.ts";
import { Problems } from "../errors.ts";
import { PEFT_CONFIG_FILE, peftRank, peftScaling } from "../formats/peft.ts";
import { type Arena, createArena, freeArena } from "../native/arena.ts";
import type { Llama } from "./model.ts";
import type { Quantization } from "./nf4.ts";
import { planMerge } from "./planning.ts";
import { linearNames } from "./shapes.ts";
import {
  type AdapterOptions,
  attachTrainables,
  freeTrainables,
  mergeTrainables,
  prepareTrainables,
  type Trainables,
} from "./trainables.ts";

/**
 * What an adapter folder was trained with. Scaling is what counts: alpha is given so that alpha / rank is the folder's.
 * Where modules differ, or a foreign adapter may be in some layers only, `sites` says what each has.
 * @throws InputError where modules are no linears of a LLaMA block
 */
export function adapterOptionsOf(folder: AdapterFolder): AdapterOptions {
  const modules = [...folder.modules.keys()];
  const sites = new Map(
    modules.map((module) => {
      const site = { rank: peftRank(folder.config, module), scaling: peftScaling(folder.config, module) };
      return [module, site];
    }),
  );
  const problems = new Problems();
  const targets = new Set(modules.map((module) => module.split(".").at(-1)!));
  for (const target of targets) {
    if (!linearNames.some((name) => name === target)) {
      problems.add(`${target} is adapted, expected names out of ${linearNames.join(", ")}`);
    }
  }
  for (const [module, { rank }] of sites) {
    // Memory is asked for by the config, and a few kilobytes of tensors can stand beside any number.
    const stored = rankOf(folder.modules.get(module)!);
    if (stored !== rank)
      problems.add(`${module} has tensors of rank ${stored ?? "none"}, but ${PEFT_CONFIG_FILE} says ${rank}`);
  }
  problems.throwIfAny(folder.dir, "Adapters like this cannot be used here.");
  const all = [...sites.values()];
  const largest = all.reduce((a, b) => (b.rank > a.rank ? b : a));
  const same = all.every(({ rank, scaling }) => rank === largest.rank && scaling === largest.scaling);
  return {
    method: methodInNorm(folder.method, folder.metadata?.norm),
    rank: largest.rank,
    alpha: largest.scaling * largest.rank,
    targets: linearNames.filter((name) => targets.has(name)),
    seed: folder.metadata?.seed ?? 0,
    // our own adapters stand in every layer: a module that is missing there must be noticed
    ...(same && folder.metadata ? {} : { sites }),
  };
}

/** Of the tensors: A [r,in], B [out,r] or indices [r]. */
function rankOf({ index, A, B }: StoredFactors): number | undefined {
  return index ? index.shape[0] : A ? A.shape[0] : B?.shape[1];
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

/** Whether an adapter was trained on other bits of its base than these; a sentence for the user where it was. */
export function quantizationMismatch(
  folder: AdapterFolder,
  quantize: Quantization | undefined,
): string | null {
  const recipe = folder.metadata?.recipe;
  const trained =
    typeof recipe === "object" && recipe !== null && "quantize" in recipe ? recipe.quantize : undefined;
  if (trained === quantize) return null;
  const flags = trained === "nf4-double" ? "--quantize nf4 --double-quant" : "--quantize nf4";
  return trained === undefined
    ? `${folder.dir} was trained on the base as it is, which is now quantized to ${quantize}.`
    : `${folder.dir} was trained on its base quantized to ${trained}; give ${flags} to have the same weights below it.`;
}

/** W += ΔW of a folder's adapter: what remains is a plain model. */
export function mergeFolder(model: Llama, folder: AdapterFolder): void {
  withFolder(model, folder, (trained, arena) => {
    mergeTrainables(model, trained, arena);
    freeTrainables(model, trained);
  });
}

/** A folder's adapter behind the linears of the model, whose weights stay as they are. @returns what takes it away again */
export function attachFolder(model: Llama, folder: AdapterFolder): () => void {
  return withFolder(model, folder, (trained, arena) => {
    prepareTrainables(model, trained, arena);
    return () => freeTrainables(model, trained);
  });
}

function withFolder<T>(
  model: Llama,
  folder: AdapterFolder,
  use: (trained: Trainables, arena: Arena) => T,
): T {
  const options = adapterOptionsOf(folder);
  const load = { compute: model.compute, positions: 1 };
  const arena = createArena(model.device, planMerge(model.config, load, options));
  try {
    const trained = attachTrainables(model, options, arena);
    try {
      loadAdapterValues(folder, model.device, trained.adapters);
      return use(trained, arena);
    } catch (error) {
      freeTrainables(model, trained);
      throw error;
    }
  } finally {
    freeArena(arena);
  }
}
