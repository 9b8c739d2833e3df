/**
 * The main thread's end of the engine: requests go in up to a bound, their events come out one request at a time, and
 * calls (load, unload) are answered.
 */
import { InputError } from "../errors.ts";
import type {
  EngineEvent,
  EngineInfo,
  EngineOptions,
  EngineStats,
  FromEngine,
  Submission,
  ToEngine,
  WeightSetInfo,
} from "./protocol.ts";

/** Where the engine is: a Worker, or this thread in tests. */
export interface EnginePort {
  post(message: ToEngine): void;
  /** Called once, before anything is posted. */
  listen(receive: (message: FromEngine) => void): void;
  terminate(): void;
}

export type EngineState = "loading" | "ready" | "failed" | "closed";

/** One request on its way. */
export interface Generation {
  readonly id: number;
  /** Ends when every choice is finished, or after `cancel`. @throws EngineFailure when the engine stops */
  events(): AsyncGenerator<EngineEvent>;
  /** One choice, or all of them; harmless when they are done. */
  cancel(choice?: number): void;
}

export interface EngineClient {
  state(): EngineState;
  /** Resolves when the model is loaded. @throws InputError when it cannot be */
  readonly ready: Promise<EngineInfo>;
  stats(): EngineStats | null;
  /** Requests that were taken and are not done. */
  outstanding(): number;
  /** All of them or, when there is no room for that many, none. */
  submit(submissions: readonly Omit<Submission, "id">[]): Generation[] | null;
  load(key: string, dir: string): Promise<WeightSetInfo>;
  unload(key: string): Promise<void>;
  cancelAll(): void;
  close(): Promise<void>;
}

/** The engine stopped in the middle of a request: a bug, and the log has it. */
export class EngineFailure extends Error {
  override readonly name = "EngineFailure";
}

export interface ClientOptions {
  readonly engine: EngineOptions;
  /** Most requests taken and not done. */
  readonly capacity: number;
  /** Every step, for metrics. */
  readonly onStep?: (stats: EngineStats, events: readonly EngineEvent[]) => void;
  /** The engine stopped by itself. */
  readonly onFailure?: (message: string) => void;
}

interface Route {
  readonly queue: EngineEvent[];
  /** Choices not finished. */
  readonly open: Set<number>;
  wake: () => void;
  ended: boolean;
}

interface Call {
  resolve(set: WeightSetInfo | null): void;
  reject(error: Error): void;
}

/** A Worker with an engine in it. */
export function workerPort(): EnginePort {
  const worker = new Worker(new URL("./worker.ts", import.meta.url));
  return {
    post: (message) => worker.postMessage(message),
    listen(receive) {
      worker.onmessage = ({ data }: MessageEvent<FromEngine>) => receive(data);
      // Without this a worker that cannot start leaves us waiting for ever.
      worker.onerror = (event) => receive({ kind: "failed", message: event.message, user: false });
    },
    terminate: () => worker.terminate(),
  };
}

export function createEngineClient(port: EnginePort, options: ClientOptions): EngineClient {
  const routes = new Map<number, Route>();
  const calls = new Map<number, Call>();
  const ready = Promise.withResolvers<EngineInfo>();
  const closed = Promise.withResolvers<void>();
  // Whoever waits sees the rejection; nobody needs to.
  ready.promise.catch(() => {});
  let state: EngineState = "loading";
  let stats: EngineStats | null = null;
  let nextId = 1;

  const end = (id: number): void => {
    const route = routes.get(id);
    if (!route) return;
    route.ended = true;
    routes.delete(id);
    route.wake();
  };
  const deliver = (event: EngineEvent): void => {
    const route = routes.get(event.id);
    if (!route) return;
    const finished = event.type === "empty" || (event.type === "token" && event.finish !== null);
    if (event.type !== "started" && event.type !== "prompt" && !route.open.has(event.choice)) return;
    route.queue.push(event);
    if (finished) route.open.delete(event.choice);
    if (route.open.size === 0) end(event.id);
    else route.wake();
  };
  const fail = (message: string, user: boolean): void => {
    closed.resolve();
    if (state === "closed") return;
    state = "failed";
    const error = user ? new InputError(message) : new EngineFailure(message);
    ready.reject(error);
    for (const id of [...routes.keys()]) end(id);
    for (const call of calls.values()) call.reject(error);
    calls.clear();
    options.onFailure?.(message);
  };

  port.listen((message) => {
    switch (message.kind) {
      case "ready":
        state = "ready";
        stats = message.stats;
        ready.resolve(message.info);
        break;
      case "step":
        stats = message.stats;
        options.onStep?.(message.stats, message.events);
        for (const event of message.events) deliver(event);
        break;
      case "answer": {
        const call = calls.get(message.call);
        calls.delete(message.call);
        if (message.refusal === null) call?.resolve(message.set);
        else call?.reject(new InputError(message.refusal));
        break;
      }
      case "failed":
        fail(message.message, message.user);
        break;
      case "closed":
        closed.resolve();
        break;
    }
  });
  port.post({ kind: "open", options: options.engine });

  const cancel = (id: number, choice: number | null): void => {
    const route = routes.get(id);
    if (!route) return;
    port.post({ kind: "cancel", id, choice });
    if (choice === null) route.open.clear();
    else route.open.delete(choice);
    if (route.open.size === 0) end(id);
  };
  const start = (submission: Omit<Submission, "id">): Generation => {
    const id = nextId++;
    const open = new Set(Array.from({ length: submission.choices }, (_, i) => i));
    const route: Route = { queue: [], open, wake: () => {}, ended: false };
    routes.set(id, route);
    port.post({ kind: "submit", submission: { ...submission, id } });
    return {
      id,
      events: () => eventsOf(route, () => state),
      cancel: (choice) => cancel(id, choice ?? null),
    };
  };
  const ask = (make: (call: number) => ToEngine): Promise<WeightSetInfo | null> => {
    if (state !== "ready") return Promise.reject(new EngineFailure("the engine does not run"));
    const call = nextId++;
    return new Promise((resolve, reject) => {
      calls.set(call, { resolve, reject });
      port.post(make(call));
    });
  };

  return {
    state: () => state,
    ready: ready.promise,
    stats: () => stats,
    outstanding: () => routes.size,
    submit(submissions) {
      if (state !== "ready") throw new EngineFailure("the engine does not run");
      return routes.size + submissions.length > options.capacity ? null : submissions.map(start);
    },
    async load(key, dir) {
      const set = await ask((call) => ({ kind: "load", call, key, dir }));
      if (!set) throw new EngineFailure("a load was answered without a weight set");
      return set;
    },
    async unload(key) {
      await ask((call) => ({ kind: "unload", call, key }));
    },
    cancelAll() {
      for (const id of [...routes.keys()]) cancel(id, null);
    },
    async close() {
      if (state === "closed") return;
      const running = state === "ready" || state === "loading";
      state = "closed";
      for (const id of [...routes.keys()]) end(id);
      if (running) port.post({ kind: "close" });
      else closed.resolve();
      await closed.promise;
      port.terminate();
    },
  };
}

async function* eventsOf(route: Route, state: () => EngineState): AsyncGenerator<EngineEvent> {
  for (;;) {
    while (route.queue.length > 0) yield route.queue.shift()!;
    if (route.ended) break;
    await new Promise<void>((resolve) => {
      route.wake = resolve;
    });
  }
  if (state() === "failed" && route.open.size > 0) throw new EngineFailure("the engine stopped");
}
