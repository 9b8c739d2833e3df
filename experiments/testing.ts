/** For tests: what a running cell tells, written down. */
import type { CellWatch } from "./run-cell.ts";

export function watching(
  shouldStop = (): boolean => false,
): CellWatch & { steps: number[]; tasks: Set<string> } {
  const steps: number[] = [];
  const tasks = new Set<string>();
  return {
    steps,
    tasks,
    shouldStop,
    onStep: ({ step }) => void steps.push(step),
    onEvaluate: (task) => void tasks.add(task),
  };
}
