/** A fully trained model as a Hugging Face folder: every weight from the f32 masters, tokenizer and settings of the base. */
import { join } from "node:path";
import { type FloatDtype, isFloatDtype, narrow } from "../formats/half.ts";
import { copyCompanions, copyConfig, makeFolder } from "../formats/model-folder.ts";
import { openModelTensors, type TensorToWrite, writeSafetensors } from "../formats/safetensors.ts";
import type { Llama } from "../model/model.ts";
import type { Trainables } from "../model/trainables.ts";
import { readF32, view } from "../native/tensor.ts";

export interface SaveModelOptions {
  /** Folder of the base: configuration and tokenizer come from there. */
  readonly base: string;
  /** Stored type; default: the base's. */
  readonly dtype?: FloatDtype;
}

/** Writes the folder, the weights last; each file is replaced atomically. `trained` must come from method `full`. */
export function saveModel(dir: string, model: Llama, trained: Trainables, options: SaveModelOptions): void {
  if (!trained.whole) throw new Error(`saveModel: ${trained.options.method.name} trains no whole model`);
  makeFolder(dir);
  const stored = openModelTensors(options.base).get("model.embed_tokens.weight")?.dtype;
  const dtype = options.dtype ?? (stored !== undefined && isFloatDtype(stored) ? stored : "F32");
  copyCompanions(options.base, dir);
  copyConfig(options.base, dir, dtype);
  const tensors = trained.slots.map(({ name, offset, shape }): TensorToWrite => {
    const values = (): Float32Array =>
      readF32(model.device, view(model.device, trained.parameters, offset, shape));
    const bytes = (): Uint8Array => narrow(dtype, values());
    return { name: huggingFaceName(name), dtype, shape, bytes };
  });
  writeSafetensors(join(dir, "model.safetensors"), tensors, { format: "pt" });
}

/** "layers.0.mlp.up_proj.W" -> "model.layers.0.mlp.up_proj.weight". */
function huggingFaceName(slot: string): string {
  const path = slot.replace(/\.W$/, ".weight");
  return path === "lm_head.weight" ? path : `model.${path}`;
}
