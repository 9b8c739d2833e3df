/** GET /v1/models and the adapters: list, load, unload; vLLM's names for the same. */
import { readBody } from "../body.ts";
import { type Ctx, keepOpen, type Serving } from "../context.ts";
import { ApiError } from "../errors.ts";
import type { ServedModel } from "../models.ts";
import { type AdapterCard, loadRequest, type ModelCard, unloadRequest } from "../schema.ts";

export function listModels(serving: Serving, c: Ctx): Response {
  const data = serving.models.list().map((model) => modelCard(serving, model));
  return c.json({ object: "list", data });
}

export function showModel(serving: Serving, c: Ctx): Response {
  return c.json(modelCard(serving, serving.models.find(nameIn(c))));
}

export function listAdapters({ models }: Serving, c: Ctx): Response {
  const loaded = new Set(models.list().map(({ name }) => name));
  const others = models.folders().filter((name) => !loaded.has(name));
  const cards = [
    ...models
      .list()
      .filter(({ adapter }) => adapter !== null)
      .map(adapterCard),
    ...others.map(unloadedCard),
  ];
  return c.json({ object: "list", data: cards });
}

export function showAdapter({ models }: Serving, c: Ctx): Response {
  const name = nameIn(c);
  const model = models.list().find((m) => m.name === name && m.adapter !== null);
  if (model) return c.json(adapterCard(model));
  const known = models.folders();
  const names = known.map((n) => `"${n}"`).join(", ") || "none";
  const message = known.includes(name)
    ? `The adapter "${name}" is not loaded; PUT loads it.`
    : `There is no adapter "${name.slice(0, 128)}"; there are ${names}.`;
  throw new ApiError(404, message, "adapter_not_found", "name");
}

/** PUT: loads the folder of that name below the adapter folder, or loads it anew under a new epoch. */
export async function putAdapter({ models }: Serving, c: Ctx): Promise<Response> {
  keepOpen(c);
  const model = await models.load(nameIn(c));
  noteInLog(c, model);
  return c.json(adapterCard(model));
}

export async function deleteAdapter({ models }: Serving, c: Ctx): Promise<Response> {
  const name = nameIn(c);
  keepOpen(c);
  await models.unload(name);
  return c.json({ name, deleted: true });
}

/** vLLM sends a path too; from the network we take a name only, so the path may but repeat it. */
export async function vllmLoad({ models }: Serving, c: Ctx): Promise<Response> {
  const { lora_name, lora_path } = await readBody(c, loadRequest);
  const last = lora_path?.replace(/\/+$/, "").split("/").at(-1) ?? lora_name;
  if (last !== lora_name) {
    throw new ApiError(
      404,
      `lora_path ends in "${last.slice(0, 128)}"; expected "${lora_name}", a folder below the server's --adapters folder.`,
      "adapter_not_found",
      "lora_path",
    );
  }
  keepOpen(c);
  noteInLog(c, await models.load(lora_name));
  return c.text(`Success: LoRA adapter '${lora_name}' added successfully.`);
}

export async function vllmUnload({ models }: Serving, c: Ctx): Promise<Response> {
  const { lora_name } = await readBody(c, unloadRequest);
  keepOpen(c);
  await models.unload(lora_name);
  return c.text(`Success: LoRA adapter '${lora_name}' removed successfully.`);
}

function noteInLog(c: Ctx, { adapter }: ServedModel): void {
  const note = adapter?.note ?? null;
  if (note !== null) Object.assign(c.get("record"), { level: "warn", note });
}

function nameIn(c: Ctx): string {
  return c.req.param("name") ?? "";
}

function modelCard({ models, settings }: Serving, { name, adapter, created }: ServedModel): ModelCard {
  return {
    id: name,
    object: "model",
    created,
    owned_by: "sbora",
    root: name,
    parent: adapter ? models.base : null,
    max_model_len: settings.context,
  };
}

function adapterCard({ name, adapter }: ServedModel): AdapterCard {
  const { method, rank, modules, bytes, hash, note } = adapter!;
  return { name, loaded: true, method, rank, modules, bytes, sha256: hash, note };
}

function unloadedCard(name: string): AdapterCard {
  const unknown = { method: null, rank: null, modules: null, bytes: null, sha256: null, note: null };
  return { name, loaded: false, ...unknown };
}
