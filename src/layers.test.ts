/** The floors of the building (README): a folder imports only from floors below its own, and foreign packages only
 * where they belong. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const root = resolve(import.meta.dir, "..");
const floors: string[][] = [
  ["src/errors.ts"],
  ["src/native", "src/formats", "src/text", "src/reporting"],
  ["src/adapters", "src/data"],
  ["src/model"],
  ["src/training", "src/generation", "src/merging"],
  ["src/serving", "src/evaluation"],
  ["scripts", "experiments"],
];
const onlyIn: Record<string, string> = { "bun:ffi": "src/native/", hono: "src/serving/", citty: "scripts/" };

function floorOf(file: string): number {
  return floors.findIndex((folders) => folders.some((f) => file === f || file.startsWith(`${f}/`)));
}

function folderOf(file: string): string {
  return floors.flat().find((f) => file === f || file.startsWith(`${f}/`)) ?? "";
}

const files = [...new Bun.Glob("{src,scripts,experiments}/**/*.ts").scanSync({ cwd: root })].filter(
  (file) => file !== "src/layers.test.ts",
);
const imports = files.flatMap((file) => {
  const source = readFileSync(join(root, file), "utf8");
  const found = source.matchAll(/(?:^|\n)(?:import|export)\b[^;"']*?from\s+"([^"]+)"|import\("([^"]+)"\)/g);
  return [...found].map((match) => ({ file, target: match[1] ?? match[2]! }));
});

describe("layers", () => {
  test("there is something to look at", () => {
    expect(files.length).toBeGreaterThan(50);
    expect(imports.length).toBeGreaterThan(100);
  });

  test("every file stands on a floor", () => {
    expect(files.filter((file) => floorOf(file) < 0)).toEqual([]);
  });

  test("imports go down, or stay in their folder", () => {
    const upward = imports
      .filter(({ target }) => target.startsWith("."))
      .map(({ file, target }) => ({ file, to: relative(root, resolve(root, dirname(file), target)) }))
      .filter(({ file, to }) => {
        const same = folderOf(file) === folderOf(to);
        const top = floorOf(file) === floors.length - 1 && floorOf(to) === floors.length - 1;
        return !same && !top && floorOf(to) >= floorOf(file);
      })
      .map(({ file, to }) => `${file} imports ${to}`);
    expect(upward).toEqual([]);
  });

  test("experiments take from scripts what all commands share, and nothing else", () => {
    const shared = ["scripts/arguments.ts", "scripts/stop.ts"];
    const strays = imports
      .filter(({ file, target }) => file.startsWith("experiments/") && target.startsWith("."))
      .map(({ file, target }) => ({ file, to: relative(root, resolve(root, dirname(file), target)) }))
      .filter(({ to }) => to.startsWith("scripts/") && !shared.includes(to));
    expect(strays).toEqual([]);
  });

  test("bun:ffi, hono and citty stay where they belong", () => {
    const strays = imports.filter(({ file, target }) => {
      const home = onlyIn[target.startsWith("hono/") ? "hono" : target];
      return (
        home !== undefined &&
        !file.startsWith(home) &&
        !(target === "citty" && file.startsWith("experiments/"))
      );
    });
    expect(strays).toEqual([]);
  });
});
