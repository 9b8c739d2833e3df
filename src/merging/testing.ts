/** The tiny golden model and its adapters as folders, for the tests of this folder. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { methodNamed } from "../adapters/registry.ts";
import { saveAdapter } from "../adapters/storage.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { type FloatDtype, narrow, widen } from "../formats/half.ts";
import { copyConfig } from "../formats/model-folder.ts";
import { openModelTensors, readTensorBytes } from "../formats/safetensors.ts";
import { writeModelTensors } from "../formats/safetensors-model-write.ts";
import { type Llama, loadLlama } from "../model/model.ts";
import { linearNames } from "../model/shapes.ts";
import {
  type AdapterSet,
  attachGolden,
  type Rig,
  readGolden,
  readGoldenJson,
  testdata,
} from "../model/testing.ts";
import {
  type AdapterOptions,
  attachTrainables,
  freeTrainables,
  type Trainables,
} from "../model/trainables.ts";
import { readF64, writeF32 } from "../native/tensor.ts";
import { type MergeOptions, type MergeReport, mergeModel } from "./merge.ts";

export const BASE = testdata("gqa");
export const { sets } = readGoldenJson<{ sets: Record<string, AdapterSet> }>("gqa", "adapters.json");
const factors = readGolden("gqa", "adapters.safetensors");

/** A folder for one test file's folders; `next` names a new one below it. */
export function temporaryRoot(): { root: string; next: () => string; remove: () => void } {
  const root = mkdtempSync(join(tmpdir(), "sbora-merging-"));
  let count = 0;
  return {
    root,
    next: () => join(root, String(++count)),
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}

/** The tiny base with its weights in another type, perhaps in shards. */
export function baseIn(dir: string, dtype: FloatDtype, maxShardBytes?: number): string {
  mkdirSync(dir);
  copyConfig(BASE, dir, dtype);
  const tensors = [...openModelTensors(BASE).values()].map((entry) => {
    const bytes = narrow(dtype, widen("F32", readTensorBytes(entry)));
    return { name: entry.name, dtype, shape: entry.shape, bytes };
  });
  writeModelTensors(dir, tensors, maxShardBytes ? { maxShardBytes } : {});
  return dir;
}

/** Saves what is attached as an adapter folder of `base`. */
export function saveTrained(
  rig: Rig,
  trained: Trainables,
  dir: string,
  base: string,
  layout: "native" | "peft" = "native",
): string {
  const { method, alpha } = trained.options;
  saveAdapter(dir, rig.device, trained.adapters, {
    layout,
    baseModel: "golden/gqa",
    alpha,
    dropout: 0,
    metadata: {
      method: method.name,
      seed: 1,
      base: fingerprintModel(base),
      recipe: null,
      templateHash: null,
    },
  });
  return dir;
}

/** A golden set of factors as an adapter folder. */
export function saveGolden(
  rig: Rig,
  label: string,
  dir: string,
  base = BASE,
  layout: "native" | "peft" = "native",
): string {
  const trained = attachGolden(rig, sets[label]!, factors, label);
  try {
    return saveTrained(rig, trained, dir, base, layout);
  } finally {
    freeTrainables(rig.model, trained);
  }
}

/** An adapter away from its start: every trained value gets `scale` times a wave added. */
export function saveDisturbed(
  rig: Rig,
  options: AdapterOptions,
  dir: string,
  scale = 0.05,
  base = BASE,
): string {
  const trained = attachTrainables(rig.model, options, rig.scratch);
  try {
    const start = readF64(rig.device, trained.parameters);
    writeF32(
      rig.device,
      trained.parameters,
      start.map((v, i) => Math.fround(v + scale * Math.sin(i + options.seed))),
    );
    return saveTrained(rig, trained, dir, base);
  } finally {
    freeTrainables(rig.model, trained);
  }
}

export function loadGoldenModel(rig: Rig, dir: string): Llama {
  return loadLlama(rig.device, dir, { compute: "f32", positions: 64 });
}

/** Bytes of every tensor of a model folder. */
export function bytesByName(dir: string): Map<string, Uint8Array> {
  return new Map([...openModelTensors(dir)].map(([name, entry]) => [name, readTensorBytes(entry)]));
}

export function readJson<T>(...path: string[]): T {
  return JSON.parse(readFileSync(join(...path), "utf8")) as T;
}

export interface Merging {
  /** Merges into a new folder, with verification. */
  merge(
    adapters: readonly string[],
    over?: Partial<MergeOptions>,
  ): Promise<{ out: string; report: MergeReport }>;
  /** The message of a refused merge; checks that nothing is left of it. */
  refused(adapters: readonly string[], over?: Partial<MergeOptions>): Promise<string>;
}

/** How the tests merge: on the tiny base, everything checked, nothing kept. */
export function merging(rig: () => Rig, { root, next }: ReturnType<typeof temporaryRoot>): Merging {
  const merge: Merging["merge"] = async (adapters, over = {}) => {
    const out = next();
    const report = await mergeModel({
      device: rig().device,
      modelDir: BASE,
      adapters: adapters.map((dir) => ({ dir, weight: 1 })),
      out,
      keepOriginals: false,
      allowOverlap: false,
      verify: true,
      ...over,
    });
    return { out: over.out ?? out, report };
  };
  const refused: Merging["refused"] = async (adapters, over = {}) => {
    const before = readdirSync(root).sort();
    const failed = await merge(adapters, { out: join(root, "refused"), ...over }).then(
      () => "nothing was thrown",
      (error: Error) => error.message,
    );
    if (readdirSync(root).sort().join() !== before.join()) throw new Error("the refused merge left files");
    return failed;
  };
  return { merge, refused };
}

/** SBoRA, LoRA … of rank 4 on every linear. */
export function optionsOf(name: string, over: Partial<AdapterOptions> = {}): AdapterOptions {
  return { method: methodNamed(name), rank: 4, alpha: 8, targets: [...linearNames], seed: 3, ...over };
}
