/** What somebody sees while the cells of a table run: one line on stderr, a lasting one for every finished cell. */
import { existsSync } from "node:fs";
import { exitCodeOf, type StopState } from "../scripts/stop.ts";
import { commandLine } from "../src/reporting/manifest.ts";
import { formatSeconds, type Progress, startProgress } from "../src/reporting/progress.ts";
import type { CellFile } from "./cell-file.ts";
import { methodTitle } from "./parameters.ts";
import type { CellPlan, CellWatch } from "./run-cell.ts";
import type { OpenedStudy } from "./study.ts";

export interface CellsProgress {
  /** Callbacks of the cell that starts now. */
  watch(plan: CellPlan): CellWatch;
  finished(cell: CellFile): void;
  end(): void;
}

export function watchCells(study: OpenedStudy, shouldStop: () => boolean): CellsProgress {
  const line = watchLines(study.cells.length, shouldStop);
  return {
    watch: (plan) => line.watch(titleOf(plan), plan.place.json),
    finished(cell) {
      const average = averageOf(cell);
      const loss = cell.tasks.heldOut?.merged;
      const facts = [
        average === null ? "" : `average ${average.toFixed(1)} %`,
        loss === undefined ? "" : `held-out loss ${loss.toFixed(3)}`,
      ];
      line.finished(facts, cell.recipe.training !== null);
    },
    end: line.end,
  };
}

/** The same for cells of any kind. */
export interface LinesProgress {
  watch(title: string, json: string): CellWatch;
  /** `costly`: its time says something about the cells to come. */
  finished(facts: readonly string[], costly: boolean): void;
  end(): void;
}

export function watchLines(total: number, shouldStop: () => boolean): LinesProgress {
  const notes = new Set<string>();
  let line: { label: string; progress: Progress } | null = null;
  let number = 0;
  let started = 0;
  let label = "";
  let known = false;
  /** Cells that really ran, base not counted, and their seconds. */
  const ran = { cells: 0, seconds: 0 };

  const show = (what: string, of: number, unit: string, done: number, note = ""): void => {
    if (line?.label !== what) {
      line?.progress.end();
      line = { label: what, progress: startProgress(`${label}: ${what}`, of, unit, done - 1) };
    }
    line.progress.update(done, note);
  };
  const clear = (): void => {
    line?.progress.end();
    line = null;
  };
  return {
    watch(title, json) {
      number++;
      // A cell read from its file says nothing about how long the others take.
      known = existsSync(json);
      started = performance.now();
      label = total > 1 ? `[${number}/${total}] ${title}` : title;
      return {
        shouldStop,
        onStep: ({ step, loss }, steps) => show("training", steps, "steps", step, `loss ${loss.toFixed(3)}`),
        onEvaluate: (task, done, of) => show(task, of, "answers", done),
        onNote(text) {
          if (notes.has(text)) return;
          notes.add(text);
          clear();
          process.stderr.write(`note: ${text}\n`);
        },
      };
    },
    finished(facts, costly) {
      clear();
      const seconds = (performance.now() - started) / 1000;
      if (!known && costly) {
        ran.cells++;
        ran.seconds += seconds;
      }
      const left = ran.cells > 0 ? ((total - number) * ran.seconds) / ran.cells : null;
      const shown = [
        ...facts,
        known ? "was finished already" : formatSeconds(seconds),
        left === null || number === total ? "" : `about ${formatSeconds(left)} left`,
      ];
      process.stderr.write(`${label}: ${shown.filter(Boolean).join(", ")}\n`);
    },
    end: clear,
  };
}

export function titleOf({ recipe }: Pick<CellPlan, "recipe">): string {
  const { training } = recipe;
  return training ? `${methodTitle(training.method)} r=${training.rank} seed ${training.seed}` : "base model";
}

/** Mean of the generated answers' accuracy over the tasks that are there. */
function averageOf({ tasks }: CellFile): number | null {
  const values = Object.values(tasks.sets).flatMap((set) => set?.scores.generation?.accuracy ?? []);
  return values.length > 0 ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

/** Says how to go on, and sets the exit code of a process that a signal has ended. */
export function sayStopped({ signal }: StopState): void {
  console.error(`stopped; the same command goes on from here:\n  ${commandLine()}`);
  process.exitCode = exitCodeOf(signal ?? "SIGINT");
}
