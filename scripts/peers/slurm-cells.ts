/** What check_slurm.ts looks at: the files that a cell leaves, and the processes at work on it. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { CellPlace } from "../../experiments/cell-file.ts";
import { stepsIn } from "../../experiments/cell-work.ts";

/** "" where there is no such file. */
export function textOf(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

const metricsOf = ({ work }: CellPlace): string => join(work, "train", "metrics.jsonl");

/** A line for every step; the times in it make it that of one run and no other's. */
export function trainedSteps(place: CellPlace): string[] {
  return textOf(metricsOf(place)).split("\n").filter(Boolean);
}

/** Whether every step of a run stands there, each once. */
export function eachStepOnce(place: CellPlace, steps: number): boolean {
  try {
    return stepsIn(metricsOf(place)).length === steps;
  } catch {
    return false;
  }
}

export function isSaved({ work }: CellPlace): boolean {
  return existsSync(join(work, "train", "checkpoint", "state.safetensors"));
}

/** Files of its lock, those of dead owners too. */
export function ownersOf({ work }: CellPlace): string[] {
  return readdirSync(work).filter((name) => name.startsWith("owner."));
}

/** Processes at work on a cell or waiting for it, by their numbers on this machine, whatever they are on their node. */
export function processesOf(out: string, index: number): number[] {
  const numbers = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const flags = ["--out", out, "--index", `${index}`, ""].join("\0");
  return numbers.filter((pid) => commandOf(pid).endsWith(flags)).map(Number);
}

/** The process that started it: of a cell the batch script. */
export function parentOf(pid: number): number {
  return Number(/^PPid:\s*(\d+)$/m.exec(textOf(`/proc/${pid}/status`))?.[1]);
}

/** Words with a zero behind each; "" of a process that has just ended. */
function commandOf(pid: string): string {
  try {
    return readFileSync(join("/proc", pid, "cmdline"), "utf8");
  } catch {
    return "";
  }
}

/** Whether two cells are the same bytes but for what stands under `timing`. */
export function sameBytes(a: CellPlace, b: CellPlace): boolean {
  const [ours, theirs] = [a, b].map((place) => {
    const { timing: _, ...cell } = JSON.parse(textOf(place.json)) as Record<string, unknown>;
    return [JSON.stringify(cell), textOf(place.predictions), textOf(place.losses)];
  });
  return ours!.every((text, i) => text === theirs![i]);
}

export function threadsOf(place: CellPlace): number {
  return (JSON.parse(textOf(place.json)) as { timing: { threads: number } }).timing.threads;
}
