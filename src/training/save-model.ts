/** A fully trained model as a Hugging Face folder: every weight from the f32 masters, tokenizer and settings of the base. */
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { InputError, messageOf } from "../errors.ts";
import { readJsonObject, writeTextFile } from "../formats/files.ts";
import { bytesOf, f32ToBf16, f32ToF16 } from "../formats/half.ts";
import { hfConfigText } from "../formats/hf-config.ts";
import { openModelTensors, type TensorToWrite, writeSafetensors } from "../formats/safetensors.ts";
import type { Llama } from "../model/model.ts";
import type { Trainables } from "../model/trainables.ts";
import { readF32, view } from "../native/tensor.ts";

/** What travels along, where the base has it. */
const COMPANIONS = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "tokenizer.model",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
  "generation_config.json",
];

export interface SaveModelOptions {
  /** Folder of the base: configuration and tokenizer come from there. */
  readonly base: string;
  /** Stored type; default: the base's. */
  readonly dtype?: keyof typeof TYPES;
}

/** Names in config.json, and the rounding. */
const TYPES = {
  F32: { name: "float32", round: (values: Float32Array): ArrayBufferView => values },
  BF16: { name: "bfloat16", round: f32ToBf16 },
  F16: { name: "float16", round: f32ToF16 },
};

/** Writes the folder, the weights last; each file is replaced atomically. `trained` must come from method `full`. */
export function saveModel(dir: string, model: Llama, trained: Trainables, options: SaveModelOptions): void {
  if (!trained.whole) throw new Error(`saveModel: ${trained.options.method.name} trains no whole model`);
  makeFolder(dir);
  const stored = openModelTensors(options.base).get("model.embed_tokens.weight")?.dtype;
  const dtype = options.dtype ?? (stored === "BF16" || stored === "F16" ? stored : "F32");
  const { name: torchDtype, round } = TYPES[dtype];
  for (const name of COMPANIONS) {
    if (existsSync(join(options.base, name))) copyFileSync(join(options.base, name), join(dir, name));
  }
  const config = readJsonObject(join(options.base, "config.json"));
  const { dtype: _, ...rest } = config;
  writeTextFile(join(dir, "config.json"), hfConfigText({ ...rest, torch_dtype: torchDtype }));
  const tensors = trained.slots.map(({ name, offset, shape }): TensorToWrite => {
    const values = (): Float32Array =>
      readF32(model.device, view(model.device, trained.parameters, offset, shape));
    const bytes = (): Uint8Array => bytesOf(round(values()));
    return { name: huggingFaceName(name), dtype, shape, bytes };
  });
  writeSafetensors(join(dir, "model.safetensors"), tensors, { format: "pt" });
}

/** "layers.0.mlp.up_proj.W" -> "model.layers.0.mlp.up_proj.weight". */
function huggingFaceName(slot: string): string {
  const path = slot.replace(/\.W$/, ".weight");
  return path === "lm_head.weight" ? path : `model.${path}`;
}

export function makeFolder(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true });
  } catch (error) {
    throw new InputError(`${dir}: the folder cannot be made (${messageOf(error)}); choose another --out.`);
  }
}
