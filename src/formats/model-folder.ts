/** What belongs to a Hugging Face model folder beside its weights. */
import { copyFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { InputError, messageOf } from "../errors.ts";
import { readJsonObject, writeProblem, writeTextFile } from "./files.ts";
import type { FloatDtype } from "./half.ts";
import { hfConfigText } from "./hf-config.ts";

/** What travels along, where the folder has it. */
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

/** Names in config.json. */
const DTYPE_NAMES: Readonly<Record<FloatDtype, string>> = {
  F32: "float32",
  BF16: "bfloat16",
  F16: "float16",
};

/** Copies tokenizer, chat template and generation settings. */
export function copyCompanions(from: string, to: string): void {
  for (const name of COMPANIONS) {
    const file = join(from, name);
    try {
      if (existsSync(file)) copyFileSync(file, join(to, name));
    } catch (error) {
      throw writeProblem(join(to, name), error);
    }
  }
}

/** Copies config.json; with `dtype`, naming that type of the weights. */
export function copyConfig(from: string, to: string, dtype: FloatDtype | undefined): void {
  const source = join(from, "config.json");
  if (dtype === undefined) {
    writeTextFile(join(to, "config.json"), readFileSync(source, "utf8"));
    return;
  }
  const { dtype: _, ...rest } = readJsonObject(source);
  writeTextFile(join(to, "config.json"), hfConfigText({ ...rest, torch_dtype: DTYPE_NAMES[dtype] }));
}

export function makeFolder(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true });
  } catch (error) {
    throw new InputError(`${dir}: the folder cannot be made (${messageOf(error)}); choose another --out.`);
  }
}
