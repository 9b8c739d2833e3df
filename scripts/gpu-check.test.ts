/** The script for the hour when there is a GPU, as far as it goes without one: what it says is missing. */
import { expect, test } from "bun:test";
import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dir, "..");

function check(env: Record<string, string>, ...args: string[]) {
  const child = Bun.spawnSync([join(ROOT, "scripts/gpu-check.sh"), ...args], {
    env: { PATH: "/usr/bin:/bin", HOME: "/nowhere", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  return { code: child.exitCode, stdout: `${child.stdout}`, stderr: `${child.stderr}` };
}

test("everything that is missing is said at once", () => {
  const { code, stderr } = check({ SBORA_BUN: "/nowhere/bun", CUDA_HOME: "/nowhere", CXX: "/nowhere/c++" });
  expect(code).toBe(1);
  expect(stderr).toStartWith("scripts/gpu-check.sh needs what is not here:\n");
  expect(stderr).toContain("\n  Bun: set SBORA_BUN, or put it here as bun.gz");
});

test("flags are checked before anything is built", () => {
  const env = { SBORA_BUN: process.execPath, SBORA_CUDA_EMULATE: "1" };
  expect(check(env, "--minute", "3")).toMatchObject({ code: 1, stdout: "" });
  expect(check(env, "--minute", "3").stderr).toContain("unknown flag --minute; did you mean --minutes?");
});
