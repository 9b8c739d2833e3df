/** Serves a model over OpenAI's routes; adapters are merged in place and swapped between two steps. */
import { existsSync } from "node:fs";
import type { ParsedArgs } from "citty";
import { InputError } from "../src/errors.ts";
import { readLlamaConfig } from "../src/formats/hf-config.ts";
import { buildLibrary } from "../src/native/build.ts";
import { chosenLibrary } from "../src/native/device.ts";
import { workerPort } from "../src/serving/client.ts";
import type { LogRecord } from "../src/serving/context.ts";
import { startServer } from "../src/serving/server.ts";
import {
  COMPUTE_TYPES,
  choiceFlag,
  deviceFlags,
  listFlag,
  numberFlag,
  quantizeFlag,
  quantizeFlags,
  required,
  runCommand,
  useDevice,
  wholeFlag,
} from "./arguments.ts";
import { exitCodeOf } from "./stop.ts";

const MODES = ["merged", "unmerged"] as const;
/** Positions of a sequence unless --context says otherwise: the KV cache is allocated for them. */
const DEFAULT_CONTEXT = 4096;
const DEFAULT_KV_TOKENS = 16_384;

const EXAMPLES = `Examples
  bun run scripts/serve.ts --model models/smollm2-135m
  bun run scripts/serve.ts --model models/smollm2-135m --adapters runs --port 8080 --compute bf16
  SBORA_API_KEY=secret bun run scripts/serve.ts --model models/smollm2-135m --host 0.0.0.0 --cors https://example.org

  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\
    -d '{"model": "smollm2-135m", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}'

SIGTERM and Ctrl-C take no new work and let what runs end, for --drain seconds at most; a second Ctrl-C ends at once.`;

const ARGS = {
  model: { type: "string", valueHint: "DIR", description: "Hugging Face model folder (LLaMA family)" },
  name: { type: "string", valueHint: "NAME", description: "Its name in requests (default: the folder's)" },
  adapters: { type: "string", valueHint: "DIR", description: "Folder with one adapter folder a name" },
  mode: {
    type: "string",
    default: "merged",
    valueHint: MODES.join("|"),
    description: "Adapters run merged into the weights, one set at a time, or each row with its own tail",
  },
  host: { type: "string", default: "127.0.0.1", valueHint: "HOST", description: "Address to listen on" },
  port: { type: "string", default: "8080", valueHint: "N", description: "Port; 0 takes any free one" },
  context: {
    type: "string",
    valueHint: "N",
    description: `Longest sequence, prompt and answer (default: the model's, at most ${DEFAULT_CONTEXT})`,
  },
  "kv-tokens": {
    type: "string",
    valueHint: "N",
    description: `Positions the KV cache holds over all sequences (default: ${DEFAULT_KV_TOKENS}, or the context if longer)`,
  },
  "max-sequences": {
    type: "string",
    default: "16",
    valueHint: "N",
    description: "Sequences that run at once",
  },
  "prefill-tokens": {
    type: "string",
    default: "256",
    valueHint: "N",
    description: "Prompt tokens of one step",
  },
  "prefix-cache": { type: "boolean", default: true, description: "Share pages of equal beginnings" },
  quantum: {
    type: "string",
    default: "250",
    valueHint: "MS",
    description: "How long one weight set runs while others wait",
  },
  queue: {
    type: "string",
    default: "64",
    valueHint: "N",
    description: "Requests that may wait; more get 429",
  },
  "max-body": { type: "string", default: "1048576", valueHint: "BYTES", description: "Largest request body" },
  "api-key": {
    type: "string",
    valueHint: "KEY,…",
    description: "Keys that clients must send (better: SBORA_API_KEY)",
  },
  "admin-key": {
    type: "string",
    valueHint: "KEY,…",
    description: "Keys for changing adapters (better: SBORA_ADMIN_KEY; default: the API keys)",
  },
  cors: { type: "string", valueHint: "ORIGIN,…", description: "Origins that browsers may call from, or *" },
  drain: {
    type: "string",
    default: "30",
    valueHint: "S",
    description: "Time for running requests at the end",
  },
  ...quantizeFlags,
  ...deviceFlags,
} as const;

type Args = ParsedArgs<typeof ARGS>;

/** The flag's keys, else the variable's; none where it is empty. @throws InputError when it holds commas and blanks alone */
function keys(args: Args, flag: "api-key" | "admin-key", variable: string): string[] {
  const text = process.env[variable] ?? "";
  const given = text.split(",").map((key) => key.trim());
  const found = listFlag(args, flag) ?? given.filter((key) => key !== "");
  if (found.length > 0 || text === "") return found;
  throw new InputError(
    `${variable} holds no key; expected keys with commas between them, or no such variable.`,
  );
}

async function main(args: Args): Promise<void> {
  const model = required(args, "model", "a Hugging Face model folder");
  const adapters = args.adapters ?? null;
  if (adapters !== null && !existsSync(adapters)) {
    throw new InputError(
      `--adapters ${adapters}: there is no such folder; expected one adapter folder a name in it.`,
    );
  }
  const { maxPositions } = readLlamaConfig(model);
  const context = wholeFlag(args, "context", 2) ?? Math.min(maxPositions, DEFAULT_CONTEXT);
  if (context > maxPositions) {
    throw new InputError(`--context ${context}: the model was made for at most ${maxPositions} positions.`);
  }
  const kvTokens = wholeFlag(args, "kv-tokens", 1) ?? Math.max(DEFAULT_KV_TOKENS, context);
  if (kvTokens < context) {
    throw new InputError(`--kv-tokens ${kvTokens}: expected at least the context of ${context}.`);
  }
  const quantize = quantizeFlag(args);
  const engine = {
    model,
    ...(quantize ? { quantize } : {}),
    compute: choiceFlag(args, "compute", COMPUTE_TYPES)!,
    threads: wholeFlag(args, "threads", 1) ?? null,
    context,
    kvTokens,
    maxSequences: numberFlag(args, "max-sequences", { min: 1, max: 256, whole: true })!,
    prefillTokens: numberFlag(args, "prefill-tokens", { min: 1, max: 8192, whole: true })!,
    quantumMs: numberFlag(args, "quantum", { min: 0 })!,
    prefixCache: args["prefix-cache"],
    mode: choiceFlag(args, "mode", MODES)!,
  };
  const settings = {
    maxBodyBytes: numberFlag(args, "max-body", { min: 1024, max: 1 << 28, whole: true })!,
    apiKeys: keys(args, "api-key", "SBORA_API_KEY"),
    adminKeys: keys(args, "admin-key", "SBORA_ADMIN_KEY"),
    cors: listFlag(args, "cors") ?? [],
    pingMs: 10_000,
  };
  // Compiled here, where a first build can say what it does; the Worker then only opens it.
  useDevice(args);
  await buildLibrary(chosenLibrary());
  const server = startServer(
    {
      engine,
      settings,
      log,
      adapters,
      name: args.name ?? null,
      host: args.host,
      port: numberFlag(args, "port", { min: 0, max: 65_535, whole: true })!,
      queue: wholeFlag(args, "queue", 0)!,
      drainMs: 1000 * numberFlag(args, "drain", { min: 0 })!,
    },
    workerPort(),
  );
  process.on("SIGTERM", () => void server.drain());
  process.on("SIGINT", () => {
    if (server.serving.draining()) process.exit(exitCodeOf("SIGINT"));
    console.error(
      "SIGINT: ending when what runs has its answer (--drain); Ctrl-C (once more) to end at once",
    );
    void server.drain();
  });
  console.error(`Listening on ${server.url}; loading ${model} …`);
  // It may also end before it was ready.
  await Promise.race([server.ready, server.ended]);
  if (server.serving.draining()) process.exit(await server.ended);
  const names = server.serving.models.list().map(({ name }) => name);
  console.error(`Ready: ${names.join(", ")}. A page to try them: ${server.url}`);
  process.exit(await server.ended);
}

function log(record: LogRecord): void {
  process.stdout.write(`${JSON.stringify({ time: new Date().toISOString(), ...record })}\n`);
}

await runCommand({
  name: "bun run scripts/serve.ts",
  description: "Serve a model and its adapters over OpenAI's routes.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
