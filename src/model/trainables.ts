/**
 * Everything of a model that a run trains: one flat f32 buffer of parameters and one of gradients (so that the
 * optimizer, clipping and a checkpoint are one call each), and the adapters whose tensors are windows of them.
 */
import type { Adapter, AdapterSite, DrawOptions, FactorShape, Factors, Method } from "../adapters/adapter.ts";
import { MERGE_ROWS } from "../adapters/draw.ts";
import { readWholeWeight, writeWholeWeight } from "../adapters/full.ts";
import { checkRank } from "../adapters/registry.ts";
import type { LlamaConfig } from "../formats/hf-config.ts";
import type { Arena } from "../native/arena.ts";
import { reserve } from "../native/device.ts";
import { copy, createTensor, freeTensor, type Tensor, view, zero } from "../native/tensor.ts";
import type { NormGradients } from "./block.ts";
import type { Linear } from "./linear.ts";
import type { Llama } from "./model.ts";
import { type LinearName, linearNames, targetedLinears, widestFeature } from "./shapes.ts";

export interface AdapterOptions {
  readonly method: Method;
  readonly rank: number;
  readonly alpha: number;
  /** Linear names (`q_proj` …) or `all-linear`; ignored by `full`. */
  readonly targets: readonly string[];
  readonly seed: number;
  /** Only these modules, each with its own rank and scaling (PEFT's patterns, adapters of some layers). */
  readonly sites?: ReadonlyMap<string, Pick<AdapterSite, "rank" | "scaling">>;
  /** Per module path: indices SBoRA must not draw. */
  readonly avoid?: ReadonlyMap<string, ReadonlySet<number>>;
}

/** Where one trained tensor lies in the flat buffers, in elements. */
export interface Slot {
  readonly name: string;
  readonly offset: number;
  readonly shape: readonly number[];
}

export interface Trainables {
  readonly options: AdapterOptions;
  readonly adapters: readonly Adapter[];
  readonly slots: readonly Slot[];
  /** f32 [n], all trained tensors one after the other. */
  readonly parameters: Tensor;
  /** f32 [n]. */
  readonly gradients: Tensor;
  /** Only for `full`: gradients of what is no linear. */
  readonly whole: WholeModel | null;
}

export interface WholeModel {
  readonly embedding: Tensor;
  readonly embeddingGradient: Tensor;
  readonly head: Tensor;
  /** The embedding's gradient where the head is tied to it. */
  readonly headGradient: Tensor;
  readonly finalNorm: Tensor;
  readonly norms: readonly NormGradients[];
}

interface Planned {
  readonly linear: Linear;
  readonly site: AdapterSite;
}

/** Every linear that gets an adapter, with the adapter's size. */
export function adapterSites(config: LlamaConfig, options: AdapterOptions): AdapterSite[] {
  const { method, rank, alpha, sites } = options;
  const full = method.name === "full";
  const usual = { rank, scaling: full ? 1 : alpha / rank };
  return targetedLinears(config, full ? ["all-linear"] : options.targets).flatMap((shape) => {
    const own = sites ? sites.get(shape.name) : usual;
    if (!own) return [];
    checkRank(method, own.rank, shape);
    return [{ ...shape, ...own }];
  });
}

/** The linear at a module path below `model.`. */
export function linearAt(model: Llama, path: string): Linear {
  const [, layer, , name] = path.split(".");
  return model.layers[Number(layer)]!.linears[name as LinearName];
}

function plannedSites(model: Llama, options: AdapterOptions): Planned[] {
  return adapterSites(model.config, options).map((site) => ({ linear: linearAt(model, site.name), site }));
}

/** Slots of every trained tensor, in module order; `full` appends embedding, head and norms. */
function planSlots(model: Llama, options: AdapterOptions, sites: readonly Planned[]): Slot[] {
  const slots: Slot[] = [];
  let offset = 0;
  const add = (name: string, shape: readonly number[]): void => {
    slots.push({ name, offset, shape });
    offset += shape.reduce((a, b) => a * b, 1);
  };
  for (const { site } of sites) {
    for (const [name, { shape }] of Object.entries(options.method.trainable(site)))
      add(`${site.name}.${name}`, shape);
  }
  if (options.method.name === "full") {
    const { vocabSize: V, hiddenSize: H, layers, tiedEmbeddings } = model.config;
    add("embed_tokens.W", [V, H]);
    if (!tiedEmbeddings) add("lm_head.W", [V, H]);
    for (let i = 0; i < layers; i++) {
      add(`layers.${i}.input_layernorm.W`, [H]);
      add(`layers.${i}.post_attention_layernorm.W`, [H]);
    }
    add("norm.W", [H]);
  }
  return slots;
}

/** Number of trained parameters of a run, from shapes alone. */
export function countTrainable(model: Llama, options: AdapterOptions): number {
  const slots = planSlots(model, options, plannedSites(model, options));
  return slots.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

/** Allocates, initialises (ΔW = 0) and puts an adapter behind every targeted linear of the model. */
export function attachTrainables(model: Llama, options: AdapterOptions, scratch: Arena): Trainables {
  const { device, config } = model;
  const sites = plannedSites(model, options);
  // for what happens outside a pass: DoRA's norms (rank rows) and merging
  const rank = Math.max(options.rank, ...sites.map(({ site }) => site.rank));
  const tokens = Math.max(rank, MERGE_ROWS);
  reserve(device, { tokens, width: widestFeature(config), rank, vocabulary: 0 });
  const slots = planSlots(model, options, sites);
  const total = slots.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const parameters = createTensor(device, "f32", [total]);
  const gradients = createTensor(device, "f32", [total]);
  const byName = new Map(slots.map((slot) => [slot.name, slot]));
  const window = (buffer: Tensor, name: string): Tensor => {
    const slot = byName.get(name);
    if (!slot) throw new Error(`no slot ${name}`);
    return view(device, buffer, slot.offset, slot.shape);
  };
  const adapters = sites.map(({ linear, site }): Adapter => {
    const { method } = options;
    const named = (buffer: Tensor): Factors =>
      Object.fromEntries(
        Object.keys(method.trainable(site)).map((n) => [n, window(buffer, `${site.name}.${n}`)]),
      );
    const own = (shapes: Record<string, FactorShape>): Factors =>
      Object.fromEntries(Object.entries(shapes).map(([n, s]) => [n, createTensor(device, s.dtype, s.shape)]));
    const adapter: Adapter = {
      site,
      method,
      trainable: named(parameters),
      gradient: named(gradients),
      frozen: own(method.frozen(site)),
      derived: own(method.derived(site)),
    };
    const avoid = options.avoid?.get(site.name);
    const draw: DrawOptions = { seed: options.seed, ...(avoid ? { avoid } : {}) };
    method.initialise(device, adapter, linear.weight, draw);
    method.prepare(device, adapter, linear.weight, scratch);
    linear.adapter = adapter;
    return adapter;
  });
  const whole =
    options.method.name === "full"
      ? attachWhole(
          model,
          (name) => window(parameters, name),
          (name) => window(gradients, name),
        )
      : null;
  return { options, adapters, slots, parameters, gradients, whole };
}

/** Moves embedding, head and norms into the flat buffer; the model's norms become windows of it. */
function attachWhole(
  model: Llama,
  parameter: (name: string) => Tensor,
  gradient: (name: string) => Tensor,
): WholeModel {
  const { device, config } = model;
  const adopt = (old: Tensor, name: string): Tensor => {
    const tensor = parameter(name);
    copy(device, tensor, old);
    freeTensor(device, old);
    return tensor;
  };
  const embedding = parameter("embed_tokens.W");
  readWholeWeight(device, model.embedding, embedding);
  const embeddingGradient = gradient("embed_tokens.W");
  const head = config.tiedEmbeddings ? embedding : parameter("lm_head.W");
  if (!config.tiedEmbeddings) readWholeWeight(device, model.head, head);
  const headGradient = config.tiedEmbeddings ? embeddingGradient : gradient("lm_head.W");
  const norms = model.layers.map((layer, i): NormGradients => {
    const input = `layers.${i}.input_layernorm.W`;
    const post = `layers.${i}.post_attention_layernorm.W`;
    layer.inputNorm = adopt(layer.inputNorm, input);
    layer.postNorm = adopt(layer.postNorm, post);
    return { inputNorm: gradient(input), postNorm: gradient(post) };
  });
  model.finalNorm = adopt(model.finalNorm, "norm.W");
  return { embedding, embeddingGradient, head, headGradient, finalNorm: gradient("norm.W"), norms };
}

/** After the parameters changed: derived tensors (DoRA's gain), and for `full` the weights that products read. */
export function prepareTrainables(model: Llama, trained: Trainables, scratch: Arena): void {
  for (const adapter of trained.adapters) {
    adapter.method.prepare(model.device, adapter, linearOf(model, adapter).weight, scratch);
  }
  const { whole } = trained;
  if (!whole) return;
  writeWholeWeight(model.device, model.embedding, whole.embedding, scratch);
  if (whole.head !== whole.embedding) writeWholeWeight(model.device, model.head, whole.head, scratch);
}

export function zeroGradients(model: Llama, trained: Trainables): void {
  zero(model.device, trained.gradients);
}

/** W += ΔW everywhere, and no adapter is left behind the linears: what remains is a plain model. */
export function mergeTrainables(model: Llama, trained: Trainables, scratch: Arena): void {
  for (const adapter of trained.adapters) {
    const linear = linearOf(model, adapter);
    adapter.method.merge(model.device, adapter, linear.weight, scratch);
    linear.adapter = null;
  }
}

export function linearOf(model: Llama, adapter: Adapter): Linear {
  for (const layer of model.layers) {
    for (const name of linearNames) if (layer.linears[name].adapter === adapter) return layer.linears[name];
  }
  throw new Error(`${adapter.site.name} is not attached to this model`);
}

/** Detaches and frees everything; the model stays usable (`full`: with the trained weights) and is the caller's to free. */
export function freeTrainables(model: Llama, trained: Trainables): void {
  if (trained.whole) giveNormsBack(model);
  for (const layer of model.layers) for (const name of linearNames) layer.linears[name].adapter = null;
  for (const adapter of trained.adapters) {
    for (const tensor of Object.values(adapter.frozen)) freeTensor(model.device, tensor);
    for (const tensor of Object.values(adapter.derived)) freeTensor(model.device, tensor);
  }
  freeTensor(model.device, trained.gradients);
  freeTensor(model.device, trained.parameters);
}

/** The model's norms stop being windows of the flat buffer. */
function giveNormsBack(model: Llama): void {
  const own = (window: Tensor): Tensor => {
    const tensor = createTensor(model.device, "f32", window.shape);
    copy(model.device, tensor, window);
    return tensor;
  };
  for (const layer of model.layers) {
    layer.inputNorm = own(layer.inputNorm);
    layer.postNorm = own(layer.postNorm);
  }
  model.finalNorm = own(model.finalNorm);
}
