/**
 * Adapters in other tools' layouts, from the stored factors alone. PEFT: LoRA or DoRA with plain alpha / r, SBoRA as a
 * LoRA with a one-hot factor (exact). GGUF: a LoRA adapter of llama.cpp. What is written is read again and compared.
 */
import { basename, join, resolve } from "node:path";
import type { AdapterSite } from "../adapters/adapter.ts";
import { ADAPTER_FILE, METADATA_FILE, SCHEMA_VERSION, type StoredFactors } from "../adapters/folder.ts";
import { InputError } from "../errors.ts";
import { writeTextFile } from "../formats/files.ts";
import { type ExportType, fitsType, quantize } from "../formats/gguf-quantize.ts";
import { llamaTensors, rowOfHf } from "../formats/gguf-tensors.ts";
import { type GgufTensorToWrite, writeGguf } from "../formats/gguf-write.ts";
import { bytesOf } from "../formats/half.ts";
import { peftKey, writePeftConfig } from "../formats/peft.ts";
import { type TensorToWrite, writeSafetensors } from "../formats/safetensors.ts";
import { adapterSites } from "../model/trainables.ts";
import { type LowRank, lowRankOf, reshaped } from "./low-rank.ts";
import { intoNewFolder, requireNewFolder } from "./merge.ts";
import { type Base, type LoadedSource, loadSources, openBase } from "./sources.ts";

export interface AdapterExport {
  /** The base model, for the sizes of its linears and its name. */
  readonly modelDir: string;
  readonly adapter: string;
  readonly out: string;
}

interface Module {
  readonly site: AdapterSite;
  readonly stored: StoredFactors;
}

interface Opened {
  readonly base: Base;
  readonly source: LoadedSource;
  readonly modules: readonly Module[];
}

function open({ modelDir, adapter }: AdapterExport): Opened {
  const base = openBase(modelDir);
  const source = loadSources(base, [{ dir: adapter, weight: 1 }])[0]!;
  const modules = adapterSites(base.config, source.options).map((site) => ({
    site,
    stored: source.folder.modules.get(site.name)!,
  }));
  return { base, source, modules };
}

/** Writes a PEFT folder that every reader of plain LoRA understands: one rank, one alpha, no patterns. */
export async function exportPeft(options: AdapterExport): Promise<void> {
  requireNewFolder(options.out);
  const { base, source, modules } = open(options);
  const { rank, alpha, method } = source.options;
  const { folder } = source;
  if (method.norm) {
    throw new InputError(
      `${options.adapter}: this DoRA takes the norm of W + B·A without its scaling (sbora.json: norm "${method.norm}"), which ` +
        "PEFT has no word for. Merge it (scripts/merge.ts) and use the model.",
    );
  }
  // Where modules differ, ranks are filled up with zeros and scalings go into B.
  const factorsOf = ({ site, stored }: Module): LowRank => {
    const factors = lowRankOf(method, site, stored);
    const same = site.rank === rank && site.scaling === alpha / rank;
    return same ? factors : reshaped(factors, rank, alpha / rank);
  };
  await intoNewFolder(options.out, async (dir) => {
    writeSafetensors(
      join(dir, ADAPTER_FILE),
      modules.flatMap((module) => peftTensors(module, () => factorsOf(module), rank)),
      { format: "pt" },
    );
    writePeftConfig(dir, {
      peftType: "LORA",
      adapterName: null,
      rank,
      alpha,
      dropout: folder.config.dropout,
      targetModules: targetsOf(base, modules),
      useDora: method.name === "dora",
      useRslora: false,
      rankPattern: {},
      alphaPattern: {},
      baseModel: folder.config.baseModel || base.config.nameOrPath,
      modulesToSave: [],
    });
    if (folder.metadata) {
      const text = JSON.stringify({ schemaVersion: SCHEMA_VERSION, ...folder.metadata }, null, 2);
      writeTextFile(join(dir, METADATA_FILE), `${text}\n`);
    }
    requireSame(dir, base, modules, factorsOf);
  });
}

function peftTensors({ site, stored }: Module, factors: () => LowRank, rank: number): TensorToWrite[] {
  const tensor = (
    key: "lora_A" | "lora_B" | "magnitude",
    shape: number[],
    values: () => ArrayBufferView,
  ): TensorToWrite => ({
    name: peftKey(site.name, key),
    dtype: "F32",
    shape,
    bytes: () => bytesOf(values()),
  });
  const { m } = stored;
  return [
    tensor("lora_A", [rank, site.in], () => factors().A),
    tensor("lora_B", [site.out, rank], () => factors().B),
    ...(m ? [tensor("magnitude", [site.out], () => m.values)] : []),
  ];
}

/** Names of the linears where every layer has them, else whole paths. */
function targetsOf({ config }: Base, modules: readonly Module[]): string[] {
  const paths = modules.map(({ site }) => site.name);
  const names = [...new Set(paths.map((path) => path.split(".").at(-1)!))];
  return paths.length === names.length * config.layers ? names : paths;
}

/** Reads the folder again: its factors must be those that were meant. */
function requireSame(
  dir: string,
  base: Base,
  modules: readonly Module[],
  factorsOf: (module: Module) => LowRank,
): void {
  const source = loadSources(base, [{ dir, weight: 1 }])[0]!;
  const sites = new Map(adapterSites(base.config, source.options).map((site) => [site.name, site]));
  for (const module of modules) {
    const expected = factorsOf(module);
    const site = sites.get(module.site.name);
    const again = site && lowRankOf(source.options.method, site, source.folder.modules.get(site.name)!);
    const same =
      again?.scaling === expected.scaling && equal(again.A, expected.A) && equal(again.B, expected.B);
    if (!same) throw new Error(`${dir}: ${module.site.name} reads back as another adapter than was written`);
  }
}

function equal(a: Float32Array, b: Float32Array): boolean {
  return Buffer.compare(bytesOf(a), bytesOf(b)) === 0;
}

/** Writes a GGUF LoRA adapter: ΔW = alpha / r · B·A with one alpha for the file, rows of q and k in GGUF's order. */
export function exportGgufLora(options: AdapterExport & { readonly type: ExportType }): void {
  const { base, source, modules } = open(options);
  const { alpha, method } = source.options;
  if (method.name === "dora") {
    throw new InputError(
      `${options.adapter}: GGUF has no DoRA. Merge the adapter (scripts/merge.ts) and export the model with --format gguf.`,
    );
  }
  const named = new Map(llamaTensors(base.config).map((tensor) => [tensor.name, tensor]));
  const tensors = modules.flatMap(({ site, stored }): GgufTensorToWrite[] => {
    const { gguf, heads } = named.get(`model.${site.name}.weight`)!;
    const factors = (): LowRank => {
      const own = lowRankOf(method, site, stored);
      const scaling = alpha / site.rank;
      return own.scaling === scaling ? own : reshaped(own, site.rank, scaling);
    };
    const tensor = (
      name: string,
      shape: readonly number[],
      values: () => Float32Array,
    ): GgufTensorToWrite => {
      const type = fitsType(options.type, shape[1]!) ? options.type : "F16";
      return { name: `${gguf}.${name}`, shape, type, bytes: () => quantize(type, values()) };
    };
    return [
      tensor("lora_a", [site.rank, site.in], () => factors().A),
      tensor("lora_b", [site.out, site.rank], () => inGgufOrder(factors().B, site, heads)),
    ];
  });
  const metadata = {
    "general.architecture": { text: "llama" },
    "general.type": { text: "adapter" },
    "general.name": { text: basename(resolve(options.adapter)) },
    "adapter.type": { text: "lora" },
    "adapter.lora.alpha": { f32: alpha },
  };
  writeGguf(options.out, metadata, tensors);
}

/** Rows of B [out,r] as GGUF orders the rows of q and k. */
function inGgufOrder(B: Float32Array, { out, rank }: AdapterSite, heads: number): Float32Array {
  if (heads === 0) return B;
  const ordered = new Float32Array(B.length);
  for (let row = 0; row < out; row++) {
    const from = rowOfHf(row, out / heads);
    ordered.set(B.subarray(from * rank, (from + 1) * rank), row * rank);
  }
  return ordered;
}
