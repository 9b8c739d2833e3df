import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

function text(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}

/** CPUs a cgroup's quota is worth, from `cpu.max` ("200000 100000", "max 100000"); Infinity without a limit. */
export function quotaOf(cpuMax: string): number {
  const [quota, period] = cpuMax.split(/\s+/).map(Number);
  return quota !== undefined && period !== undefined && quota > 0 && period > 0 ? quota / period : Infinity;
}

function cgroupQuota(): number {
  const root = "/sys/fs/cgroup";
  let quota = quotaOf(text(`${root}/cpu.max`));
  // Outside a container the limit stands in this process's own group or one above it.
  const own = /^0::(.*)$/m.exec(text("/proc/self/cgroup"))?.[1] ?? "/";
  const parts = own.split("/").filter((part) => part !== "");
  for (let depth = parts.length; depth > 0; depth--) {
    quota = Math.min(quota, quotaOf(text(`${root}/${parts.slice(0, depth).join("/")}/cpu.max`)));
  }
  const version1 = `${text(`${root}/cpu/cpu.cfs_quota_us`)} ${text(`${root}/cpu/cpu.cfs_period_us`)}`;
  return Math.min(quota, quotaOf(version1));
}

/** Cores this process may use: affinity (taskset, cpuset) and the cgroup's CPU quota, rounded up; at least 1. */
export function usableCores(): number {
  const affinity = availableParallelism();
  const quota = process.platform === "linux" ? Math.ceil(cgroupQuota()) : affinity;
  return Math.max(1, Math.min(affinity, quota));
}
