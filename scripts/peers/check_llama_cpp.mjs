/**
 * Our GGUF files in the real llama.cpp (node-llama-cpp's prebuilt one): the merged model, and base + GGUF LoRA, must cut
 * prompts into the same tokens and continue them greedily as scripts/generate.ts does with the merged folder.
 *
 *     npm install --ignore-scripts --omit=optional node-llama-cpp @node-llama-cpp/linux-x64      (in a folder of its own)
 *     node check_llama_cpp.mjs NODE_MODULES MODEL ADAPTER
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, model, adapter] = process.argv.slice(2).map((path) => resolve(path));
const root = resolve(import.meta.dirname, "../..");
const out = mkdtempSync(join(tmpdir(), "sbora-llama-cpp-"));
const TOKENS = 24;
const TEXTS = [
  "The capital of France is",
  "Question: What is 12 + 30?\nAnswer:",
  "It's 1234 ½ naïve 日本語 🙂 foo_bar(x)",
  "Once upon a time, in a village by the sea,",
];

const script = (name, ...args) =>
  execFileSync("bun", ["run", join(root, "scripts", `${name}.ts`), ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
const file = (name) => join(out, name);

script(
  "merge",
  "--model",
  model,
  "--adapter",
  adapter,
  "--out",
  file("merged"),
  "--dtype",
  "f32",
  "--no-verify",
);
script(
  "export",
  "--format",
  "gguf",
  "--model",
  file("merged"),
  "--out",
  file("merged.gguf"),
  "--type",
  "f32",
);
script("export", "--format", "gguf", "--model", model, "--out", file("base.gguf"), "--type", "f32");
script("export", "--format", "gguf-lora", "--model", model, "--adapter", adapter, "--out", file("lora.gguf"));
const continued = (text) =>
  script("generate", "--model", file("merged"), "--prompt", text, "--max-new-tokens", String(TOKENS));

const { getLlama } = await import(pathToFileURL(join(modules, "node-llama-cpp/dist/index.js")).href);
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 2 });
let failures = 0;
for (const [name, path, lora] of [
  ["merged.gguf", file("merged.gguf"), null],
  ["base.gguf + lora.gguf", file("base.gguf"), file("lora.gguf")],
]) {
  const loaded = await llama.loadModel({ modelPath: path });
  const adapters = lora ? { lora: { adapters: [{ filePath: lora, scale: 1 }] } } : {};
  const context = await loaded.createContext({ contextSize: 256, batchSize: 128, ...adapters });
  const sequence = context.getSequence();
  for (const text of TEXTS) {
    await sequence.clearHistory();
    const ids = [];
    for await (const token of sequence.evaluate(loaded.tokenize(text), { temperature: 0 })) {
      if (ids.push(token) >= TOKENS) break;
    }
    const theirs = `${loaded.detokenize(ids)}\n`;
    const ours = continued(text);
    const same = theirs === ours;
    failures += same ? 0 : 1;
    console.log(
      `${name}: ${same ? "ok     " : "FAILED "} ${JSON.stringify(theirs)}${same ? "" : ` ours ${JSON.stringify(ours)}`}`,
    );
  }
  await context.dispose();
  await loaded.dispose();
}
rmSync(out, { recursive: true });
process.exit(failures > 0 ? 1 : 0);
