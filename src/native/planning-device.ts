/**
 * A device that computes nothing and counts memory: every op succeeds, allocations get addresses that are never read.
 * Running a pass on it gives the exact memory plan of that pass, from the very code that will run (`--dry-run`).
 */
import type { Device } from "./device.ts";
import { type NativeSymbols, SIGNATURES } from "./symbols.ts";

/** Far from 0 and below every check on addresses. */
const FIRST_ADDRESS = 2 ** 32;

export interface PlanningDevice extends Device {
  /** Bytes of sb_alloc memory alive and at most; weights and workspace are not in it. */
  readonly memory: { alive: number; peak: number };
}

export function openPlanningDevice(realBytes: 4 | 8 = 4): PlanningDevice {
  const memory = { alive: 0, peak: 0 };
  const sizes = new Map<number, number>();
  let next = FIRST_ADDRESS;
  const overrides: Partial<NativeSymbols> = {
    sb_last_error: () => "",
    sb_alloc(_context, bytes, out) {
      (out as BigInt64Array)[0] = BigInt(next);
      sizes.set(next, bytes);
      next += Math.ceil(bytes / 64) * 64;
      memory.alive += bytes;
      memory.peak = Math.max(memory.peak, memory.alive);
      return 0;
    },
    sb_free(_context, address) {
      memory.alive -= sizes.get(address as number) ?? 0;
      sizes.delete(address as number);
      return 0;
    },
    sb_weight_create(_context, _data, _dtype, _out, _in, _compute, weight) {
      (weight as BigInt64Array)[0] = 1n;
      return 0;
    },
  };
  const nothing = (): number => 0;
  const symbols = Object.fromEntries(
    Object.keys(SIGNATURES).map((name) => [name, overrides[name as keyof NativeSymbols] ?? nothing]),
  ) as unknown as NativeSymbols;
  return {
    name: "plan",
    backend: "plan",
    isa: "none",
    isas: ["none"],
    threads: 1,
    realBytes,
    nativeBf16: false,
    symbols,
    context: 1,
    memory,
  };
}
