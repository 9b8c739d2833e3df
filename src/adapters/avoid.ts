/** Indices that earlier SBoRA adapters hold, so that a new one draws others and all of them merge without touching. */
import { Problems } from "../errors.ts";
import type { MethodName } from "./adapter.ts";
import type { AdapterFolder } from "./folder.ts";

/** Per module path. */
export type AvoidedIndices = ReadonlyMap<string, ReadonlySet<number>>;

/** @throws InputError where a folder is no SBoRA adapter of the same kind: its weights would be crossed all the same */
export function indicesOf(folders: readonly AdapterFolder[], method: MethodName): AvoidedIndices {
  const problems = new Problems();
  if (method !== "sbora-fa" && method !== "sbora-fb")
    problems.add(`${method} draws no indices, expected the method sbora-fa or sbora-fb`);
  const avoided = new Map<string, Set<number>>();
  for (const { dir, method: theirs, modules } of folders) {
    if (theirs !== method) problems.add(`${dir} is ${theirs}, this run trains ${method}; expected the same`);
    for (const [module, { index }] of modules) {
      const known = avoided.get(module) ?? new Set<number>();
      for (const i of index?.values ?? []) known.add(i);
      avoided.set(module, known);
    }
  }
  problems.throwIfAny("--avoid-indices-of", "Only SBoRA adapters of one kind can be disjoint.");
  return avoided;
}

/** SHA-256 over the modules and their ascending indices: what a recipe says of them. */
export function hashIndices(avoided: AvoidedIndices): string {
  const lines = [...avoided].map(([module, indices]) => {
    const sorted = [...indices].sort((a, b) => a - b);
    return `${module} ${sorted.join(" ")}`;
  });
  return new Bun.CryptoHasher("sha256").update(lines.sort().join("\n")).digest("hex");
}
