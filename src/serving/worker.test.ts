/** What a Worker may import (settled 29): followed from worker.ts, no file asks for a package. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const root = resolve(import.meta.dir, "../..");

/** Imports that remain at run time. */
function importsOf(file: string): string[] {
  const { imports } = new Bun.Transpiler({ loader: "ts" }).scan(readFileSync(file, "utf8"));
  return imports.map(({ path }) => path);
}

test("the engine's thread imports no package, no text and no HTTP", () => {
  const seen = new Set<string>();
  const foreign: string[] = [];
  const visit = (file: string): void => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const path of importsOf(file)) {
      if (path.startsWith(".")) visit(join(dirname(file), path));
      else if (!path.startsWith("node:") && !path.startsWith("bun:") && path !== "bun")
        foreign.push(`${relative(root, file)}: ${path}`);
    }
  };
  visit(join(import.meta.dir, "worker.ts"));
  expect(foreign).toEqual([]);
  const names = [...seen].map((file) => relative(root, file));
  expect(names).toContain("src/native/ops/linear.ts");
  expect(names.length).toBeGreaterThan(40);
  expect(names.filter((name) => name.startsWith("src/text/") || name.includes("/app.ts"))).toEqual([]);
});
