/** Bad input of every kind: one paragraph that names file, field, value and what was expected; exit code 1; nothing written. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSafetensorsHeader } from "../src/formats/safetensors.ts";
import { buildLibrary } from "../src/native/build.ts";
import { tinyRecords, writeTinyModel } from "../src/training/testing.ts";
import { runScript } from "./testing.ts";

setDefaultTimeout(120_000);

const root = mkdtempSync(join(tmpdir(), "sbora-errors-"));
const model = join(root, "model");
const data = join(root, "data.json");
const out = join(root, "run");
const goldens = join(import.meta.dir, "../src/model/testdata/gqa");

beforeAll(async () => {
  await buildLibrary("cpu");
  writeTinyModel(model);
  writeFileSync(data, JSON.stringify(tinyRecords(8)));
});
afterAll(() => rmSync(root, { recursive: true }));

/** The message of a command that has to fail. */
function refused(name: string, args: readonly string[], env: Record<string, string> = {}): string {
  const { code, stdout, stderr } = runScript(name, args, env);
  const message = stderr.trim();
  expect(message).not.toMatch(/^\s+at |\.ts:\d+/m);
  expect(message.split("\n\n").length).toBe(1);
  expect(stdout).toBe("");
  expect(code).toBe(1);
  expect(existsSync(out)).toBe(false);
  return message;
}

/** Small enough to be quick if it should run after all. */
const quick = ["--out", out, "--steps", "1", "--rank", "4", "--batch", "2", "--cutoff", "400"];
const train = (over: readonly string[], env: Record<string, string> = {}): string =>
  refused("train", ["--model", model, "--data", data, ...quick, ...over], env);

function broken(name: string, change: (bytes: Buffer) => Buffer): string {
  const dir = join(root, name);
  cpSync(model, dir, { recursive: true });
  const path = join(dir, "model.safetensors");
  writeFileSync(path, change(readFileSync(path)));
  return dir;
}

function dataFile(name: string, text: string): string {
  writeFileSync(join(root, name), text);
  return join(root, name);
}

describe("model folders", () => {
  test("truncated safetensors", () => {
    const dir = broken("truncated", (bytes) => bytes.subarray(0, bytes.length - 100));
    const message = train(["--model", dir]);
    expect(message).toContain(join(dir, "model.safetensors"));
  });

  test("NaN weights: file, tensor and place", () => {
    const entry = readSafetensorsHeader(join(model, "model.safetensors")).tensors.get(
      "model.layers.1.mlp.up_proj.weight",
    )!;
    const dir = broken("nan", (bytes) => {
      bytes.writeFloatLE(Number.NaN, entry.start + 4 * 37);
      return bytes;
    });
    const message = train(["--model", dir]);
    expect(message).toContain(join(dir, "model.safetensors"));
    expect(message).toContain("model.layers.1.mlp.up_proj.weight");
    expect(message).toMatch(/nan/i);
  });

  test("no tokenizer", () => {
    for (const [name, args] of [
      ["train", ["--data", data, ...quick, "--targets", "q_proj"]],
      ["generate", ["--prompt", "x"]],
    ] as const) {
      const message = refused(name, ["--model", goldens, ...args]);
      expect(message).toContain(goldens);
      expect(message).toContain("tokenizer.json");
    }
  });

  test("no model, an adapter's folder", () => {
    expect(train(["--model", join(root, "nothing")])).toContain("config.json");
    expect(refused("generate", ["--model", model, "--adapter", model, "--prompt", "x"])).toContain(
      "adapter_config.json",
    );
  });

  test("truncated GGUF", () => {
    const file = dataFile("cut.gguf", "");
    const header = Buffer.alloc(64);
    header.write("GGUF", 0);
    header.writeUInt32LE(3, 4);
    header.writeBigUInt64LE(5n, 8);
    header.writeBigUInt64LE(9n, 16);
    writeFileSync(file, header);
    expect(refused("download", ["mine", "--from", file, "--out", out])).toContain(file);
  });
});

describe("data files", () => {
  const good = { instruction: "Is it so?", input: "", output: "yes" };

  test("empty, missing field, wrong type", () => {
    expect(train(["--data", dataFile("empty.json", "")])).toContain("is empty");
    expect(train(["--data", dataFile("none.json", "[]")])).toContain("holds no records");
    const wrong = dataFile("wrong.json", JSON.stringify([good, { instruction: "x", input: 3 }]));
    const message = train(["--data", wrong]);
    expect(message).toContain(wrong);
    expect(message).toContain('record 2: field "input" is 3, expected a string');
    expect(message).toContain('record 2: field "output" is missing');
  });

  test("records longer than the cutoff: nothing left to learn", () => {
    const message = train(["--cutoff", "20", "--loss-on", "response"]);
    expect(message).toContain(data);
    expect(message).toContain("20 tokens");
    expect(message).toContain("--cutoff");
  });

  test("validation set as large as the data", () => {
    expect(train(["--val-size", "8"])).toContain("only 8 records");
  });

  test("a task file whose answer is missing", () => {
    mkdirSync(join(root, "tasks/boolq"), { recursive: true });
    writeFileSync(join(root, "tasks/boolq/test.json"), JSON.stringify([good]));
    const message = refused("evaluate", [
      "--model",
      model,
      "--data",
      join(root, "tasks"),
      "--tasks",
      "boolq",
    ]);
    expect(message).toContain('field "answer" is missing');
  });

  test("no test set at all", () => {
    const message = refused("evaluate", ["--model", model, "--data", root, "--tasks", "piqa,gsm8k"]);
    expect(message).toContain("piqa, gsm8k");
    expect(message).toContain("test.json");
  });
});

describe("flags", () => {
  test("unknown names list the choices", () => {
    expect(train(["--method", "lorra"])).toContain("lora, dora, oa, lora-fa, sbora-fa, sbora-fb, full");
    expect(train(["--method", "full"])).toContain("--rank: method full trains every weight");
    expect(train(["--targets", "q_proj,qkv"])).toContain('unknown target "qkv"');
    expect(train(["--prompt", "vicuna"])).toContain("llm-adapters, alpaca");
    expect(train(["--schedule", "step"])).toContain("linear, cosine, constant");
    const evaluate = ["--model", model, "--data", root];
    expect(refused("evaluate", [...evaluate, "--tasks", "mnli"])).toContain("boolq, piqa, social_i_qa");
    expect(refused("evaluate", [...evaluate, "--rulers", "guess"])).toContain("generation, options, labels");
  });

  test("rank 0, rank beyond the width", () => {
    expect(train(["--rank", "0"])).toContain('--rank is "0"; expected a whole number of at least 1');
    const message = train(["--rank", "33"]);
    expect(message).toContain("rank 33 is too large for SBoRA-FA");
    expect(message).toContain("at most 32");
  });

  test("numbers that are none", () => {
    expect(train(["--lr", "fast"])).toContain('--lr is "fast"');
    expect(train(["--steps", "1.5"])).toContain('--steps is "1.5"');
    expect(train(["--dropout", "1"])).toContain('--dropout is "1"');
    expect(refused("generate", ["--model", model, "--prompt", "x", "--beams", "0"])).toContain(
      '--beams is "0"',
    );
  });

  test("unknown, mistyped, missing and stray ones", () => {
    expect(train(["--warm", "3"])).toContain("did you mean --warmup?");
    expect(train(["--modle", "x"])).toContain("did you mean --model?");
    expect(train(["--gpu", "0"])).toContain("unknown flag --gpu; expected one of --model, --data");
    expect(train(["surplus"])).toContain('unexpected "surplus"');
    expect(train(["--no-shufle"])).toContain("did you mean --no-shuffle?");
    expect(train(["--no-shuffle=1"])).toContain('--no-shuffle is "1"; expected no value.');
    expect(train(["--dry-run=maybe"])).toContain(
      '--dry-run is "maybe"; expected no value, or true or false.',
    );
    // What stands without a name has none as a flag.
    expect(refused("bench", ["--what", "gemm"])).toContain("unknown flag --what; expected one of --peer");
    expect(refused("train", ["--data", data])).toContain("--model is missing");
    expect(refused("train", ["--model", model, "--data", data])).toContain("--out is missing");
    expect(refused("generate", ["--model", model, "--chat", "--prompt", "x"])).toContain("chat template");
    expect(train(["-rank", "8"])).toContain("two dashes: --rank");
    const two = ["--model", model, "--prompt", "x", "--adapter", "a", "--adapter", "b"];
    expect(refused("generate", [...two, "--max-new-tokens", "8"])).toContain(
      "--adapter is given 2 times (a, b)",
    );
  });

  test("flags that nothing would obey", () => {
    expect(train(["--schedule", "constant", "--warmup", "3"])).toContain("--warmup: schedule constant");
    expect(train(["--method", "lora", "--dora-norm", "unscaled"])).toContain("--dora-norm: method lora");
    const lengths = ["--source-length", "40", "--target-length", "8"];
    expect(train(lengths)).toContain("--cutoff: with --source-length 40 and --target-length 8");
    expect(train(lengths.slice(2))).toContain("--target-length is given without --source-length");
    expect(train(["--source-length", "0", "--target-length", "8"])).toContain("at least 1");
    expect(train(["--clip", "-1"])).toContain('--clip is "-1"; expected a number of at least 0');
  });

  test("MMLU's, where it is not asked, and what it cannot be asked by", () => {
    const evaluate = ["--model", model, "--data", root];
    expect(refused("evaluate", [...evaluate, "--shots", "3"])).toContain("--shots: only mmlu has these");
    expect(refused("evaluate", [...evaluate, "--unmerged"])).toContain("--unmerged is about an adapter");
    const mmlu = [...evaluate, "--tasks", "mmlu"];
    expect(refused("evaluate", mmlu)).toContain("MMLU's test is not there; expected");
    expect(refused("evaluate", [...mmlu, "--splits", "train"])).toContain("expected one of val, test");
    expect(refused("evaluate", [...mmlu, "--prompt-tokens", "100000"])).toContain("max_position_embeddings");
  });

  test("more tokens than the model has positions for", () => {
    const args = ["--model", model, "--prompt", "x", "--max-new-tokens", "1000000"];
    expect(refused("generate", args)).toContain("max_position_embeddings");
  });
});

describe("surroundings", () => {
  test("an output folder that cannot be made", () => {
    expect(train(["--out", join(data, "run")])).toContain("cannot be written");
    const evaluate = [
      "--model",
      model,
      "--data",
      root,
      "--tasks",
      "boolq",
      "--out",
      join(root, "none/p.jsonl"),
    ];
    expect(refused("evaluate", evaluate)).toContain("none");
    mkdirSync(join(root, "folders/boolq"), { recursive: true });
    writeFileSync(
      join(root, "folders/boolq/test.json"),
      JSON.stringify([{ instruction: "x", input: "", output: "true", answer: "true" }]),
    );
    const into = ["--data", join(root, "folders"), "--out", join(root, "folders")];
    expect(refused("evaluate", [...evaluate, ...into])).toContain("expected the name of a new file");
  });

  test("no compiler", () => {
    const env = { CXX: "/nonexistent/c++", SBORA_CACHE: join(root, "cache"), SBORA_LIBRARY: "" };
    expect(train([], env)).toContain("CXX");
  });
});
