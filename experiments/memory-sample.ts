/** Runs one training process and samples what it holds, from /proc: one curve of Figure 3 or 4. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import type { MemoryEvent, MemoryRequest } from "./memory-child.ts";

/** What a process was seen to do. Bytes and seconds; the clock starts at the first step. */
export interface MemoryRun {
  readonly start: Extract<MemoryEvent, { event: "start" }>;
  /** [seconds, bytes resident] */
  readonly samples: readonly (readonly [number, number])[];
  /** Seconds of every optimizer step, in order. */
  readonly steps: readonly number[];
  readonly tokens: number;
  /** From the first step's beginning to the last one's end. */
  readonly seconds: number;
  /** Most bytes resident by the end of the last step (VmHWM): loading included. */
  readonly peak: number;
  /** Processor seconds of the process while it trained. */
  readonly processorSeconds: number;
  /** Share of the machine's processor time that went to other processes meanwhile. */
  readonly othersShare: number;
}

export interface SampleOptions {
  /** Milliseconds between two samples. */
  readonly period: number;
  readonly onStep?: (step: number, of: number) => void;
  readonly shouldStop?: () => boolean;
}

const CHILD = join(import.meta.dir, "memory-child.ts");
/** As many samples as a picture can show. */
const MOST_SAMPLES = 400;
/** Kernel ticks a second, on every Linux there is (`getconf CLK_TCK`). */
const TICKS = 100;

/** null when asked to stop. @throws InputError with the child's own words when it fails, and where there is no /proc */
export async function sampleRun(request: MemoryRequest, options: SampleOptions): Promise<MemoryRun | null> {
  if (!existsSync("/proc/self/status")) {
    throw new InputError("memory is sampled from /proc, which only Linux has; run this on Linux.");
  }
  const child = Bun.spawn([process.execPath, "run", CHILD, JSON.stringify(request)], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const words = new Response(child.stderr).text();
  const samples: [number, number][] = [];
  const steps: number[] = [];
  let began: { event: MemoryRun["start"]; at: number; ticks: number; machine: Ticks } | null = null;
  let end: Omit<MemoryRun, "start" | "samples" | "steps" | "tokens"> | null = null;
  let tokens = 0;
  let stopped = false;
  const timer = setInterval(() => {
    if (options.shouldStop?.()) {
      stopped = true;
      child.kill();
    }
    const memory = began && !end ? memoryOf(child.pid) : null;
    if (began && memory) samples.push([(performance.now() - began.at) / 1000, memory.resident]);
  }, options.period);
  try {
    for await (const event of eventsOf(child.stdout)) {
      if (event.event === "start") {
        began = { event, at: performance.now(), ticks: ticksOf(child.pid), machine: machineTicks() };
        continue;
      }
      if (!began) throw new Error("a step before the start");
      steps.push(event.seconds);
      tokens += event.tokens;
      options.onStep?.(event.step, began.event.steps);
      if (event.step < began.event.steps) continue;
      const seconds = (performance.now() - began.at) / 1000;
      const memory = memoryOf(child.pid);
      if (!memory) throw new Error("the process ended before it was looked at");
      samples.push([seconds, memory.resident]);
      const own = ticksOf(child.pid) - began.ticks;
      const all = machineTicks();
      const busy = all.busy - began.machine.busy;
      const total = Math.max(1, all.total - began.machine.total);
      end = {
        seconds,
        // The kernel counts the two at different moments.
        peak: Math.max(memory.most, ...samples.map(([, bytes]) => bytes)),
        processorSeconds: own / TICKS,
        othersShare: Math.max(0, busy - own) / total,
      };
    }
    const code = await child.exited;
    if (stopped) return null;
    if (code !== 0 || !began || !end)
      throw new InputError((await words).trim() || `the run ended with code ${code}`);
    return { start: began.event, samples: thinned(samples, MOST_SAMPLES), steps, tokens, ...end };
  } finally {
    clearInterval(timer);
    child.kill();
  }
}

async function* eventsOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<MemoryEvent> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines.filter(Boolean)) yield JSON.parse(line) as MemoryEvent;
  }
}

/** Bytes; null when the process is gone. */
function memoryOf(pid: number): { resident: number; most: number } | null {
  try {
    return parseStatus(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return null;
  }
}

/** VmRSS and VmHWM of a /proc/PID/status, bytes; null for a process that has given its memory back. */
export function parseStatus(status: string): { resident: number; most: number } | null {
  const [resident, most] = ["VmRSS", "VmHWM"].map((name) => {
    const [, kibibytes] = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status) ?? [];
    return kibibytes === undefined ? null : 1024 * Number(kibibytes);
  });
  return resident && most ? { resident, most } : null;
}

/** User and system ticks of a process. */
function ticksOf(pid: number): number {
  // The second field, the name, may hold blanks and brackets.
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

interface Ticks {
  readonly busy: number;
  readonly total: number;
}

function machineTicks(): Ticks {
  return parseMachine(readFileSync("/proc/stat", "utf8"));
}

/** The first line of /proc/stat: user nice system idle iowait irq softirq steal, all processors. */
export function parseMachine(stat: string): Ticks {
  const fields = stat.split("\n", 1)[0]!.split(/\s+/).slice(1, 9).map(Number);
  const total = fields.reduce((sum, ticks) => sum + ticks, 0);
  return { busy: total - fields[3]! - fields[4]!, total };
}

/** At most `count` samples: of every stretch the highest, and the last one as it is. */
export function thinned(samples: readonly [number, number][], count: number): [number, number][] {
  if (samples.length <= count) return [...samples];
  const size = Math.ceil(samples.length / (count - 1));
  const kept: [number, number][] = [];
  for (let i = 0; i < samples.length - 1; i += size) {
    const stretch = samples.slice(i, Math.min(i + size, samples.length - 1));
    kept.push(stretch.reduce((best, sample) => (sample[1] > best[1] ? sample : best)));
  }
  return [...kept, samples.at(-1)!];
}
