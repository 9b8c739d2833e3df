/**
 * cuBLASLt on a machine without a GPU: a double of it (kernels/cuda/testing/cublaslt_double.cpp) stands in its place, under
 * the emulated CUDA library, and multiplies what its descriptors say. The library reads its environment when a device is
 * opened, so that every case is a process.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { buildLibrary } from "./build.ts";
import { compile, findCompiler } from "./compiler.ts";

setDefaultTimeout(600_000);

const ROOT = resolve(import.meta.dir, "../..");
const FOLDER = mkdtempSync(join(tmpdir(), "sbora-cublaslt-"));
const DOUBLE = join(FOLDER, "libcublasLt.so.13");
const LOG = join(FOLDER, "log");
const OPS = "./src/native/ops/";

// Not in a hook, which has to end in time: this compiles.
const flags = ["-std=c++20", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-static-libstdc++"];
await compile(findCompiler(), [...flags, "kernels/cuda/testing/cublaslt_double.cpp", "-o", DOUBLE], ROOT);
for (const library of ["cuda-emulated", "reference", "reference-f64"] as const) await buildLibrary(library);
afterAll(() => rmSync(FOLDER, { recursive: true }));

interface Result {
  readonly code: number | null;
  readonly text: string;
}

function bun(args: readonly string[], env: Record<string, string>): Result {
  const child = Bun.spawnSync([process.execPath, ...args], {
    cwd: ROOT,
    env: {
      ...process.env,
      SBORA_TEST_LIBRARIES: "reference,cuda-emulated",
      SBORA_CUBLASLT: DOUBLE,
      CUBLASLT_DOUBLE_LOG: LOG,
      ...env,
    },
    stdout: "pipe",
    stderr: "pipe",
  });
  return { code: child.exitCode, text: `${child.stdout}${child.stderr}` };
}

/** Runs tests of ops whose name matches, with no product too small. @returns the double's lines */
function runTests(files: readonly string[], pattern: string, env: Record<string, string>): string[] {
  rmSync(LOG, { force: true });
  const { code, text } = bun(["test", "--timeout", "600000", "-t", pattern, ...files], env);
  expect(code === 0 ? "" : text).toBe("");
  return existsSync(LOG) ? readFileSync(LOG, "utf8").trimEnd().split("\n") : [];
}

describe("products", () => {
  test("agree with the reference in every orientation, type and beta", () => {
    const lines = runTests([`${OPS}matmul.test.ts`], "compute bf16", { SBORA_CUBLASLT_ROWS: "1" });
    const forms = ["TN", "NN", "TT", "NT"].flatMap((transposes) =>
      ["f32", "bf16"].flatMap((type) => [`${transposes} ${type}`, `${transposes} ${type} beta`]),
    );
    expect([...new Set(lines.map((line) => line.replace(/^\d+ /, "")))].sort()).toEqual(forms.sort());
  });

  test("with a tail and an input gradient agree, and a row is the same alone and in a batch", () => {
    const files = [`${OPS}linear.test.ts`];
    const forms = new Set(runTests(files, "compute bf16|row alone", { SBORA_CUBLASLT_ROWS: "1" }));
    // Forward: the tail, then the weight onto it. Backward: the weight as it is stored. A bf16 result has no tail.
    for (const form of ["17 TN f32", "17 TN f32 beta", "17 NN f32", "17 NN f32 beta", "3 TN bf16"])
      expect(forms).toContain(form);
    expect(forms).not.toContain("17 TN bf16");
  });

  test("of fewer rows than SBORA_CUBLASLT_ROWS keep to the tiles", () => {
    const files = [`${OPS}matmul.test.ts`];
    const lines = runTests(files, "compute bf16, c f32", { SBORA_CUBLASLT_ROWS: "101" });
    expect(new Set(lines.map((line) => Number.parseInt(line, 10)))).toEqual(new Set([101, 193]));
  });
});

describe("opening", () => {
  const open = (env: Record<string, string>): Result =>
    bun(["run", "scripts/build.ts", "--library", "cuda-emulated"], env);

  test("the device says which one computes", () => {
    expect(open({})).toMatchObject({ code: 0, text: expect.stringContaining("with cuBLASLt 13.0.2") });
  });

  test("off, unset and deterministic: the tiles", () => {
    for (const env of [
      { SBORA_CUBLASLT: "off" },
      { SBORA_CUBLASLT: "" },
      { SBORA_CUDA_DETERMINISTIC: "1" },
    ]) {
      const { code, text } = open(env as Record<string, string>);
      expect({ code, with: text.includes("cuBLASLt") }).toEqual({ code: 0, with: false });
    }
  });

  test("one that is named and cannot be used is an error that says why", () => {
    mkdirSync(join(FOLDER, "stubs"), { recursive: true });
    const other = join(FOLDER, "other.so");
    writeFileSync(join(FOLDER, "other.c"), "int other;");
    Bun.spawnSync([...findCompiler().command, "-shared", join(FOLDER, "other.c"), "-o", other]);
    for (const [path, why] of [
      [join(FOLDER, "missing.so.13"), /cannot be used: .*missing\.so\.13: cannot open shared object file/],
      [join(FOLDER, "stubs/libcublasLt.so"), /cannot be used: a stub is for linkers/],
      [other, /cannot be used: functions of cuBLASLt are missing/],
    ] as const) {
      const { code, text } = open({ SBORA_CUBLASLT: path });
      expect({ code, text }).toEqual({ code: 1, text: expect.stringMatching(why) });
    }
  });

  test("a number of rows that is none is refused", () => {
    const { code, text } = open({ SBORA_CUBLASLT_ROWS: "many" });
    expect(code).toBe(1);
    expect(text).toContain('SBORA_CUBLASLT_ROWS is "many"; expected a whole number from 1');
  });
});
