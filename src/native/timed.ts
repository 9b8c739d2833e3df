/** A device whose native calls are timed, one by one: where a training step spends its time. */
import type { Device } from "./device.ts";
import type { NativeSymbols } from "./symbols.ts";

export interface CallTimes {
  calls: number;
  /** Sum over the calls. */
  milliseconds: number;
}

export interface TimedDevice {
  /** Takes the place of the given device, which must not be used or closed besides. */
  readonly device: Device;
  /** By exported function, since the last `reset`. */
  readonly times: ReadonlyMap<string, CallTimes>;
  reset(): void;
}

/** Good for backends whose ops are done when they return; elsewhere the time of a call is that of issuing it. */
export function timeCalls(device: Device): TimedDevice {
  const times = new Map<string, CallTimes>();
  const timed = ([name, call]: [string, (...values: never[]) => unknown]): [string, unknown] => {
    const entry = { calls: 0, milliseconds: 0 };
    times.set(name, entry);
    const measured = (...values: never[]): unknown => {
      const start = performance.now();
      const result = call(...values);
      entry.milliseconds += performance.now() - start;
      entry.calls++;
      return result;
    };
    return [name, measured];
  };
  const symbols = Object.fromEntries(
    Object.entries(device.symbols).map(timed as (entry: [string, unknown]) => [string, unknown]),
  );
  return {
    device: { ...device, symbols: symbols as unknown as NativeSymbols },
    times,
    reset() {
      for (const entry of times.values()) {
        entry.calls = 0;
        entry.milliseconds = 0;
      }
    },
  };
}
