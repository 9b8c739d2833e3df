/** Tables as lists of cells that can run one by one, on any machine: what `cell.ts` has to know of a table. */
import type { ArgsDef, ParsedArgs } from "citty";
import type { Device } from "../src/native/device.ts";
import { type AnyCell, type CellFile, type CellPlace, readCell } from "./cell-file.ts";
import { mmluTable } from "./mmlu-table.ts";
import { type RerunFlags, reopenTaskCell } from "./rerun-cell.ts";
import { type CellWatch, runCell } from "./run-cell.ts";
import { titleOf } from "./run-progress.ts";
import { openStudy } from "./study.ts";
import { STUDY_ARGS, studyFlags } from "./table-command.ts";
import { arithmetic, commonsense, type TaskTable } from "./task-tables.ts";

export interface ListedCell {
  readonly title: string;
  readonly place: CellPlace;
  /** null where it is not finished. @throws InputError when the file belongs to another recipe */
  readonly read: () => AnyCell | null;
  /** The finished cell, or null when it was asked to stop. */
  readonly run: (watch: CellWatch) => Promise<AnyCell | null>;
}

export interface CellTable {
  /** Flags that say which cells there are. */
  readonly args: ArgsDef;
  readonly open: (device: Device, args: Record<string, unknown>) => readonly ListedCell[];
  /** A cell from its own file, to be made once more at `place`. @throws InputError for another model or other data */
  readonly reopen: (device: Device, stored: AnyCell, place: CellPlace, flags: RerunFlags) => ListedCell;
}

function taskTable(table: TaskTable): CellTable {
  return {
    args: STUDY_ARGS,
    open(device, args) {
      const { preset, flags } = studyFlags(table, args as ParsedArgs<typeof STUDY_ARGS>);
      const study = openStudy(device, table, preset, flags);
      return study.cells.map((plan) => ({
        title: titleOf(plan),
        place: plan.place,
        read: () => readCell(plan.place, plan.recipe),
        run: (watch) => runCell(study, plan, watch),
      }));
    },
    reopen: (device, stored, place, flags) => reopenTaskCell(device, table, stored as CellFile, place, flags),
  };
}

/** By name. A new table's cells run in an array with a line here. */
export const cellTables: ReadonlyMap<string, CellTable> = new Map([
  ["table3", taskTable(commonsense)],
  ["table4", taskTable(arithmetic)],
  ["table5", mmluTable],
]);
