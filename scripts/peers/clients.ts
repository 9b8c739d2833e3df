/**
 * The server through other people's clients, none of them changed, each where it is given:
 *
 *     bun run scripts/peers/clients.ts --python VENV/bin/python --modules NODE_MODULES --schemathesis VENV/bin/schemathesis
 *     bun run scripts/peers/clients.ts --lm-eval VENV/bin/lm_eval --model models/smollm2-135m --data ../shared/data/llm-adapters
 *
 * openai and litellm (clients.py), openai and the AI SDK of npm (clients.mjs) and schemathesis ask a server on the tiny model
 * with two adapters and an API key; lm-eval scores a task of ours (lm-eval-task.ts) on a real one, beside evaluate.ts.
 * Exits with 1 when any of them finds something.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { tinyFolders } from "../../src/serving/testing-app.ts";
import { startServe } from "../bench/serve-server.ts";
import { runScript } from "../testing.ts";

const text = { type: "string" } as const;
const number = (value: string) => ({ ...text, default: value });
const { values } = parseArgs({
  options: {
    ...{ python: text, modules: text, schemathesis: text, "lm-eval": text, model: text, data: text },
    ...{ task: number("ARC-Easy"), records: number("20"), examples: number("40") },
  },
});
const KEY = "a-key-of-clients";
const HERE = import.meta.dir;
let failures = 0;

async function run(
  name: string,
  command: readonly string[],
  env: Record<string, string> = {},
): Promise<void> {
  console.log(`\n== ${name}`);
  const child = Bun.spawn([...command], {
    env: { ...process.env, ...env },
    stdout: "inherit",
    stderr: "inherit",
  });
  const code = await child.exited;
  if (code !== 0) failures++;
  console.log(`== ${name}: ${code === 0 ? "ok" : `ended with ${code}`}`);
}

async function onTheTinyModel({ python, modules, schemathesis, examples }: typeof values): Promise<void> {
  if (!python && !modules && !schemathesis) return;
  const folders = await tinyFolders();
  const flags = ["--model", folders.model, "--adapters", folders.adapters, "--context", "512"];
  const server = await startServe([...flags, "--api-key", KEY]);
  try {
    if (python) await run("Python clients", [python, join(HERE, "clients.py"), server.url, KEY]);
    if (modules) await run("npm clients", ["node", join(HERE, "clients.mjs"), server.url, KEY, modules]);
    if (schemathesis) {
      const header = ["--header", `Authorization: Bearer ${KEY}`];
      const effort = ["--checks", "all", "--max-examples", examples, "--seed", "1"];
      const document = new URL("/openapi.json", server.url).href;
      const config = ["--config-file", join(HERE, "schemathesis.toml")];
      await run("schemathesis", [schemathesis, ...config, "run", document, ...header, ...effort]);
    }
  } finally {
    await server.close();
    folders.remove();
  }
}

/** lm-eval's acc and acc_norm through the server, beside our own rulers on the same records. */
async function besideLmEval(options: typeof values): Promise<void> {
  const { "lm-eval": lmEval, model, data, task, records } = options;
  if (!lmEval) return;
  if (!model || !data) throw new Error("--lm-eval needs --model DIR and --data DIR");
  const folder = mkdtempSync(join(tmpdir(), "sbora-lm-eval-"));
  const server = await startServe(["--model", model, "--name", "served", "--context", "1024"]);
  try {
    const make = [process.execPath, "run", join(HERE, "lm-eval-task.ts"), data, task, records, folder];
    await run("the task for lm-eval", make);
    const url = new URL("/v1/completions", server.url).href;
    const args = `model=served,base_url=${url},tokenizer=${model},num_concurrent=4,max_length=1024`;
    const name = `sbora_${task.toLowerCase().replaceAll("-", "_")}`;
    const scored = ["run", "--model", "local-completions", "--model_args", args, "--tasks", name];
    const places = ["--include_path", folder, "--output_path", join(folder, "out")];
    await run("lm-eval", [lmEval, ...scored, ...places], { HF_DATASETS_OFFLINE: "1", HF_HUB_OFFLINE: "1" });
    const theirs = lmEvalScores(join(folder, "out"), name);
    const ours = ourScores(model, data, task, records, folder);
    console.log(`${task}, ${records} records: lm-eval ${theirs.join(" ")}, evaluate.ts ${ours.join(" ")}`);
    if (`${theirs}` !== `${ours}`) failures++;
  } finally {
    await server.close();
    rmSync(folder, { recursive: true });
  }
}

/** In percent, to a tenth: whole options, and per character. */
function lmEvalScores(out: string, name: string): string[] {
  const files = readdirSync(out, { recursive: true, encoding: "utf8" });
  const file = files.find((path) => /results_.*\.json$/.test(path));
  if (file === undefined) throw new Error(`lm-eval wrote no results below ${out}`);
  const { results } = JSON.parse(readFileSync(join(out, file), "utf8")) as {
    results: Record<string, Record<string, number>>;
  };
  return ["acc,none", "acc_norm,none"].map((metric) => (100 * results[name]![metric]!).toFixed(1));
}

function ourScores(model: string, data: string, task: string, records: string, folder: string): string[] {
  const flags = ["--model", model, "--data", data, "--tasks", task, "--limit", records, "--json"];
  const predictions = ["--rulers", "options", "--out", join(folder, "predictions.jsonl")];
  const { code, stdout, stderr } = runScript("evaluate", [...flags, ...predictions]);
  if (code !== 0) throw new Error(`evaluate.ts ended with ${code}: ${stderr}`);
  const { tasks } = JSON.parse(stdout) as {
    tasks: Record<string, { scores: Record<string, { accuracy: number }> }>;
  };
  return ["options", "perCharacter"].map((ruler) => tasks[task]!.scores[ruler]!.accuracy.toFixed(1));
}

await onTheTinyModel(values);
await besideLmEval(values);
console.log(failures === 0 ? "\nall clients are content" : `\n${failures} of them found something`);
process.exit(failures === 0 ? 0 : 1);
