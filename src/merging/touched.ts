/** Which weights of a matrix an adapter reaches: r columns (SBoRA-FA), r rows (SBoRA-FB), or all of them. */
import { InputError } from "../errors.ts";
import type { LoadedSource, Part } from "./sources.ts";

/** Some columns or rows of a matrix, ascending. */
export interface TouchedLines {
  readonly kind: "columns" | "rows";
  readonly index: Int32Array;
}

export type Touched = TouchedLines | { readonly kind: "all" };

export function touchedBy({ method, stored }: Pick<Part, "method" | "stored">): Touched {
  const kind = method.name === "sbora-fa" ? "columns" : method.name === "sbora-fb" ? "rows" : null;
  if (kind === null) return { kind: "all" };
  return { kind, index: Int32Array.from(stored.index!.values).sort() };
}

/** What several adapters reach together; columns and rows of one matrix make it a whole one. */
export function union(all: readonly Touched[]): Touched {
  const [first] = all;
  if (!first || first.kind === "all") return { kind: "all" };
  const index = new Set<number>();
  for (const touched of all) {
    if (touched.kind !== first.kind) return { kind: "all" };
    for (const i of touched.index) index.add(i);
  }
  return { kind: first.kind, index: Int32Array.from(index).sort() };
}

/** Elements of a matrix [out,in] that are reached. */
export function touchedElements(touched: Touched, out: number, width: number): number {
  if (touched.kind === "all") return out * width;
  return touched.index.length * (touched.kind === "columns" ? out : width);
}

/** Whether an element is reached, of a matrix with these sides; null: none is. */
export function reachOf(
  touched: Touched | null,
  rows: number,
  width: number,
): (row: number, column: number) => boolean {
  if (touched === null) return () => false;
  if (touched.kind === "all") return () => true;
  const mask = new Uint8Array(touched.kind === "columns" ? width : rows);
  for (const i of touched.index) mask[i] = 1;
  return touched.kind === "columns" ? (_, column) => mask[column] === 1 : (row) => mask[row] === 1;
}

/** What two adapters change both, in words; null when their weights are disjoint. */
export function overlap(a: Touched, b: Touched): string | null {
  if (a.kind === "all" || b.kind === "all") return "every weight";
  if (a.kind !== b.kind) return `${a.index.length} ${a.kind} crossing ${b.index.length} ${b.kind}`;
  const taken = new Set(a.index);
  const shared = b.index.filter((i) => taken.has(i)).length;
  return shared === 0 ? null : `${shared} ${a.kind}`;
}

/** Every pair of adapters that change the same weights, a sentence a pair. */
export function overlaps(sources: readonly LoadedSource[]): string[] {
  const sentences: string[] = [];
  sources.forEach((a, i) => {
    for (const b of sources.slice(i + 1)) {
      const found: string[] = [];
      for (const [module, stored] of a.folder.modules) {
        const other = b.folder.modules.get(module);
        if (!other) continue;
        const mine = touchedBy({ method: a.options.method, stored });
        const shared = overlap(mine, touchedBy({ method: b.options.method, stored: other }));
        if (shared) found.push(`${module}: ${shared}`);
      }
      if (found.length === 0) continue;
      const more = found.length > 4 ? `, … ${found.length} modules in all` : "";
      sentences.push(`${a.dir} and ${b.dir} both change ${found.slice(0, 4).join(", ")}${more}`);
    }
  });
  return sentences;
}

/** @throws InputError unless the adapters' weights are disjoint */
export function requireDisjoint(sources: readonly LoadedSource[]): void {
  const found = overlaps(sources);
  if (found.length === 0) return;
  throw new InputError(
    `the adapters overlap: ${found.join("; ")}. Merged, they would not do what each does alone: train SBoRA adapters with ` +
      `--avoid-indices-of, or add --allow-overlap to add them up all the same.`,
  );
}
