/**
 * A LLaMA's GGUF file as a Hugging Face folder: bf16 safetensors, config.json, generation_config.json, tokenizer.json
 * and tokenizer_config.json with the chat template. Everything is checked before the first byte is written.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { writeProblem, writeTextFile } from "./files.ts";
import { readGguf } from "./gguf.ts";
import { llamaConfigOf } from "./gguf-config.ts";
import { bf16TensorsOf } from "./gguf-tensors.ts";
import { hfTokenizerOf } from "./gguf-tokenizer.ts";
import { type LlamaConfig, writeHfConfig } from "./hf-config.ts";
import { writeSafetensors } from "./safetensors-write.ts";

export interface ConvertOptions {
  /** Called before each tensor is converted: how many are done, of how many. */
  readonly onTensor?: (done: number, of: number) => void;
}

/**
 * Writes (or replaces) the files of `dir`, each atomically, config.json last.
 * @throws InputError naming file, key or tensor, value and what was expected
 */
export function convertGguf(path: string, dir: string, options: ConvertOptions = {}): LlamaConfig {
  const file = readGguf(path);
  const config = llamaConfigOf(file);
  const { tokenizer, config: tokenizerConfig } = hfTokenizerOf(file, config);
  const tensors = bf16TensorsOf(file, config);
  try {
    mkdirSync(dir, { recursive: true });
  } catch (error) {
    throw writeProblem(dir, error);
  }
  let done = 0;
  const counted = tensors.map((tensor) => ({
    ...tensor,
    bytes: () => {
      options.onTensor?.(done++, tensors.length);
      return typeof tensor.bytes === "function" ? tensor.bytes() : tensor.bytes;
    },
  }));
  writeSafetensors(join(dir, "model.safetensors"), counted, { format: "pt" });
  writeTextFile(join(dir, "tokenizer.json"), `${JSON.stringify(tokenizer)}\n`);
  writeTextFile(join(dir, "tokenizer_config.json"), `${JSON.stringify(tokenizerConfig, null, 2)}\n`);
  writeHfConfig(dir, config);
  return config;
}
