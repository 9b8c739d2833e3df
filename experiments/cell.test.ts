/** cell.ts and rerun.ts as they are typed: one cell of a tiny table by its number, stopped, made, and made once more. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { cellPlace } from "./cell-file.ts";

setDefaultTimeout(120_000);
const dir = mkdtempSync(join(tmpdir(), "sbora-cell-command-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const out = join(dir, "cells");
const table = [
  "table3",
  "--methods",
  "sbora-fa",
  "--ranks",
  "4",
  "--limit",
  "2",
  "--tasks",
  "boolq",
  "--beams",
  "1",
];
const short = [...table, "--steps", "2", "--out", out];
const place = cellPlace(out, "tiny-sbora-fa-r4-s42");

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function start(script: string, args: readonly string[]) {
  const command = [process.execPath, "run", join(import.meta.dir, `${script}.ts`), ...args];
  return Bun.spawn(command, { env: { ...process.env, NO_COLOR: "1" }, stdout: "pipe", stderr: "pipe" });
}

async function ended(child: ReturnType<typeof start>): Promise<Ended> {
  const [stdout, stderr] = await Promise.all([child.stdout, child.stderr].map((s) => new Response(s).text()));
  return { code: await child.exited, stdout: stdout!, stderr: stderr! };
}

const run = (script: string, ...args: string[]): Promise<Ended> => ended(start(script, args));

describe("cell.ts", () => {
  test.each([
    [[], /the table is missing; expected one of table3, table4, table5/],
    [["table6", "--count"], /"table6" is no table with cells/],
    [table, /one of --index N, --list and --count/],
    [[...table, "--list", "--count"], /one of --index N, --list and --count/],
    [[...table, "--index", "0"], /--index is "0"; expected a whole number of at least 1/],
    [[...short, "--index", "3"], /--index is 3; table3 has 2 cells with these flags, expected 1 to 2/],
    [["table5", "--tasks", "boolq", "--count"], /unknown flag --tasks/],
  ] as [string[], RegExp][])("%j is refused", async (args, message) => {
    const { code, stdout, stderr } = await run("cell", ...args);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(message);
  });

  test("--count says how many there are, and writes nothing but the tiny data", async () => {
    const { code, stdout } = await run("cell", ...short, "--count");
    expect([code, stdout]).toEqual([0, "2\n"]);
    expect(readdirSync(out)).toEqual([".work"]);
  });

  const long = [...table, "--steps", "5000", "--out", join(dir, "long")];
  const { work } = cellPlace(join(dir, "long"), place.name);

  test("SIGTERM saves, gives the lock back and ends with 143; --list says how far it is", async () => {
    const training = start("cell", [...long, "--index", "2"]);
    while (!existsSync(join(work, "train", "metrics.jsonl"))) await Bun.sleep(20);
    training.kill("SIGTERM");
    const { code, stderr } = await ended(training);
    expect(code).toBe(143);
    expect(stderr).toContain(
      "stopped; the same command goes on from here:\n  bun run experiments/cell.ts table3",
    );
    expect(existsSync(join(work, "train/checkpoint/state.safetensors"))).toBe(true);
    expect(readdirSync(work)).toEqual(["train"]);
    const { stdout } = await run("cell", ...long, "--list");
    expect(stdout).toMatch(/ 1 +base model .* not started\n +2 +SBoRA-FA r=4 seed 42 .* \d+ steps trained\n/);
  });

  test("SIGTERM ends it while it waits for a sign of life from another machine", async () => {
    const owner = { pid: 1, host: `not-${hostname()}`, job: "7_2", since: "then", token: "t" };
    writeFileSync(join(work, "owner.1"), JSON.stringify(owner));
    const waiting = start("cell", [...long, "--index", "2"]);
    const { value } = await waiting.stderr.getReader().read();
    expect(new TextDecoder().decode(value)).toContain(
      `process 1 on ${owner.host} (Slurm job 7_2, since then)`,
    );
    waiting.kill("SIGTERM");
    expect(await waiting.exited).toBe(143);
    expect(readdirSync(work).sort()).toEqual(["owner.1", "train"]);
  });

  test("a cell is made, then skipped; with another recipe it is refused", async () => {
    const made = await run("cell", ...short, "--index", "2");
    expect([made.code, made.stdout]).toEqual([0, `${place.json}\n`]);
    const text = readFileSync(place.json, "utf8");
    const again = await run("cell", ...short, "--index", "2");
    expect([again.code, again.stderr]).toEqual([0, expect.stringContaining("was finished already")]);
    expect((await run("cell", ...short, "--list")).stdout).toMatch(/finished\n\n1 of 2 finished\n$/);
    const other = await run("cell", ...short, "--lr", "0.1", "--index", "2");
    expect([other.code, other.stderr]).toEqual([1, expect.stringContaining("training.learningRate")]);
    expect(readFileSync(place.json, "utf8")).toBe(text);
  });
});

/** After the cell above. */
describe("rerun.ts", () => {
  const again = join(dir, "again");

  test("makes the same once more, and says so", async () => {
    const { code, stdout } = await run("rerun", place.json, "--out", again);
    expect(stdout).toContain("equal: every figure, 2 predictions, 2 losses");
    expect(code).toBe(0);
  });

  test("names what is not equal, and ends with 1", async () => {
    const own = cellPlace(again, place.name);
    const lines = readFileSync(own.losses, "utf8");
    writeFileSync(own.losses, lines.replace(/"loss":[\d.]+/, '"loss":9'));
    const { code, stdout } = await run("rerun", place.json, "--out", again);
    expect(code).toBe(1);
    expect(stdout).toMatch(/not equal, 1 differences.*\n +losses\[0\]\.loss \([\d.]+, now 9\)/);
  });

  test("a cell made of other data is not made again", async () => {
    const data = join(dir, "data");
    cpSync(join(out, ".work", "data"), data, { recursive: true });
    const path = join(data, "dataset", "boolq", "test.json");
    writeFileSync(path, readFileSync(path, "utf8").replace("true", "false"));
    const { code, stderr } = await run("rerun", place.json, "--out", join(dir, "other"), "--data", data);
    expect(code).toBe(1);
    expect(stderr).toContain("was made of another model or other data");
    expect(stderr).toMatch(/tests\.boolq \(/);
    expect(existsSync(join(dir, "other", `${place.name}.json`))).toBe(false);
  });

  test.each([
    [[], /the cell is missing/],
    [[place.json], /--out is missing/],
    [[place.json, "--out", out], /--out is .*, where the cell itself lies/],
    [[place.losses, "--out", again], /expected the \.json file of a finished cell/],
    [[join(out, "nothing.json"), "--out", again], /nothing\.json: there is no such file/],
    [[place.json, "--out", again, "--data", join(dir, "nowhere")], /nowhere: there is no such folder/],
  ] as [string[], RegExp][])("%j is refused", async (args, message) => {
    const { code, stderr } = await run("rerun", ...args);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
  });
});
