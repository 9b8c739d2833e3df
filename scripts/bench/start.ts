/** Target 5: from starting the process to the first token, the weights in the page cache. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { InputError } from "../../src/errors.ts";
import { withTemporaryFolder } from "../../src/formats/files.ts";
import { checkInference } from "./check.ts";
import { type Bench, benchModel, computesOf, roundsOf } from "./context.ts";
import { interleave } from "./interleave.ts";
import { writeRandomModel } from "./random-weights.ts";
import { addFigure, addTarget } from "./report.ts";

const ROUNDS = 7;
const TARGET_SECONDS = 0.5;
/** The target is about a model of this size; others are figures only. */
const TARGET_BYTES = 300 << 20;
const PROMPT = "The capital of France is";
const GENERATE = resolve(import.meta.dir, "../generate.ts");
const FIRST_TOKEN = join(import.meta.dir, "first-token.ts");

export async function benchStart(bench: Bench): Promise<void> {
  const { options, device, report } = bench;
  const model = benchModel(bench);
  await withTemporaryFolder(async (folder) => {
    const dir = model.folder ?? folder;
    if (model.folder === null) writeRandomModel(dir, model.config);
    // A folder of random weights has no tokenizer: it is given token ids.
    const tokenizer = existsSync(join(dir, "tokenizer.json"));
    for (const compute of computesOf(bench, ["bf16"])) {
      bench.say(`start: ${model.name} ${compute}, ${tokenizer ? "generate.ts" : "without a tokenizer"}`);
      await checkInference(report, device, model.config, compute);
      const command = tokenizer
        ? [GENERATE, "--model", dir, "--compute", compute, "--prompt", PROMPT, "--max-new-tokens", "1"]
        : [FIRST_TOKEN, dir, compute];
      const times = await interleave<number>(
        [{ name: "ours", run: () => firstOutput([...command], device.threads) }],
        roundsOf(bench, ROUNDS),
      );
      const name = `start.${model.name}.${compute}.first-token`;
      const ours = times.get("ours")!;
      addFigure(report, name, "s", ours);
      const bytes = Bun.file(join(dir, "model.safetensors")).size;
      const aside = options.quick ? "a quick run has two layers" : "the target is about 270 MB of weights";
      if (bytes > TARGET_BYTES || options.quick) report.missing.push(`${name}: ${aside}`);
      else addTarget(report, { name, unit: "s", ours, peer: null, bound: { most: TARGET_SECONDS } });
    }
  });
}

/** Seconds from starting the script to the first byte it writes. */
async function firstOutput(command: readonly string[], threads: number): Promise<number> {
  const started = performance.now();
  const child = Bun.spawn([process.execPath, "run", ...command], {
    env: { ...process.env, SBORA_THREADS: `${threads}` },
    stdout: "pipe",
    stderr: "pipe",
  });
  const errors = new Response(child.stderr).text();
  let seconds: number | null = null;
  for await (const chunk of child.stdout) {
    if (chunk.length > 0) seconds ??= (performance.now() - started) / 1000;
  }
  const code = await child.exited;
  if (code === 0 && seconds !== null) return seconds;
  throw new InputError(`${command.join(" ")} ended with ${code}:\n${(await errors).trim()}`);
}
