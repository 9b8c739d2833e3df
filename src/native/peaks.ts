/**
 * What the machine can do at best: multiply-adds between registers and reading memory, from `kernels/bench/peaks.cpp`.
 * Benchmarks put their figures beside these; nothing that ships calls them.
 */
import { dlopen } from "bun:ffi";
import { InputError } from "../errors.ts";
import { buildLibrary } from "./build.ts";
import type { Real } from "./check.ts";
import { type Device, requireCount } from "./device.ts";

/** In the order of the native levels. */
const LEVELS = ["portable", "avx2", "avx512", "avx512bf16"];
/** A read buffer is cut between the threads in multiples of this. */
const READ_BLOCK = 512;

interface Symbols {
  readonly sb_bench_flops: (
    level: number,
    bf16: number,
    threads: number,
    seconds: number,
    rate: Float64Array,
  ) => number;
  readonly sb_bench_open_buffer: (bytes: number, threads: number, out: BigInt64Array) => number;
  readonly sb_bench_read_buffer: (buffer: number, rate: Float64Array) => number;
  readonly sb_bench_close_buffer: (buffer: number) => void;
}

export interface PeakLibrary {
  /** Floating-point operations a second of `device`'s threads together, a multiply-add counted as two. */
  flops(device: Device, compute: Real, seconds: number): number;
  /** Opens `bytes` of memory, at best several times what the caches hold; `read` gives bytes a second of one pass. */
  openBuffer(bytes: number, threads: number): ReadBuffer;
}

export interface ReadBuffer {
  readonly bytes: number;
  read(): number;
  close(): void;
}

/** Compiles `kernels/bench` on first use and opens it. */
export async function openPeakLibrary(): Promise<PeakLibrary> {
  const path = await buildLibrary("bench");
  const symbols = dlopen(path, {
    sb_bench_flops: { args: ["i32", "i32", "i32", "f64", "ptr"], returns: "i32" },
    sb_bench_open_buffer: { args: ["i64", "i32", "ptr"], returns: "i32" },
    sb_bench_read_buffer: { args: ["ptr", "ptr"], returns: "i32" },
    sb_bench_close_buffer: { args: ["ptr"], returns: "void" },
  }).symbols as unknown as Symbols;
  const rate = new Float64Array(1);
  return {
    flops(device, compute, seconds) {
      // The reference has one form; what it could reach is the portable level's.
      const level = Math.max(0, LEVELS.indexOf(device.isa));
      const status = symbols.sb_bench_flops(level, compute === "bf16" ? 1 : 0, device.threads, seconds, rate);
      if (status !== 0) throw new InputError(`The peak of ${device.isa} could not be measured (${status}).`);
      return rate[0]!;
    },
    openBuffer(bytes, threads) {
      const least = READ_BLOCK * threads;
      if (requireCount("openBuffer: bytes", bytes) < least) {
        throw new TypeError(`openBuffer: ${bytes} bytes for ${threads} threads; expected at least ${least}.`);
      }
      const out = new BigInt64Array(1);
      if (symbols.sb_bench_open_buffer(bytes, threads, out) !== 0) {
        throw new InputError(
          `No memory for a buffer of ${bytes} bytes to measure the read bandwidth with; free some and try again.`,
        );
      }
      const handle = Number(out[0]);
      return {
        bytes,
        read() {
          if (symbols.sb_bench_read_buffer(handle, rate) !== 0)
            throw new InputError("The read bandwidth could not be measured: no threads could be started.");
          return rate[0]!;
        },
        close: () => symbols.sb_bench_close_buffer(handle),
      };
    },
  };
}
