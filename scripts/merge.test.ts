/** merge, unmerge and export as a user types them, on adapters that train.ts made. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAdapter } from "../src/adapters/storage.ts";
import { fingerprintModel } from "../src/formats/fingerprint.ts";
import { readGguf } from "../src/formats/gguf.ts";
import { narrow } from "../src/formats/half.ts";
import { openModelTensors, readTensorAsF32, writeSafetensors } from "../src/formats/safetensors.ts";
import { buildLibrary } from "../src/native/build.ts";
import { tinyRecords, writeTinyModel } from "../src/training/testing.ts";
import { repeatedFlag } from "./arguments.ts";
import { type Finished, runScript } from "./testing.ts";

setDefaultTimeout(120_000);

const root = mkdtempSync(join(tmpdir(), "sbora-merge-"));
const at = (...parts: string[]): string => join(root, ...parts);

const run = (name: string, line: string, ...more: string[]): Finished =>
  runScript(name, [...line.split(" "), ...more]);

function succeeded(name: string, line: string): Finished {
  const result = run(name, line);
  expect({ code: result.code, stderr: result.code === 0 ? "" : result.stderr }).toEqual({
    code: 0,
    stderr: "",
  });
  return result;
}

const train = (out: string, more = ""): string =>
  `--model ${at("model")} --data ${at("data.json")} --out ${at(out)} --rank 4 --batch 4 --cutoff 400 --lr 0.05 --steps 3${more}`;

beforeAll(async () => {
  await buildLibrary("cpu");
  writeTinyModel(at("model"));
  writeFileSync(at("data.json"), JSON.stringify(tinyRecords(24)));
  succeeded("train", train("a"));
  succeeded("train", train("b", ` --avoid-indices-of ${at("a")}`));
});
afterAll(() => rmSync(root, { recursive: true }));

describe("train --avoid-indices-of", () => {
  test("draws other indices in every module, and the recipe says so", () => {
    const [a, b] = [readAdapter(at("a")), readAdapter(at("b"))];
    expect(b.modules.size).toBe(10);
    for (const [module, { index }] of b.modules) {
      const taken = new Set(a.modules.get(module)!.index!.values);
      expect([...index!.values].filter((i) => taken.has(i))).toEqual([]);
    }
    const recipeOf = (name: string): { avoidIndices?: string } =>
      (JSON.parse(readFileSync(at(name, "manifest.json"), "utf8")) as { recipe: { avoidIndices?: string } })
        .recipe;
    expect(recipeOf("a").avoidIndices).toBeUndefined();
    expect(recipeOf("b").avoidIndices).toMatch(/^[0-9a-f]{64}$/);
  });

  test("a third adapter avoids both; another kind, and a rank that no longer fits, are refused", () => {
    const avoid = `--avoid-indices-of ${at("a")} --avoid-indices-of ${at("b")}`;
    succeeded("train", train("c", ` ${avoid}`));
    const indices = (name: string): number[] => [
      ...readAdapter(at(name)).modules.get("layers.1.mlp.up_proj")!.index!.values,
    ];
    expect(new Set([...indices("a"), ...indices("b"), ...indices("c")]).size).toBe(12);
    const other = run("train", train("d", ` --method sbora-fb ${avoid}`));
    expect(other.code).toBe(1);
    expect(other.stderr).toContain("is sbora-fa, this run trains sbora-fb");
    const large = run("train", train("d", ` --avoid-indices-of ${at("a")}`).replace("--rank 4", "--rank 30"));
    expect(large.code).toBe(1);
    expect(large.stderr).toContain("only 28 are left");
  });

  test("resuming without the flag is another recipe", () => {
    const { code, stderr } = run("train", train("b", " --resume"));
    expect(code).toBe(1);
    expect(stderr).toContain("another recipe");
  });
});

describe("merge and unmerge", () => {
  const base = (): string => fingerprintModel(at("model"));

  test("one adapter: a table, the proof, a model that generates; taken back, the base", () => {
    const { stdout } = succeeded(
      "merge",
      `--model ${at("model")} --adapter ${at("a")} --out ${at("merged")} --keep-originals`,
    );
    expect(stdout).toContain("layers.0.self_attn.q_proj");
    expect(stdout).toContain("all bit-equal to the base's");
    expect(stdout).toMatch(/logits {5}differ by at most \S+ from base \+ adapter over \d+ positions/);
    expect(readdirSync(at("merged")).sort()).toEqual([
      "README.md",
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "originals.safetensors",
      "sbora-merge.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const live = succeeded(
      "generate",
      `--model ${at("model")} --adapter ${at("a")} --prompt abc --max-new-tokens 8`,
    );
    const merged = succeeded("generate", `--model ${at("merged")} --prompt abc --max-new-tokens 8`);
    expect(merged.stdout).toBe(live.stdout);
    const { stdout: restored } = succeeded("unmerge", `--model ${at("merged")} --out ${at("again")}`);
    expect(restored).toContain(base());
    expect(fingerprintModel(at("again"))).toBe(base());
  });

  test("two disjoint adapters, one weighted; the same one twice is refused", () => {
    const both = `--model ${at("model")} --adapter ${at("a")} --adapter ${at("b")}:0.5 --out ${at("both")}`;
    const { stdout } = succeeded("merge", `${both} --dtype bf16`);
    expect(stdout).toContain("25.00 %");
    const record = JSON.parse(readFileSync(at("both", "sbora-merge.json"), "utf8")) as {
      adapters: { weight: number }[];
    };
    expect(record.adapters.map(({ weight }) => weight)).toEqual([1, 0.5]);
    const twice = `--model ${at("model")} --adapter ${at("a")} --adapter=${at("a")} --out ${at("twice")}`;
    const refused = run("merge", twice);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain("4 columns");
    expect(existsSync(at("twice"))).toBe(false);
    expect(run("merge", `${twice} --allow-overlap`).stderr).toContain("they add up");
  });

  test("another base is refused with both fingerprints and leaves nothing", () => {
    writeTinyModel(at("other"));
    const tensors = [...openModelTensors(at("other")).values()].map((entry) => {
      const values = readTensorAsF32(entry).map((v) => v / 2);
      return { name: entry.name, dtype: "F32" as const, shape: entry.shape, bytes: narrow("F32", values) };
    });
    writeSafetensors(at("other", "model.safetensors"), tensors);
    const { code, stderr } = run("merge", `--model ${at("other")} --adapter ${at("a")} --out ${at("wrong")}`);
    expect(code).toBe(1);
    expect(stderr).toContain(base().slice(0, 16));
    expect(stderr).toContain(fingerprintModel(at("other")).slice(0, 16));
    expect(stderr).not.toContain("    at ");
    expect(readdirSync(root).filter((name) => name.includes("wrong"))).toEqual([]);
  });

  test("flags that are missing or mistyped", () => {
    const stderr = (name: string, line: string): string => run(name, line).stderr;
    expect(stderr("merge", `--model ${at("model")} --out ${at("x")}`)).toContain("--adapter is missing");
    expect(
      stderr("merge", `--model ${at("model")} --adapter ${at("a")} --out ${at("x")} --dtype fp8`),
    ).toContain("expected one of f32, bf16, f16");
    expect(stderr("merge", `--model ${at("model")} --adapter ${at("a")}:1.2.3 --out ${at("x")}`)).toContain(
      "a number",
    );
    expect(stderr("unmerge", `--model ${at("model")} --out ${at("x")}`)).toContain(
      "no originals.safetensors",
    );
  });
});

describe("export", () => {
  test("peft, gguf and gguf-lora", () => {
    succeeded("export", `--format peft --model ${at("model")} --adapter ${at("a")} --out ${at("peft")}`);
    expect(readdirSync(at("peft")).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "sbora.json",
    ]);
    succeeded("merge", `--model ${at("model")} --adapter ${at("peft")} --out ${at("from-peft")}`);
    succeeded("merge", `--model ${at("model")} --adapter ${at("a")} --out ${at("from-a")}`);
    expect(fingerprintModel(at("from-peft"))).toBe(fingerprintModel(at("from-a")));
    succeeded("export", `--format gguf --model ${at("from-a")} --out ${at("a.gguf")} --type q8_0`);
    expect(readGguf(at("a.gguf")).tensors.get("blk.0.attn_q.weight")!.type.name).toBe("Q8_0");
    succeeded(
      "export",
      `--format gguf-lora --model ${at("model")} --adapter ${at("a")} --out ${at("lora.gguf")}`,
    );
    expect(readGguf(at("lora.gguf")).tensors.size).toBe(20);
  });

  test("refused: an output that is there, an adapter for a model file, no format", () => {
    const model = `--model ${at("model")} --out ${at("model/config.json")}`;
    expect(run("export", `--format gguf ${model}`).stderr).toContain("is there already");
    expect(
      run("export", `--format gguf --model ${at("model")} --adapter ${at("a")} --out ${at("y")}`).stderr,
    ).toContain("merge the adapter into it first");
    expect(run("export", model).stderr).toContain("--format is missing");
  });
});

test("a flag that may be given several times", () => {
  const argv = ["--adapter", "a", "--out", "x", "--adapter=b:2", "--adapters", "c", "--adapter"];
  expect(repeatedFlag("adapter", argv)).toEqual(["a", "b:2"]);
});
