/** What is to be merged, checked before anything is written: adapters against the base and against each other. */
import type { AdapterSite, Method } from "../adapters/adapter.ts";
import { type AdapterFolder, checkFactors, readAdapter, type StoredFactors } from "../adapters/storage.ts";
import { InputError, Problems } from "../errors.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { type LlamaConfig, readLlamaConfig } from "../formats/hf-config.ts";
import { openModelTensors, type TensorEntry } from "../formats/safetensors.ts";
import { adapterOptionsOf } from "../model/load-adapter.ts";
import type { Quantization } from "../model/nf4.ts";
import { type AdapterOptions, adapterSites } from "../model/trainables.ts";

export interface AdapterSource {
  readonly dir: string;
  /** Factor of ΔW. */
  readonly weight: number;
}

/** One adapter on one matrix; `site.scaling` includes the source's weight. */
export interface Part {
  readonly method: Method;
  readonly site: AdapterSite;
  readonly stored: StoredFactors;
}

export interface LoadedSource extends AdapterSource {
  readonly folder: AdapterFolder;
  readonly options: AdapterOptions;
}

export interface Base {
  readonly dir: string;
  readonly config: LlamaConfig;
  readonly fingerprint: string;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** The base is what its linears are in 4 bits. */
  readonly quantize?: Quantization;
}

export function openBase(dir: string, quantize?: Quantization): Base {
  const config = readLlamaConfig(dir);
  const base = { dir, config, fingerprint: fingerprintModel(dir), tensors: openModelTensors(dir) };
  return quantize ? { ...base, quantize } : base;
}

/** @throws InputError where an adapter belongs to another base, or does not fit this one */
export function loadSources(base: Base, sources: readonly AdapterSource[]): LoadedSource[] {
  if (sources.length === 0) throw new InputError("there is no adapter to merge; give --adapter DIR.");
  return sources.map((source) => {
    if (!(Number.isFinite(source.weight) && source.weight !== 0))
      throw new InputError(`${source.dir}: weight ${source.weight}, expected a number other than 0.`);
    const folder = readAdapter(source.dir);
    requireBase(base, folder);
    const loaded = { ...source, folder, options: adapterOptionsOf(folder) };
    checkFit(base, loaded);
    return loaded;
  });
}

/** @throws InputError with names and fingerprints of both models where the adapter was trained on another one */
export function requireBase(base: Base, { dir, config, metadata }: AdapterFolder): void {
  if (!metadata?.base || metadata.base === base.fingerprint) return;
  throw new InputError(
    `${dir}: this adapter was trained on ${config.baseModel || "a model without a name"} (fingerprint ${metadata.base.slice(0, 16)}), but ` +
      `${base.dir} is ${base.config.nameOrPath} (fingerprint ${base.fingerprint.slice(0, 16)}). Give the model it was trained on.`,
  );
}

function checkFit(base: Base, { folder, options }: LoadedSource): void {
  const problems = new Problems();
  const sites = adapterSites(base.config, options);
  const known = new Set(sites.map(({ name }) => name));
  for (const module of folder.modules.keys()) {
    if (!known.has(module)) problems.add(`module ${module} is no linear of the base`);
  }
  for (const site of sites) {
    const stored = folder.modules.get(site.name);
    if (stored) checkFactors(stored, { site, method: options.method }, problems);
    else problems.add(`module ${site.name} is missing`);
  }
  problems.throwIfAny(folder.file, `Check that ${base.dir} is the model the adapter was trained on.`);
}

/** Every adapted matrix by its tensor name, with its adapters in the order they were given. */
export function partsByTensor(base: Base, sources: readonly LoadedSource[]): Map<string, Part[]> {
  const parts = new Map<string, Part[]>();
  for (const { folder, options, weight } of sources) {
    for (const site of adapterSites(base.config, options)) {
      const name = `model.${site.name}.weight`;
      const part: Part = {
        method: options.method,
        site: { ...site, scaling: site.scaling * weight },
        stored: folder.modules.get(site.name)!,
      };
      const known = parts.get(name);
      if (known) known.push(part);
      else parts.set(name, [part]);
    }
  }
  return parts;
}

/** DoRA rescales whole rows of W + ΔW: it has no ΔW that could be weighted or added to another's. */
export function requireSummable(sources: readonly LoadedSource[]): void {
  const dora = sources.find(({ options }) => options.method.name === "dora");
  if (!dora || (sources.length === 1 && dora.weight === 1)) return;
  throw new InputError(
    `${dora.dir}: DoRA rescales the rows of the merged weights, so its change cannot be ${sources.length > 1 ? "added to another adapter's" : `weighted by ${dora.weight}`}. ` +
      `Merge it alone, with weight 1.`,
  );
}
