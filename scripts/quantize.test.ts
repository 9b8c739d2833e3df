/** --quantize through the commands: train, merge, generate, evaluate's note, and what is refused. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isNf4Folder } from "../src/model/nf4.ts";
import { buildLibrary } from "../src/native/build.ts";
import { tinyRecords, writeTinyModel } from "../src/training/testing.ts";
import { runScript } from "./testing.ts";

setDefaultTimeout(120_000);

const root = mkdtempSync(join(tmpdir(), "sbora-quantize-"));
const [model, data, run, merged, plain] = ["model", "data.json", "run", "merged", "plain"].map((name) =>
  join(root, name),
) as [string, string, string, string, string];

beforeAll(async () => {
  await buildLibrary("cpu");
  writeTinyModel(model);
  writeFileSync(data, JSON.stringify(tinyRecords(8)));
});
afterAll(() => rmSync(root, { recursive: true }));

const quick = ["--steps", "2", "--rank", "4", "--batch", "2", "--cutoff", "400"];
const double = ["--quantize", "nf4", "--double-quant"];

test("train, merge and unmerge stay in 4 bits", () => {
  const trained = runScript("train", ["--model", model, "--data", data, "--out", run, ...quick, ...double]);
  expect([trained.code, trained.stderr]).toEqual([0, expect.stringContaining("layers in 4 bits")]);
  const ask = ["--prompt", "a", "--max-new-tokens", "4"];
  const mixed = runScript("generate", ["--model", model, "--adapter", run, ...ask]);
  expect(mixed.stderr).toContain("give --quantize nf4 --double-quant");
  const same = runScript("generate", ["--model", model, "--adapter", run, ...ask, ...double]);
  expect(same.stderr).not.toContain("quantize");
  const merge = runScript("merge", ["--model", model, "--adapter", run, "--out", merged, ...double]);
  expect([merge.code, merge.stderr]).toEqual([0, expect.not.stringContaining("note:")]);
  expect(isNf4Folder(merged)).toBe(true);
  const loaded = runScript("generate", ["--model", merged, ...ask]);
  expect([loaded.code, loaded.stdout]).toEqual([0, same.stdout]);
  expect(runScript("unmerge", ["--model", merged, "--out", plain]).code).toBe(0);
  expect(isNf4Folder(plain)).toBe(true);
});

test("flags that say nothing are refused", () => {
  const over = (...flags: string[]): string => {
    const out = join(root, "refused");
    const { code, stderr } = runScript("train", [
      "--model",
      model,
      "--data",
      data,
      "--out",
      out,
      ...quick,
      ...flags,
    ]);
    expect([code, existsSync(out)]).toEqual([1, false]);
    return stderr;
  };
  expect(over("--double-quant")).toContain("add --quantize nf4");
  expect(over("--quantize", "fp4")).toContain('--quantize is "fp4"; expected one of nf4');
  expect(over("--method", "full", "--quantize", "nf4")).toContain("method full trains every weight");
});
