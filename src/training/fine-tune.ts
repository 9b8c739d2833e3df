/**
 * One fine-tuning run from folders to folders: prepare, load, attach, train, save. `scripts/train.ts` and every cell of
 * an experiment run through here. What is saved is saved before anybody evaluates it.
 */
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import {
  ADAPTER_FILE,
  type AdapterFolder,
  type AdapterMetadata,
  loadAdapterValues,
  readAdapter,
  saveAdapter,
} from "../adapters/storage.ts";
import { promptHash } from "../data/prompts/registry.ts";
import { InputError, messageOf, Problems } from "../errors.ts";
import { readJsonObject, writeTextFile } from "../formats/files.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { makeFolder } from "../formats/model-folder.ts";
import { adapterOptionsOf, baseMismatch } from "../model/load-adapter.ts";
import { freeLlama, type Llama, loadLlama } from "../model/model.ts";
import { planMerge } from "../model/planning.ts";
import {
  attachTrainables,
  freeTrainables,
  mergeTrainables,
  prepareTrainables,
  type Trainables,
} from "../model/trainables.ts";
import { type Arena, withArena } from "../native/arena.ts";
import type { Device } from "../native/device.ts";
import { fileHash, type Manifest, makeManifest } from "../reporting/manifest.ts";
import { forecastRun, type MemoryForecast } from "./forecast.ts";
import { heldOutLoss, restoreParameters, type StepMetrics, type TrainResult, train } from "./loop.ts";
import { type PreparedRun, prepareRun, type RunInput } from "./prepare.ts";
import { differing, recipeHash } from "./recipe.ts";
import { saveModel } from "./save-model.ts";

export interface FineTuneOptions extends RunInput {
  readonly device: Device;
  /** What `prepareRun` made of the same options, where the caller wanted it checked before opening a device. */
  readonly prepared?: PreparedRun;
  /** Gets what settled 2 lists: the best adapter, last/, checkpoint/, metrics.jsonl, manifest.json. */
  readonly out: string;
  /** Goes on from the checkpoint in `out` where there is one; without it a checkpoint there is refused. */
  readonly resume: boolean;
  /** Layout of the adapter folders; `full` writes model folders either way. */
  readonly saveAs: "native" | "peft";
  /** Adapter folder to start from. */
  readonly initAdapter?: string;
  readonly onStep?: (metrics: StepMetrics, steps: number) => void;
  /** Called when all is loaded and the first step is about to run. */
  readonly onStart?: (run: PreparedRun, memory: MemoryForecast) => void;
  readonly shouldStop?: () => boolean;
  readonly checkpointEvery?: number;
}

export interface FineTuned extends PreparedRun {
  readonly model: Llama;
  /** Holds the parameters with the best validation loss. */
  readonly trained: Trainables;
  readonly result: TrainResult;
  readonly manifest: Manifest;
  /** Frees adapters and model; the device stays open. */
  close(): void;
}

export async function fineTune(options: FineTuneOptions): Promise<FineTuned> {
  const { device, modelDir, recipe, out } = options;
  checkOut(options);
  if (options.saveAs === "peft" && recipe.doraNorm) {
    throw new InputError(
      "--save-as peft: PEFT has no DoRA of this norm (doraNorm unscaled); save it natively.",
    );
  }
  const run = options.prepared ?? prepareRun(options);
  const fingerprint = fingerprintModel(modelDir);
  const name = run.config.nameOrPath;
  const data = { [basename(options.dataFile)]: fileHash(options.dataFile) };
  const manifest = makeManifest(device, { name, fingerprint }, data);
  const init = options.initAdapter === undefined ? null : readAdapter(options.initAdapter);
  const content = manifestOf(options, run, manifest, init);
  if (options.resume) checkSameInputs(out, content);
  const memory = options.onStart ? await forecastRun(device, run, recipe) : null;
  const model = loadLlama(device, modelDir, run.load);
  let trained: Trainables | null = null;
  try {
    trained = withArena(device, run.plan.scratch, (scratch) =>
      attach(model, run, init, options, fingerprint, scratch),
    );
    const { plan, maxTokens, train: examples, validation } = run;
    makeFolder(out);
    writeTextFile(join(out, "manifest.json"), `${JSON.stringify(content, null, 2)}\n`);
    if (memory) options.onStart?.(run, memory);
    const { resume, onStep, shouldStop, checkpointEvery } = options;
    const result = await train(
      model,
      trained,
      { train: examples, validation },
      {
        recipe,
        out,
        plan,
        maxTokens,
        resume,
        ...(onStep ? { onStep } : {}),
        ...(shouldStop ? { shouldStop } : {}),
        ...(checkpointEvery === undefined ? {} : { checkpointEvery }),
      },
    );
    const tuned = finished(model, trained, run, result, manifest);
    const origin = { ...drawOf(options, init), base: fingerprint };
    save(tuned, options, join(out, "last"), origin);
    withArena(device, plan.scratch, (scratch) =>
      restoreParameters(model, tuned.trained, result.best, scratch),
    );
    save(tuned, options, out, origin);
    return tuned;
  } catch (error) {
    if (trained) freeTrainables(model, trained);
    freeLlama(model);
    throw error;
  }
}

function finished(
  model: Llama,
  trained: Trainables,
  run: PreparedRun,
  result: TrainResult,
  manifest: Manifest,
): FineTuned {
  const close = (): void => {
    freeTrainables(model, trained);
    freeLlama(model);
  };
  return { ...run, model, trained, result, manifest, close };
}

/** Merges the adapters into the weights: `run.model` is a plain model afterwards, ready to be evaluated. */
export function mergedForEvaluation(
  run: Pick<FineTuned, "config" | "load" | "adapter" | "model" | "trained">,
): Llama {
  const bytes = planMerge(run.config, run.load, run.adapter);
  withArena(run.model.device, bytes, (arena) => mergeTrainables(run.model, run.trained, arena));
  return run.model;
}

/** Σ negative log-likelihood / Σ label tokens over the validation records, of the model as it is now; null without records. */
export function validationLoss(
  run: Pick<FineTuned, "model" | "plan" | "validation" | "maxTokens">,
): number | null {
  const { model, plan, validation, maxTokens } = run;
  if (validation.length === 0) return null;
  return withArena(model.device, plan.kept, (kept) =>
    withArena(model.device, plan.scratch, (scratch) =>
      heldOutLoss(model, validation, kept, scratch, maxTokens),
    ),
  );
}

function attach(
  model: Llama,
  run: PreparedRun,
  folder: AdapterFolder | null,
  options: FineTuneOptions,
  fingerprint: string,
  scratch: Arena,
): Trainables {
  if (folder === null) return attachTrainables(model, run.adapter, scratch);
  const stored = adapterOptionsOf(folder);
  const problems = new Problems();
  const compare = (what: string, theirs: unknown, ours: unknown): void => {
    if (`${theirs}` !== `${ours}`) problems.add(`${what} is ${theirs}, this run asks for ${ours}`);
  };
  compare("method", stored.method.name, run.adapter.method.name);
  compare("DoRA's norm", stored.method.norm ?? "scaled", run.adapter.method.norm ?? "scaled");
  compare("rank", stored.rank, run.adapter.rank);
  compare("scaling (alpha / rank)", stored.alpha / stored.rank, run.adapter.alpha / run.adapter.rank);
  const others = [...(stored.sites?.values() ?? [])].filter(
    ({ rank, scaling }) => rank !== stored.rank || scaling * rank !== stored.alpha,
  );
  if (others.length > 0) problems.add(`${others.length} modules have another rank or scaling than the rest`);
  // Its indices take the place of those that would be drawn.
  const crossing = [...folder.modules].filter(([module, { index }]) =>
    index?.values.some((i) => options.avoid?.get(module)?.has(i)),
  );
  if (crossing.length > 0)
    problems.add(
      `${crossing.length} modules (${crossing[0]![0]}, …) have indices that --avoid-indices-of rules out, expected others`,
    );
  problems.throwIfAny(folder.dir, "Start from an adapter of the same kind.");
  const mismatch = baseMismatch(folder, fingerprint);
  if (mismatch) options.onNote?.(mismatch);
  const trained = attachTrainables(model, run.adapter, scratch);
  try {
    loadAdapterValues(folder, model.device, trained.adapters);
  } catch (error) {
    freeTrainables(model, trained);
    throw error;
  }
  prepareTrainables(model, trained, scratch);
  return trained;
}

/** Where indices and frozen factors come from: the run's own seed, or the adapter it began with, and that one's seed. */
function drawOf(
  { recipe, initAdapter }: FineTuneOptions,
  init: AdapterFolder | null,
): Pick<AdapterMetadata, "seed" | "initAdapter"> {
  if (init === null || initAdapter === undefined) return { seed: recipe.seed };
  const { metadata, file } = init;
  return {
    seed: metadata?.seed ?? null,
    initAdapter: { path: initAdapter, sha256: fileHash(file) },
  };
}

function save(
  run: FineTuned,
  options: FineTuneOptions,
  dir: string,
  origin: Pick<AdapterMetadata, "base" | "seed" | "initAdapter">,
): void {
  const { model, trained, config, prompt } = run;
  const { recipe } = options;
  const metadata = {
    method: recipe.method,
    ...origin,
    recipe,
    templateHash: promptHash(prompt),
  };
  if (trained.whole) {
    saveModel(dir, model, trained, { base: options.modelDir });
    writeTextFile(join(dir, "sbora.json"), `${JSON.stringify({ schemaVersion: 1, ...metadata }, null, 2)}\n`);
    return;
  }
  saveAdapter(dir, model.device, trained.adapters, {
    layout: options.saveAs,
    baseModel: config.nameOrPath,
    alpha: recipe.alpha,
    dropout: recipe.dropout,
    metadata,
  });
}

/** Refuses a folder that cannot be written or holds a model or another run, before anything is loaded. */
export function checkOut({
  out,
  resume,
  modelDir,
}: Pick<FineTuneOptions, "out" | "resume" | "modelDir">): void {
  if (resolve(out) === resolve(modelDir)) {
    throw new InputError(`${out}: this is the base model's own folder (--model); choose another --out.`);
  }
  let parent = out;
  while (!existsSync(parent)) {
    const above = join(parent, "..");
    if (above === parent) break;
    parent = above;
  }
  try {
    if (!statSync(parent).isDirectory()) throw new Error(`${parent} is not a folder`);
    accessSync(parent, constants.W_OK);
  } catch (error) {
    throw new InputError(
      `${out}: the output folder cannot be written (${messageOf(error)}); choose another --out.`,
    );
  }
  if (!resume && existsSync(join(out, "checkpoint", "state.safetensors"))) {
    throw new InputError(
      `${out}: this folder already holds a training run; add --resume to go on with it, or choose another --out.`,
    );
  }
  const taken = [ADAPTER_FILE, "model.safetensors"].find((name) => existsSync(join(out, name)));
  if (!resume && taken) {
    throw new InputError(`${out}: this folder already holds a ${taken}; choose another --out.`);
  }
}

/**
 * A run is resumed with the flags, the data and the base it was started with. Checked before the manifest is written
 * anew: a refused command leaves the folder as it was.
 */
function checkSameInputs(out: string, content: RunManifest): void {
  const path = join(out, "manifest.json");
  if (!existsSync(path)) return;
  const old = readJsonObject(path) as unknown as Partial<RunManifest>;
  const { manifest } = old;
  const now = content.manifest;
  const problems = new Problems();
  // Without a checkpoint the run starts anew, as it is asked for now.
  if (existsSync(join(out, "checkpoint", "state.safetensors"))) {
    if (old.recipeHash !== undefined && old.recipeHash !== content.recipeHash) {
      const fields = differing(old.recipe, content.recipe).slice(0, 5).join(", ");
      problems.add(`the run was started with another recipe: ${fields}`);
    }
    if (old.maxTokens !== undefined && old.maxTokens !== content.maxTokens) {
      problems.add(`passes held up to ${old.maxTokens} tokens, now ${content.maxTokens} (--max-tokens)`);
    }
    // The checkpoint holds what trains; indices and frozen factors come from the adapter the run began with.
    if (old.initAdapter !== undefined && (old.initAdapter === null) !== (content.initAdapter === null)) {
      problems.add(
        old.initAdapter === null
          ? "the run did not start from an adapter, now --init-adapter is given"
          : `the run started from --init-adapter ${old.initAdapter}, now none is given`,
      );
    } else if (old.initAdapterHash && old.initAdapterHash !== content.initAdapterHash) {
      problems.add(`the run started from --init-adapter ${old.initAdapter}, whose contents are others now`);
    }
  }
  if (manifest?.model?.fingerprint && manifest.model.fingerprint !== now.model.fingerprint) {
    problems.add(
      `the base was ${manifest.model.name} (${manifest.model.fingerprint.slice(0, 12)}), now it is another`,
    );
  }
  if (manifest?.data && Object.values(manifest.data).join() !== Object.values(now.data).join()) {
    problems.add(`the data was ${Object.keys(manifest.data).join(", ")}, now its contents are others`);
  }
  problems.throwIfAny(
    path,
    "Resume with the flags, model and data that the run was started with, or choose another --out.",
  );
}

/** What manifest.json holds. */
type RunManifest = ReturnType<typeof manifestOf>;

function manifestOf(
  options: FineTuneOptions,
  run: PreparedRun,
  manifest: Manifest,
  init: AdapterFolder | null,
) {
  const { recipe } = options;
  return {
    schemaVersion: 1,
    recipe,
    recipeHash: recipeHash(recipe),
    steps: run.steps,
    trainRecords: run.train.length,
    validationRecords: run.validation.length,
    split: "drawn with sbora's own generator: other records than NumPy's seed-42 split of the published code",
    trainableParameters: run.plan.parameters,
    maxTokens: run.maxTokens,
    activationCheckpointing: run.plan.recompute,
    initAdapter: options.initAdapter ?? null,
    /** SHA-256 of its weights. */
    initAdapterHash: init && fileHash(init.file),
    manifest,
  };
}
