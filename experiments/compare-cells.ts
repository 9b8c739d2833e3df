/** Two files of one cell side by side: what has to be equal whenever a recipe is run again, and what may differ. */
import { differing } from "../src/training/recipe.ts";
import {
  type AnyCell,
  type CellManifest,
  type CellPlace,
  readLosses,
  readPredictions,
  readWhole,
  type StoredLoss,
  type StoredPrediction,
} from "./cell-file.ts";

/** A finished cell with all that lies beside it. */
export interface WholeCell {
  readonly cell: AnyCell & { readonly manifest: CellManifest };
  readonly predictions: readonly StoredPrediction[];
  /** Empty where they were not kept. */
  readonly losses: readonly StoredLoss[];
}

/** @throws InputError when a part is missing or damaged */
export function readWholeCell(place: CellPlace): WholeCell {
  const cell = readWhole(place.json) as WholeCell["cell"];
  return { cell, predictions: readPredictions(place), losses: readLosses(place) };
}

/** Where tasks, predictions, losses and the facts of the training differ: nowhere, on one instruction set and commit. */
export function differentResults(old: WholeCell, now: WholeCell): string[] {
  const { losses } = old;
  return [
    ...differing(resultsOf(old), resultsOf(now)),
    ...differentLines("predictions", old.predictions, now.predictions),
    // Cells of earlier versions have none.
    ...(losses.length > 0 ? differentLines("losses", losses, now.losses) : []),
  ];
}

/** What the cell says of its results; how much memory was planned for belongs to the version of the code. */
function resultsOf({ cell }: WholeCell): object {
  const { manifest, timing: _, ...results } = cell as WholeCell["cell"] & { timing?: unknown };
  const { planned: __, ...trained } = manifest.trained ?? {};
  return { ...results, trained };
}

function differentLines(what: string, old: readonly object[], now: readonly object[]): string[] {
  if (old.length !== now.length) return [`${what} (${old.length} lines, now ${now.length})`];
  return old.flatMap((line, i) => differing(line, now[i], `${what}[${i}]`));
}

type Circumstances = Pick<CellManifest, "sbora" | "commit" | "bun" | "platform" | "processor" | "isa">;

/** Where two runs were made by other code or on another machine. */
export function differentCircumstances(old: Circumstances, now: Circumstances): string[] {
  const of = ({ sbora, commit, bun, platform, processor, isa }: Circumstances): Circumstances => {
    return { sbora, commit, bun, platform, processor, isa };
  };
  return differing(of(old), of(now));
}

/** Why equality is not promised here; null where it is (settled 18). */
export function noPromise(old: Circumstances, now: Circumstances): string | null {
  if (old.isa !== now.isa || old.platform !== now.platform) {
    return (
      `the cell was made with ${old.isa} on ${old.platform}, this machine computes with ${now.isa} on ${now.platform}: ` +
      "equal bytes are promised on one instruction set"
    );
  }
  if (old.commit === now.commit && old.sbora === now.sbora && !now.commit?.endsWith("+dirty")) return null;
  return (
    `the cell was made at commit ${old.commit ?? "(none)"}, this is ${now.commit ?? "no checkout"}: code that decides ` +
    "numbers may have changed in between"
  );
}
