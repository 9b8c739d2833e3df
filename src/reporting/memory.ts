/** What this process holds in memory, as the system counts it: Bun, code and mapped pages included (settled 21). */
import { readFileSync, writeFileSync } from "node:fs";

/** Pause between two looks, and the fall that is worth another: freed pages go back to the system by and by. */
const PAUSE_MS = 250;
const FALL_BYTES = 1 << 20;
const MOST_LOOKS = 8;

/** Bytes held now, without garbage. Takes half a second. */
export async function residentBytes(): Promise<number> {
  Bun.gc(true);
  let held = process.memoryUsage.rss();
  for (let i = 0; i < MOST_LOOKS; i++) {
    await Bun.sleep(PAUSE_MS);
    const now = process.memoryUsage.rss();
    const fallen = held - now;
    held = now;
    if (fallen < FALL_BYTES) break;
  }
  return held;
}

/** Counts the most bytes anew from here on (proc_pid_clear_refs(5), value 5); a system without that goes on counting. */
export function forgetMostResident(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // Not Linux, or a container that keeps /proc read-only: the figure then covers what came before, too.
  }
}

/** The most bytes held since the process began, or since `forgetMostResident` (VmHWM); null where the system does not say: only Linux does. */
export function mostResidentBytes(): number | null {
  let status: string;
  try {
    status = readFileSync("/proc/self/status", "utf8");
  } catch {
    return null;
  }
  const [, kibibytes] = /^VmHWM:\s+(\d+) kB/m.exec(status) ?? [];
  return kibibytes === undefined ? null : 1024 * Number(kibibytes);
}
