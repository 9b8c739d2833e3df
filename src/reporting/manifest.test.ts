import { expect, test } from "bun:test";
import { join, resolve } from "node:path";
import { commandLine } from "./manifest.ts";

const root = resolve(import.meta.dir, "../..");
const script = join(root, "scripts/train.ts");

test("a command line can be pasted back where it was typed: near scripts by their relative path, blanks quoted", () => {
  const argv = ["bun", script, "--data", "my data/it's.json", "--lr", "1e-3"];
  expect(commandLine(argv, root)).toBe("bun run scripts/train.ts --data 'my data/it'\\''s.json' --lr 1e-3");
  expect(commandLine(argv.slice(0, 2), join(root, "scripts"))).toBe("bun run train.ts");
  expect(commandLine(argv.slice(0, 2), "/somewhere/else")).toBe(`bun run ${script}`);
  const [, ...words] = ["", ...argv.slice(2)];
  const read = Bun.spawnSync([
    "sh",
    "-c",
    `printf '%s\\n' ${commandLine(argv, root).slice("bun run scripts/train.ts ".length)}`,
  ]);
  expect(read.stdout.toString().trim().split("\n")).toEqual(words);
});
