/** The machine first: what its registers and its memory can do, and how busy it is with other things. */
import { readdirSync, readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import type { Compute } from "../../src/adapters/adapter.ts";
import type { Device } from "../../src/native/device.ts";
import { openPeakLibrary } from "../../src/native/peaks.ts";
import { type Summary, summarize } from "../../src/reporting/statistics.ts";
import { measureDevice } from "./device-peaks.ts";
import { formatFigure } from "./report.ts";

export interface Machine {
  /** GFLOP/s of all threads, multiply-adds between registers. */
  readonly f32: Summary;
  readonly bf16: Summary;
  /** GB/s of all threads, reading a buffer larger than the last cache. */
  readonly bandwidth: Summary;
  readonly lastCacheBytes: number;
  /** Processes waiting for a core, mean of the last minute, before anything was measured. */
  readonly load: number;
  /** One more sample, to stand beside a measurement. */
  flops(compute: Compute): number;
  read(): number;
  close(): void;
}

const SAMPLES = 5;
const SAMPLE_SECONDS = 0.1;
/** Beside a measurement: short, since there are many. */
const SHORT_SECONDS = 0.02;
const LEAST_BUFFER = 256 << 20;
const QUICK_BUFFER = 16 << 20;
const MOST_BUFFER = 2 ** 31;
/** A machine that does other things gives figures that nobody gets again. */
const QUIET_LOAD = 0.3;

export async function measureMachine(device: Device, quick: boolean): Promise<Machine> {
  if (device.backend.startsWith("cuda")) return measureDevice(device, quick);
  const library = await openPeakLibrary();
  const load = loadavg()[0]!;
  const lastCacheBytes = lastCache();
  const buffer = library.openBuffer(streamBytes(lastCacheBytes, quick), device.threads);
  const samples = (take: () => number): Summary =>
    summarize(Array.from({ length: quick ? 2 : SAMPLES }, take));
  const giga = (compute: Compute, seconds: number): number => library.flops(device, compute, seconds) / 1e9;
  const seconds = quick ? SHORT_SECONDS : SAMPLE_SECONDS;
  buffer.read();
  return {
    f32: samples(() => giga("f32", seconds)),
    bf16: samples(() => giga("bf16", seconds)),
    bandwidth: samples(() => buffer.read() / 1e9),
    lastCacheBytes,
    load,
    flops: (compute) => giga(compute, SHORT_SECONDS),
    read: () => buffer.read() / 1e9,
    close: () => buffer.close(),
  };
}

/** Bytes to cycle through so that the last cache holds little of them. */
export function streamBytes(cacheBytes: number, quick: boolean): number {
  if (quick) return QUICK_BUFFER;
  return Math.min(MOST_BUFFER, Math.max(LEAST_BUFFER, 4 * cacheBytes));
}

/** Largest cache of the first processor; 32 MiB where the system does not say. */
function lastCache(): number {
  const root = "/sys/devices/system/cpu/cpu0/cache";
  let largest = 0;
  try {
    for (const index of readdirSync(root).filter((name) => name.startsWith("index"))) {
      const [, number, unit] = /^(\d+)([KM]?)/.exec(readFileSync(join(root, index, "size"), "utf8")) ?? [];
      const bytes = Number(number ?? 0) * (unit === "M" ? 2 ** 20 : unit === "K" ? 2 ** 10 : 1);
      largest = Math.max(largest, bytes);
    }
  } catch {
    // no such folder there
  }
  return largest || 32 << 20;
}

export function describeMachine(device: Device, machine: Machine): string[] {
  const { f32, bf16, bandwidth, lastCacheBytes, load } = machine;
  const shown = ({ median, spread }: Summary): string =>
    `${formatFigure(median)} (± ${(50 * spread).toFixed(0)} %)`;
  const lines = [
    `processor  ${device.name}, ${device.isa} of ${device.isas.join(", ")}, ${device.threads} threads`,
    `peak       f32 ${shown(f32)} GFLOP/s, bf16 ${shown(bf16)} GFLOP/s${device.nativeBf16 ? "" : " (computed in f32)"}`,
    `reading    ${shown(bandwidth)} GB/s, last cache ${(lastCacheBytes / 2 ** 20).toFixed(0)} MiB`,
  ];
  if (load > QUIET_LOAD)
    lines.push(
      `WARNING    load average ${load.toFixed(1)}: other processes are running, and these figures are theirs too`,
    );
  return lines;
}
