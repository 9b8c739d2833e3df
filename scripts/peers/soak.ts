/**
 * The server over a long time: many requests, many clients that leave, and what remains of them in memory.
 *
 *     bun run scripts/peers/soak.ts [--requests 1000] [--cuts 100] [--parallel 16] [--rounds 6]
 *
 * It starts scripts/serve.ts as a process of its own on the tiny model with an SBoRA and a LoRA adapter, warms it up with
 * a fifth of the requests, then lets rounds of requests (a third each for base and adapters, half of them streams) and of
 * cut streams pass. Exits with 1 when a request fails, a slot or page stays busy, or memory grows: the collector lets it
 * swing by a fifth, so the highest level of the second half is held against that of the first, and may be 5 % above it.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { eventsIn } from "../../src/serving/page/events.ts";
import { JSON_TYPE, tinyFolders } from "../../src/serving/testing-app.ts";

const MODELS = ["tiny", "fa", "lora"];
const GROWTH = 0.05;
const options = {
  requests: { type: "string", default: "1000" },
  cuts: { type: "string", default: "100" },
  parallel: { type: "string", default: "16" },
  rounds: { type: "string", default: "6" },
} as const;
const { values } = parseArgs({ options });
const [requests, cuts, parallel, rounds] = [values.requests, values.cuts, values.parallel, values.rounds].map(
  Number,
) as [number, number, number, number];

const folders = await tinyFolders();
const script = join(import.meta.dir, "../serve.ts");
const flags = ["--model", folders.model, "--adapters", folders.adapters, "--context", "512", "--port", "0"];
const server = Bun.spawn([process.execPath, "run", script, ...flags], { stdout: "ignore", stderr: "pipe" });
const url = await addressOf(server.stderr);
let problems = 0;

async function addressOf(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let told = "";
  for await (const piece of stderr) {
    told += new TextDecoder().decode(piece);
    if (told.includes("Ready")) return /http:\/\/\S+/.exec(told)![0];
  }
  throw new Error(`the server did not start: ${told}`);
}

function residentMiB(): number {
  const status = readFileSync(`/proc/${server.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) / 1024;
}

function wish(i: number, maxTokens: number): { path: string; body: object } {
  const common = { model: MODELS[i % 3], max_tokens: maxTokens, temperature: i % 4 === 0 ? 1 : 0, seed: i };
  // every seventh is a longer text
  const text = `${i}: ${"what the moon said ".repeat(i % 7 === 0 ? 12 : 1)}`;
  return i % 5 === 0
    ? { path: "/v1/completions", body: { ...common, prompt: text } }
    : { path: "/v1/chat/completions", body: { ...common, messages: [{ role: "user", content: text }] } };
}

async function post(path: string, body: object, signal?: AbortSignal): Promise<Response> {
  const init = { method: "POST", headers: JSON_TYPE, body: JSON.stringify(body) };
  return fetch(new URL(path, url), signal ? { ...init, signal } : init);
}

async function whole(i: number): Promise<void> {
  const { path, body } = wish(i, 8 + (i % 25));
  const stream = i % 2 === 0;
  const response = await post(path, { ...body, stream });
  if (!response.ok) {
    problems++;
    console.error(`${response.status}: ${await response.text()}`);
  } else if (stream)
    for await (const event of eventsIn<{ error?: object }>(response.body!)) problems += event.error ? 1 : 0;
  else await response.json();
}

async function cut(i: number): Promise<void> {
  const { path, body } = wish(i, 200);
  const leave = new AbortController();
  const response = await post(path, { ...body, stream: true, ignore_eos: true }, leave.signal);
  if (!response.ok) problems++;
  const reader = response.body!.getReader();
  for (let reads = 0; reads < i % 4; reads++) await reader.read();
  leave.abort();
  await reader.read().catch(() => {});
}

/** `count` runs of `one`, so many at once. */
async function all(count: number, one: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < count; i = next++) await one(i);
  };
  await Promise.all(Array.from({ length: parallel }, worker));
}

interface State {
  readonly rss: number;
  readonly running: number;
  readonly waiting: number;
  readonly outstanding: number;
  readonly held: number;
  readonly cached: number;
  readonly closed: number;
}

/** When everything is done: what is busy, and what stays. */
async function settled(): Promise<State> {
  let state = await observed();
  for (let i = 0; i < 100 && state.running + state.waiting + state.outstanding > 0; i++) {
    await Bun.sleep(100);
    state = await observed();
  }
  // Time for the collector: memory is what remains, not what was just dropped.
  await Bun.sleep(3000);
  return observed();
}

async function observed(): Promise<State> {
  const text = await (await fetch(new URL("/metrics", url))).text();
  const value = (name: string): number =>
    Number(
      text
        .split("\n")
        .find((l) => l.startsWith(`${name} `))
        ?.split(" ")[1] ?? 0,
    );
  const closed = text
    .split("\n")
    .filter((l) => l.startsWith("sbora_requests_total") && l.includes('status="499"'));
  return {
    rss: residentMiB(),
    running: value("sbora_sequences_running"),
    waiting: value("sbora_sequences_waiting"),
    outstanding: value("sbora_requests_outstanding"),
    held: value('sbora_kv_pages{state="held"}'),
    cached: value('sbora_kv_pages{state="cached"}'),
    closed: closed.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0),
  };
}

function tell(when: string, { rss, running, waiting, outstanding, held, cached, closed }: State): void {
  console.log(
    `${when.padEnd(28)} ${rss.toFixed(1).padStart(7)} MiB resident   slots busy ${running}, waiting ${waiting}, requests open ${outstanding}, ` +
      `pages held ${held} (${cached} by the prefix cache), clients gone ${closed}`,
  );
  if (running + waiting + outstanding + held - cached > 0) problems++;
}

tell("started", await settled());
await all(Math.ceil(requests / 5), whole);
tell("warm", await settled());
const levels: number[] = [];
for (let round = 1; round <= rounds; round++) {
  await all(requests, whole);
  tell(`round ${round}: ${requests} requests`, await settled());
  await all(cuts, cut);
  const state = await settled();
  tell(`round ${round}: ${cuts} streams cut`, state);
  levels.push(state.rss);
}
const half = Math.ceil(levels.length / 2);
const growth = Math.max(...levels.slice(half)) / Math.max(...levels.slice(0, half)) - 1;
console.log(
  `highest of the second half against the first: ${(100 * growth).toFixed(1)} %; problems: ${problems}`,
);
server.kill("SIGTERM");
const code = await server.exited;
folders.remove();
process.exit(problems > 0 || growth > GROWTH || code !== 0 ? 1 : 0);
