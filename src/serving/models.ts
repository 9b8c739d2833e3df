/** Which names a request may ask for: the base, and the adapters below the adapter folder. */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { join, sep } from "node:path";
import { InputError } from "../errors.ts";
import type { EngineClient } from "./client.ts";
import { ApiError, badRequest } from "./errors.ts";
import { BASE, type WeightSetInfo } from "./protocol.ts";
import { ADAPTER_NAME } from "./schema.ts";

export interface ServedModel {
  readonly name: string;
  /** Key of its weight set; another one after each load. */
  readonly weights: string;
  /** null: the base. */
  readonly adapter: WeightSetInfo | null;
  /** Seconds since 1970. */
  readonly created: number;
}

export interface Models {
  readonly base: string;
  list(): ServedModel[];
  /** @throws ApiError 404 with the list of names */
  find(name: string, param?: string): ServedModel;
  /** Loads, or loads anew, the folder of that name. @throws ApiError */
  load(name: string): Promise<ServedModel>;
  /** @throws ApiError */
  unload(name: string): Promise<void>;
  /** Names of all adapter folders, loaded or not. */
  folders(): string[];
}

/** `root`: folder with the adapters, or null: none can be loaded. */
export function createModels(base: string, root: string | null, engine: EngineClient): Models {
  const now = (): number => Math.floor(Date.now() / 1000);
  const served = new Map<string, ServedModel>([
    [base, { name: base, weights: BASE, adapter: null, created: now() }],
  ]);
  let epoch = 0;
  const folderOf = (name: string): string => {
    if (root === null) {
      throw badRequest(
        "The server runs without adapters; start it with --adapters DIR.",
        "name",
        "no_adapters",
      );
    }
    if (!ADAPTER_NAME.test(name)) {
      throw badRequest(
        `"${name.slice(0, 128)}" is no adapter name; expected letters, digits, ".", "_" and "-".`,
        "name",
      );
    }
    if (name === base) {
      throw new ApiError(
        409,
        `"${name}" is the base model's name; call the adapter something else.`,
        "name_taken",
        "name",
      );
    }
    if (isInside(root, name)) return join(root, name);
    throw new ApiError(
      404,
      `There is no adapter folder "${name}"; there are ${listed(folders())}.`,
      "adapter_not_found",
      "name",
    );
  };
  const folders = (): string[] => {
    // It may be exchanged for another while the server runs.
    if (root === null || !existsSync(root)) return [];
    const entries = readdirSync(root, { withFileTypes: true });
    return entries
      .filter((e) => ADAPTER_NAME.test(e.name) && (e.isDirectory() || e.isSymbolicLink()))
      .map((e) => e.name)
      .filter((name) => isInside(root, name))
      .sort();
  };
  const find = (name: string, param = "model"): ServedModel => {
    const model = served.get(name);
    if (model) return model;
    const names = listed([...served.keys()]);
    throw new ApiError(
      404,
      `The model "${name.slice(0, 128)}" does not exist; this server has ${names}.`,
      "model_not_found",
      param,
    );
  };
  return {
    base,
    find,
    folders,
    list: () => [...served.values()],
    async load(name) {
      const dir = folderOf(name);
      const weights = `${name}#${++epoch}`;
      const adapter = await loaded(engine, weights, { name, dir });
      const old = served.get(name);
      const model = { name, weights, adapter, created: now() };
      served.set(name, model);
      if (old) await engine.unload(old.weights);
      return model;
    },
    async unload(name) {
      const { adapter, weights } = find(name, "name");
      if (!adapter) throw badRequest(`"${name}" is the base model; only adapters can be unloaded.`, "name");
      served.delete(name);
      await engine.unload(weights);
    },
  };
}

/** A link out of the folder would be a path from the network after all. */
function isInside(root: string, name: string): boolean {
  const dir = join(root, name);
  return existsSync(dir) && realpathSync(dir).startsWith(realpathSync(root) + sep);
}

async function loaded(
  engine: EngineClient,
  weights: string,
  { name, dir }: { readonly name: string; readonly dir: string },
): Promise<WeightSetInfo> {
  // Where the folder lies is nobody's business who asks over the network.
  const places = [realpathSync(dir), dir];
  const placeless = (text: string): string => places.reduce((t, place) => t.replaceAll(place, name), text);
  try {
    const set = await engine.load(weights, dir);
    return { ...set, note: set.note && placeless(set.note) };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    const { message } = error;
    throw new ApiError(
      400,
      `The adapter was refused: ${placeless(message)}`,
      "adapter_refused",
      "name",
      {},
      message,
    );
  }
}

function listed(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.map((name) => `"${name}"`).join(", ");
}
