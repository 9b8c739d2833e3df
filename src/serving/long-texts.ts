/**
 * Long texts, tokenized where they keep nobody waiting: a megabyte takes seconds, and the main thread answers everybody.
 * A Worker cannot import packages without an install (settled 29), so it gets a bundle, whose packages are looked up
 * from here, where they can be. It is started by a long text, and ends when none has come for a while: a megabyte leaves
 * hundreds of them in its heap.
 */
import { join } from "node:path";
import { InputError } from "../errors.ts";
import { ApiError, badRequest } from "./errors.ts";
import type { TextJob, TextResult } from "./text-job.ts";

export interface ToTextWorker {
  /** Model folder. */
  readonly dir: string;
  readonly job: TextJob;
}

/** `refusal`: a sentence for the user, in place of a result. */
export interface FromTextWorker {
  readonly result: TextResult | null;
  readonly refusal: string | null;
}

export interface LongTexts {
  /** One job at a time. @throws ApiError 400 when it takes too long or its client has gone, 429; InputError */
  run(job: TextJob, signal: AbortSignal): Promise<TextResult>;
  close(): void;
}

interface Waiting {
  readonly job: TextJob;
  readonly signal: AbortSignal;
  resolve(result: TextResult): void;
  reject(error: Error): void;
}

/** Some texts without a space cost a hundred times what prose does; nobody may hold the thread for ever. */
const TIME_LIMIT_MS = 20_000;
const IDLE_MS = 30_000;
/** Texts that may wait, a body of memory each. */
const MAX_WAITING = 32;

export function createLongTexts(dir: string, limitMs = TIME_LIMIT_MS, idleMs = IDLE_MS): LongTexts {
  const queue: Waiting[] = [];
  let worker: Worker | null = null;
  let busy = false;
  let idle: ReturnType<typeof setTimeout> | undefined;

  const stop = (): void => {
    clearTimeout(idle);
    worker?.terminate();
    worker = null;
  };
  const one = async ({ job, signal, resolve, reject }: Waiting): Promise<void> => {
    if (signal.aborted) return reject(badRequest("The client has gone.", null, "client_closed"));
    try {
      worker ??= new Worker(await bundle());
      resolve(await answerOf(worker, { dir, job }, limitMs));
    } catch (error) {
      // A refusal leaves it as it was; after anything else nobody knows what state it is in.
      if (!(error instanceof InputError)) stop();
      reject(error as Error);
    }
  };
  const work = async (): Promise<void> => {
    if (busy) return;
    busy = true;
    clearTimeout(idle);
    for (let next = queue.shift(); next; next = queue.shift()) await one(next);
    busy = false;
    idle = setTimeout(stop, idleMs);
    idle.unref();
  };
  return {
    run: (job, signal) =>
      new Promise((resolve, reject) => {
        if (queue.length >= MAX_WAITING) throw tooMany();
        queue.push({ job, signal, resolve, reject });
        void work();
      }),
    close: stop,
  };
}

function tooMany(): ApiError {
  const message = `${MAX_WAITING} long texts are waiting already; try again in 5 s.`;
  return new ApiError(429, message, "queue_full", null, { "Retry-After": "5" });
}

function answerOf(worker: Worker, message: ToTextWorker, limitMs: number): Promise<TextResult> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      const seconds = limitMs / 1000;
      reject(
        badRequest(`This text takes more than ${seconds} s to tokenize; shorten it.`, null, "text_too_long"),
      );
    }, limitMs);
    worker.onmessage = ({ data: { result, refusal } }: MessageEvent<FromTextWorker>) => {
      clearTimeout(late);
      if (result) resolve(result);
      else reject(new InputError(refusal ?? ""));
    };
    worker.onerror = (event) => {
      clearTimeout(late);
      reject(new Error(`the thread of long texts: ${event.message}`));
    };
    worker.postMessage(message);
  });
}

let script: Promise<string> | null = null;

function bundle(): Promise<string> {
  script ??= build().catch((error: unknown) => {
    script = null;
    throw error;
  });
  return script;
}

async function build(): Promise<string> {
  const { outputs } = await Bun.build({
    entrypoints: [join(import.meta.dir, "text-worker.ts")],
    target: "bun",
    plugins: [
      {
        name: "packages as this thread finds them",
        setup(builder) {
          builder.onResolve({ filter: /^@huggingface\// }, ({ path }) => ({
            path: Bun.resolveSync(path, import.meta.dir),
          }));
        },
      },
    ],
  });
  const code = await outputs[0]!.text();
  return URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
}
