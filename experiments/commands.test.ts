import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const dir = mkdtempSync(join(tmpdir(), "sbora-commands-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Runs an experiment as the user does: as a process. */
function run(
  name: string,
  env: Readonly<Record<string, string>>,
  ...args: readonly string[]
): { code: number; stdout: string; stderr: string } {
  const child = Bun.spawnSync([process.execPath, "run", join(import.meta.dir, `${name}.ts`), ...args], {
    env: { ...process.env, NO_COLOR: "1", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  return { code: child.exitCode, stdout: child.stdout.toString(), stderr: child.stderr.toString() };
}

const scripts = ["table1", "table2", "table3", "table4", "table5", "figure2", "figure3", "figure4"];

describe.each(scripts.map((name) => [name] as const))("%s", (name) => {
  test("--help shows flags and examples that name the script", () => {
    const { code, stdout } = run(name, {}, "--help");
    expect(code).toBe(0);
    expect(stdout).toContain("--preset");
    expect(stdout).toContain("--dry-run");
    expect(stdout).toContain(`Examples\n  bun run experiments/${name}.ts`);
  }, 60_000);

  test("a mistyped flag or preset is named; exit code 1", () => {
    const flag = run(name, {}, "--prest", "tiny");
    expect([flag.code, flag.stderr.includes("--prest")]).toEqual([1, true]);
    const preset = run(name, {}, "--preset", "large");
    expect([preset.code, preset.stderr.includes("tiny, small, paper")]).toEqual([1, true]);
  }, 60_000);
});

test.each(["table3", "table5"])("%s: --dry-run and --collect at once are refused", (name) => {
  const { code, stderr } = run(name, {}, "--dry-run", "--collect", "--out", dir);
  expect([code, stderr.split("\n").length]).toEqual([1, 2]);
  expect(stderr).toContain("give one of them");
});

test.each([
  ["table1", ["r + r·out = 2,056"]],
  ["table2", ["out·in + out·r = 34,816"]],
  ["table3", ["SBoRA-FB", "for 6 cells and the base"]],
  ["table5", ["QSBoRA-FB", "for 16 cells"]],
  ["multi-sbora", ["LoRA", "for 39 adapters"]],
  ["figure2", ["trains lora, sbora-fa, sbora-fb at r = 8"]],
  ["figure3", ["SBoRA-FA", "weights, trained state"]],
  ["figure4", ["DoRA", "30"]],
] as const)(
  "%s --dry-run says what would be done, and leaves nothing behind",
  (name, expected) => {
    // A temporary folder of its own: that must be empty again, too.
    const [out, temporary] = [mkdtempSync(join(dir, "out-")), mkdtempSync(join(dir, "tmp-"))];
    const { code, stdout, stderr } = run(name, { TMPDIR: temporary }, "--dry-run", "--out", out);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    for (const words of expected) expect(stdout).toContain(words);
    expect([readdirSync(out), readdirSync(temporary)]).toEqual([[], []]);
  },
  120_000,
);
