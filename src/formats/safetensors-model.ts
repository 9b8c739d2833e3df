/** A model folder's tensors: one model.safetensors, or shards under model.safetensors.index.json. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { InputError, messageOf, Problems } from "../errors.ts";
import { readJsonObject } from "./files.ts";
import { isObject, property } from "./json.ts";
import { readSafetensorsHeader, type TensorEntry } from "./safetensors-header.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const MAX_SHARDS = 10_000;

/**
 * Every tensor of the model by its name. In a sharded folder the index decides: each tensor it lists must be in the
 * file it names, and tensors it does not list are left out.
 * @throws InputError naming everything that is missing or damaged
 */
export function openModelTensors(dir: string): Map<string, TensorEntry> {
  if (existsSync(join(dir, SINGLE))) return new Map(readSafetensorsHeader(join(dir, SINGLE)).tensors);
  if (existsSync(join(dir, INDEX))) return openShards(dir, join(dir, INDEX));
  throw new InputError(`${dir}: ${whatElse(dir)}`);
}

function openShards(dir: string, indexPath: string): Map<string, TensorEntry> {
  const map = property(readJsonObject(indexPath), "weight_map");
  if (!isObject(map))
    throw new InputError(`${indexPath}: weight_map is missing; expected an object of tensor to file.`);
  const problems = new Problems();
  const shards = new Map<string, string[]>();
  for (const [name, file] of Object.entries(map)) {
    // A name from a foreign file must not lead out of the folder.
    if (typeof file !== "string" || !/^[^/\\\0]+\.safetensors$/.test(file) || file.includes("..")) {
      problems.add(
        `tensor ${name}: file ${JSON.stringify(file)}, expected the plain name of a .safetensors file beside it`,
      );
    } else {
      const names = shards.get(file);
      if (names) names.push(name);
      else shards.set(file, [name]);
    }
  }
  if (shards.size === 0) problems.add("weight_map names no file");
  if (shards.size > MAX_SHARDS)
    problems.add(`weight_map names ${shards.size} files, at most ${MAX_SHARDS} are allowed`);
  problems.throwIfAny(indexPath);

  const tensors = new Map<string, TensorEntry>();
  for (const [file, names] of shards) {
    const path = join(dir, file);
    if (!existsSync(path)) {
      problems.add(`${file} is missing (${names.length} tensors)`);
      continue;
    }
    const shard = readSafetensorsHeader(path);
    for (const name of names) {
      const entry = shard.tensors.get(name);
      if (entry) tensors.set(name, entry);
      else problems.add(`tensor ${name} is not in ${file}`);
    }
  }
  problems.throwIfAny(indexPath, "The folder is incomplete: download the model again.");
  return tensors;
}

/** Why a folder holds no model we can read, and what to do. */
function whatElse(dir: string): string {
  let names: string[];
  try {
    names = readdirSync(dir);
  } catch (error) {
    return `the folder cannot be read (${messageOf(error)}).`;
  }
  const missing = `there is no ${SINGLE} and no ${INDEX}`;
  const gguf = names.find((name) => name.endsWith(".gguf"));
  if (gguf)
    return `${missing}, but a GGUF file. Convert it: bun run scripts/download.ts NAME --from ${join(dir, gguf)}`;
  if (names.includes("adapter_model.safetensors")) {
    return `${missing}; this is an adapter's folder. Give the folder of its base model.`;
  }
  if (names.some((name) => /\.(bin|pt|pth)$/.test(name))) {
    return `${missing}, only PyTorch files. Save the model as safetensors first (save_pretrained does).`;
  }
  return `${missing}. Expected a Hugging Face model folder.`;
}
