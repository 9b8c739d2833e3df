/** Losses while training as pictures narrow enough for a phone. */
import type { StoredLoss, TaskCell } from "../../experiments/cell-file.ts";
import { methodTitle } from "../../experiments/parameters.ts";
import { methodColour, rowTitle } from "../../experiments/table-picture.ts";
import { type Curve, curveChart } from "../../src/reporting/curves.ts";

/** Steps of the training loss that are drawn as their mean. */
const SMOOTHED = 20;
const MOST_POINTS = 15;
const PLOT_WIDTH = 235;

/** A cell of any table with its losses by step. */
export interface WithLosses {
  readonly cell: TaskCell;
  readonly losses: readonly StoredLoss[];
}

/**
 * Loss by step, two pictures a rank: training in means, validation as measured; of the first seed that kept its losses.
 * `of`: what was trained on, where a table has several.
 */
export function lossPictures(cells: readonly WithLosses[], of = ""): string[] {
  const kept = cells.filter(({ cell, losses }) => cell.recipe.training !== null && losses.length > 1);
  const ranks = [...new Set(kept.map(({ cell }) => cell.recipe.training!.rank))];
  return ranks.flatMap((rank) => {
    const methods = new Map<string, WithLosses>();
    for (const one of kept) {
      const { method, rank: own } = one.cell.recipe.training!;
      if (own === rank && !methods.has(method)) methods.set(method, one);
    }
    const curves = (points: (one: WithLosses) => Curve["points"]): Curve[] =>
      [...methods].map(([method, one]) => ({
        colour: methodColour(method),
        label: methodTitle(method),
        points: points(one),
      }));
    const validated = curves(({ losses }) =>
      losses.flatMap(({ step, validationLoss }) =>
        validationLoss === undefined ? [] : [[step, validationLoss] as const],
      ),
    );
    const picture = (title: string, panel: string, shown: readonly Curve[]): string =>
      curveChart({
        title: `${title}, ${of === "" ? "" : `${of}, `}r = ${rank}`,
        x: "optimizer steps",
        y: "nats a token",
        panels: [{ title: panel, curves: shown }],
        plotWidth: PLOT_WIDTH,
      });
    const size = stretchOf(Math.min(...[...methods.values()].map(({ losses }) => losses.length)));
    return [
      picture(
        "Training loss",
        size === 1 ? "single steps, without the first" : `means of ${size} steps, without the first`,
        curves(({ losses }) => smoothed(losses, size)),
      ),
      ...(validated.some(({ points }) => points.length > 1)
        ? [picture("Validation loss", "as measured while training", validated)]
        : []),
    ];
  });
}

/** Few steps are drawn in shorter stretches. */
function stretchOf(steps: number): number {
  return Math.min(SMOOTHED, Math.max(1, Math.floor(steps / MOST_POINTS)));
}

/** Means of stretches; the first is left out: it would take the scale from all others. */
function smoothed(losses: readonly StoredLoss[], size: number): [number, number][] {
  const points: [number, number][] = [];
  for (let end = 2 * size; end <= losses.length; end += size) {
    const part = losses.slice(end - size, end);
    points.push([part.at(-1)!.step, part.reduce((sum, { loss }) => sum + loss, 0) / size]);
  }
  return points;
}

/** Losses have been kept since some time: what was trained before has none. */
export function lossNote(cells: readonly WithLosses[]): string {
  const trained = cells.filter(({ cell }) => cell.recipe.training !== null);
  const rows = Map.groupBy(trained, ({ cell }) => rowTitle(cell.recipe.training!));
  const lost = [...rows].filter(([, own]) => own.every(({ losses }) => losses.length < 2));
  const without = lost.length > 0 ? ` Not kept for ${lost.map(([title]) => title).join(", ")}.` : "";
  return `One seed a method, the first that kept its losses.${without} The scales need not begin at 0.`;
}
