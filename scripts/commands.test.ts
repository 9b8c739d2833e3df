/** The commands from end to end on a tiny model: train, stop, resume, evaluate, generate. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAdapter } from "../src/adapters/storage.ts";
import { buildLibrary } from "../src/native/build.ts";
import { tinyRecords, writeTinyModel } from "../src/training/testing.ts";
import { runScript } from "./testing.ts";

setDefaultTimeout(120_000);

const root = mkdtempSync(join(tmpdir(), "sbora-commands-"));
const model = join(root, "model");
const data = join(root, "data.json");

beforeAll(async () => {
  await buildLibrary("cpu");
  writeTinyModel(model);
  writeFileSync(data, JSON.stringify(tinyRecords(24)));
  mkdirSync(join(root, "dataset/boolq"), { recursive: true });
  writeFileSync(join(root, "dataset/boolq/test.json"), JSON.stringify(tinyRecords(6)));
});
afterAll(() => rmSync(root, { recursive: true }));

const flags = (out: string, steps = 3): string[] =>
  `--model ${model} --data ${data} --out ${join(root, out)} --rank 4 --batch 4 --cutoff 400 --lr 0.01 --steps ${steps}`.split(
    " ",
  );

function succeeded(name: string, args: readonly string[]): { stdout: string; stderr: string } {
  const result = runScript(name, args);
  expect({ code: result.code, stderr: result.code === 0 ? "" : result.stderr }).toEqual({
    code: 0,
    stderr: "",
  });
  return result;
}

describe("train", () => {
  test("writes the adapter, its last state, metrics and a manifest, and says what it does", () => {
    const { stdout, stderr } = succeeded("train", flags("first"));
    expect(readdirSync(join(root, "first")).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "checkpoint",
      "last",
      "manifest.json",
      "metrics.jsonl",
      "sbora.json",
    ]);
    expect(stdout).toContain(join(root, "first"));
    expect(stderr).toContain("### Instruction:");
    const lines = readFileSync(join(root, "first/metrics.jsonl"), "utf8").trim().split("\n");
    const keys = ["step", "loss", "lr", "gradNorm", "tokens", "tokensPerSecond", "seconds"];
    expect(lines.map((line) => Object.keys(JSON.parse(line) as object))).toEqual([keys, keys, keys]);
    const manifest = JSON.parse(readFileSync(join(root, "first/manifest.json"), "utf8")) as {
      recipe: { lossMean: string };
    };
    expect(manifest.recipe.lossMean).toBe("token");
  });

  test("SIGTERM saves and prints the command that resumes; the end is that of an uninterrupted run", async () => {
    succeeded("train", flags("whole", 40));
    const out = join(root, "parts");
    const script = join(import.meta.dir, "train.ts");
    const child = Bun.spawn([process.execPath, "run", script, ...flags("parts", 40)], {
      stdout: "pipe",
      stderr: "pipe",
    });
    while (!existsSync(join(out, "metrics.jsonl")) && child.exitCode === null) await Bun.sleep(5);
    child.kill("SIGTERM");
    const text = await new Response(child.stdout).text();
    expect(await child.exited).toBe(143);
    expect(text).toContain("--resume");
    expect(existsSync(join(out, "checkpoint/state.safetensors"))).toBe(true);
    succeeded("train", [...flags("parts", 40), "--resume"]);
    for (const name of ["adapter_model.safetensors", "last/adapter_model.safetensors"]) {
      expect(readFileSync(join(out, name)).equals(readFileSync(join(root, "whole", name)))).toBe(true);
    }
  });

  test("--dry-run prints the plan and writes nothing", () => {
    const { stdout } = succeeded("train", [...flags("dry"), "--dry-run"]);
    for (const word of ["steps     3", "tokens", "memory", "expected"]) expect(stdout).toContain(word);
    expect(existsSync(join(root, "dry"))).toBe(false);
  });

  test("--checkpoint-activations: less memory, the same adapter", () => {
    const { stderr } = succeeded("train", [...flags("sparing"), "--checkpoint-activations"]);
    expect(stderr).toContain("activations made again block by block");
    const adapter = (out: string): Buffer => readFileSync(join(root, out, "adapter_model.safetensors"));
    expect(adapter("sparing").equals(adapter("first"))).toBe(true);
    if (process.platform === "linux")
      expect(stderr).toMatch(/memory +[\d.]+ MiB at most, foreseen were [\d.]+ MiB/);
  });

  test("records that are cut are counted", () => {
    const { stderr } = succeeded("train", [...flags("cut", 1), "--cutoff", "300"]);
    expect(stderr).toContain("24 of 24 records (100.0 %)");
  });

  test("--init-adapter takes kind and rank from the folder", () => {
    const args = flags("again", 1).filter((word, i, all) => word !== "--rank" && all[i - 1] !== "--rank");
    succeeded("train", [...args, "--init-adapter", join(root, "first")]);
    const saved = JSON.parse(readFileSync(join(root, "again/adapter_config.json"), "utf8")) as { r: number };
    expect(saved.r).toBe(4);
    const avoid = runScript("train", [
      ...args,
      ...["--out", join(root, "avoiding"), "--init-adapter", join(root, "first")],
      ...["--avoid-indices-of", join(root, "whole")],
    ]);
    expect([avoid.code, avoid.stderr]).toEqual([1, expect.stringContaining("Give one of them")]);
  });

  test("Table 5's switches are obeyed, and stand in the manifest", () => {
    const shared = ["--method", "dora", "--clip", "0.3", "--schedule", "constant", "--dropout", "0"];
    const lengths = ["--source-length", "200", "--target-length", "4", "--loss-on", "response"];
    // --cutoff is refused beside the lengths.
    const own = flags("pieces", 2).filter((word, i, all) => word !== "--cutoff" && all[i - 1] !== "--cutoff");
    const { stderr } = succeeded("train", [...own, ...shared, ...lengths, "--dora-norm", "unscaled"]);
    expect(stderr).toContain("200 tokens of the prompt and 4 of the reply");
    const read = (name: string) => JSON.parse(readFileSync(join(root, "pieces", name), "utf8")) as object;
    const recipe = {
      ...{ method: "dora", doraNorm: "unscaled", schedule: "constant", warmup: 0 },
      ...{ lengths: { source: 200, target: 4 }, cutoff: 204, optimizer: { clip: 0.3 } },
    };
    expect(read("manifest.json")).toMatchObject({ recipe });
    expect(read("sbora.json")).toMatchObject({ norm: "unscaled", recipe });

    const begin = ["--init-adapter", join(root, "pieces"), "--steps", "1"];
    const rest = flags("pieces-on", 1).filter((word, i, all) => word !== "--rank" && all[i - 1] !== "--rank");
    succeeded("train", [...rest, ...begin]);
    expect(readAdapter(join(root, "pieces-on")).metadata?.norm).toBe("unscaled");
    const other = runScript("train", [...rest, ...begin, "--out", join(root, "o"), "--dora-norm", "scaled"]);
    expect([other.code, other.stderr]).toEqual([1, expect.stringContaining("DoRA's norm is unscaled")]);
  });
});

describe("evaluate", () => {
  const args = [
    "--model",
    model,
    "--data",
    root,
    "--tasks",
    "boolq,piqa",
    "--beams",
    "2",
    "--max-new-tokens",
    "4",
  ];

  test("--json: one object; every prediction in the file; a missing test set is said to be missing", () => {
    const out = join(root, "predictions.jsonl");
    const rulers = ["--rulers", "generation,options,labels", "--json", "--out", out];
    const { stdout, stderr } = succeeded("evaluate", [...args, "--adapter", join(root, "first"), ...rulers]);
    const report = JSON.parse(stdout) as {
      missing: string[];
      tasks: Record<
        string,
        { n: number; majority: object; scores: Record<string, { n: number; accuracy: number }> }
      >;
    };
    expect(report.missing).toEqual(["piqa"]);
    expect(stderr).toContain("piqa");
    const boolq = report.tasks.boolq!;
    expect(boolq.n).toBe(6);
    expect(boolq.majority).toEqual({ label: "false", accuracy: (100 * 4) / 6 });
    expect(Object.keys(boolq.scores)).toEqual(["generation", "options", "perCharacter", "labels"]);
    const lines = readFileSync(out, "utf8").trim().split("\n");
    const predictions = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(predictions.map((p) => p.record)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(predictions.map((p) => p.label)).toEqual(tinyRecords(6).map((r) => r.answer));
    for (const p of predictions) {
      expect(typeof p.text).toBe("string");
      expect(p.correct).toBe(p.parsed === p.label);
      expect(["true", "false"]).toContain(p.option as string);
      expect(["true", "false"]).toContain(p.likeliestLabel as string);
    }
    const right = predictions.filter((p) => p.likeliestLabel === p.label).length;
    expect(boolq.scores.labels!.accuracy).toBeCloseTo((100 * right) / 6, 10);
  });

  test("--limit takes the first records", () => {
    const out = join(root, "few.jsonl");
    const { stdout } = succeeded("evaluate", [...args, "--rulers", "labels", "--limit", "2", "--out", out]);
    expect(stdout).toContain("2 records");
    expect(readFileSync(out, "utf8").trim().split("\n").length).toBe(2);
  });
});

describe("generate", () => {
  const run = (...over: string[]) =>
    succeeded("generate", ["--model", model, "--prompt", "Is it so?", "--max-new-tokens", "8", ...over]);
  const generate = (...over: string[]): string => run(...over).stdout;

  test("the streamed text is the same every time, and an adapter changes it", () => {
    const text = generate();
    expect(text.trim().length).toBeGreaterThan(0);
    expect(generate()).toBe(text);
    expect(generate("--adapter", join(root, "whole"))).not.toBe(text);
  });

  test("beams and prompt formats", () => {
    expect(run("--beams", "3").stderr).toMatch(/^9 \+ [1-8] tokens/);
    expect(run("--format", "alpaca").stderr).toMatch(/^\d{3} \+ [1-8] tokens/);
  });
});
