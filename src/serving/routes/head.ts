import type { Serving } from "../context.ts";
import type { ServedModel } from "../models.ts";

/** What every answer starts with. The fingerprint names base and adapter by their bytes. */
export function responseHead(
  serving: Serving,
  { name, adapter }: ServedModel,
  prefix: string,
): { id: string; created: number; model: string; system_fingerprint: string } {
  const base = serving.fingerprint().slice(0, 12);
  return {
    id: `${prefix}-${crypto.randomUUID().replaceAll("-", "")}`,
    created: Math.floor(Date.now() / 1000),
    model: name,
    system_fingerprint: adapter ? `${base}-${adapter.hash.slice(0, 12)}` : base,
  };
}
