/**
 * A peer in a process of its own that stays alive between its turns: one JSON object a line, asked on stdin, answered on
 * stdout (scripts/peers/protocol.py is the other side).
 */
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { InputError, messageOf } from "../../src/errors.ts";
import { compile, findCompiler } from "../../src/native/compiler.ts";
import type { PeerForm } from "./options.ts";

export type Answer = Readonly<Record<string, unknown>>;

export interface Peer {
  readonly name: string;
  /** What it says of itself: versions, threads. */
  readonly about: Answer;
  /** @throws InputError with the peer's own words when it fails */
  ask(request: object): Promise<Answer>;
  close(): Promise<void>;
}

const PEERS = resolve(import.meta.dir, "../peers");
/** What is kept of a peer's stderr for an error message. */
const KEPT_CHARACTERS = 2000;

/** Environment of every Python peer: no downloads, its output as it comes. */
const QUIET = { HF_HUB_OFFLINE: "1", PYTHONUNBUFFERED: "1", TOKENIZERS_PARALLELISM: "false" };

/** glibc then keeps what torch frees, in place of asking for zeroed pages again at every op. */
const TUNED = { MALLOC_MMAP_MAX_: "0", MALLOC_TRIM_THRESHOLD_: "99999999999" };

/** MKL takes its fast paths only where this says "Intel". */
const VENDOR_SOURCE = 'extern "C" int mkl_serv_intel_cpu_true(void) { return 1; }\n';

/** Environment that makes a form of the peer; `vendor` compiles its one-line library into `folder`. */
export async function formEnvironment(form: PeerForm, folder: string): Promise<Record<string, string>> {
  if (form === "installed") return {};
  if (form === "tuned") return TUNED;
  const source = join(folder, "vendor.cpp");
  const library = join(folder, "vendor.so");
  writeFileSync(source, VENDOR_SOURCE);
  await compile(findCompiler(), ["-shared", "-fPIC", source, "-o", library], folder);
  return { ...TUNED, LD_PRELOAD: library };
}

/** Starts `python scripts/peers/<script> ...args`; the first line it writes says what it is. */
export async function startPeer(
  name: string,
  python: string,
  script: string,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<Peer> {
  const child = Bun.spawn([python, join(PEERS, script), ...args], {
    cwd: PEERS,
    env: { ...process.env, ...QUIET, ...env },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
  let errors = "";
  const drained = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) {
      errors = (errors + decoder.decode(chunk, { stream: true })).slice(-KEPT_CHARACTERS);
    }
  })();
  const lines = linesOf(child.stdout);
  const fail = async (what: string): Promise<never> => {
    child.kill();
    await Promise.all([child.exited, drained]);
    throw new InputError(`The peer ${name} (${script}) ${what}. It wrote:\n${errors.trim() || "(nothing)"}`);
  };
  const answer = async (): Promise<Answer> => {
    const { value: line, done } = await lines.next();
    if (done) return fail("ended");
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      return fail(`answered "${line.slice(0, 200)}", which is no JSON`);
    }
    if (typeof value !== "object" || value === null) return fail(`answered ${line.slice(0, 200)}, no object`);
    const object = value as Answer;
    return typeof object.error === "string" ? fail(`failed: ${object.error}`) : object;
  };
  return {
    name,
    about: await answer(),
    async ask(request) {
      try {
        child.stdin.write(`${JSON.stringify(request)}\n`);
        await child.stdin.flush();
      } catch (error) {
        return fail(`does not listen (${messageOf(error)})`);
      }
      return answer();
    },
    async close() {
      await child.stdin.end();
      await Promise.all([child.exited, drained]);
    },
  };
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true });
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      yield rest.slice(0, end);
      rest = rest.slice(end + 1);
    }
  }
  return undefined;
}

/** A number of an answer. @throws InputError when it is none */
export function numberOf(answer: Answer, field: string): number {
  const value = answer[field];
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw new InputError(
    `a peer answered ${JSON.stringify(answer).slice(0, 200)}; expected a number "${field}".`,
  );
}
