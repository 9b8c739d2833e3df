/** One table of task cells as a chapter: its sections, accuracy bars, loss curves, and how every cell was made. */
import { inMillions, methodTitle } from "../../experiments/parameters.ts";
import { averageFigure, type Row, rowsOf } from "../../experiments/summary.ts";
import { type ReportInput, reportSections } from "../../experiments/table-report.ts";
import type { Measure } from "../../src/evaluation/score.ts";
import { barChart } from "../../src/reporting/bars.ts";
import { type Curve, curveChart } from "../../src/reporting/curves.ts";
import { type Chapter, htmlDetails, htmlPicture, htmlSection } from "../../src/reporting/html.ts";
import { formatSeconds } from "../../src/reporting/progress.ts";
import { MISSING, right, type Section } from "../../src/reporting/table.ts";
import type { CellGroup, CollectedCell } from "./collect.ts";

/** Steps of the training loss that are drawn as their mean. */
const SMOOTHED = 20;

export function cellsChapter(group: CellGroup): Chapter {
  const { table, modelName, cells } = group;
  const { preset: name, evaluation } = cells[0]!.cell.recipe;
  const input: ReportInput = {
    table,
    preset: table.presets[name],
    modelName,
    tasks: evaluation.tasks,
    missing: evaluation.tasks.filter((task) => cells[0]!.cell.tasks.sets[task] == null),
    outcomes: cells,
  };
  const rows = rowsOf(cells);
  const [first, ...rest] = reportSections(input).map(htmlSection);
  return {
    title: `Table ${table.number}, ${table.subject}: ${modelName}, preset ${name}`,
    body: [
      first!,
      htmlPicture(accuracyBars(input, rows)),
      ...rest,
      ...lossPictures(cells).map(htmlPicture),
      htmlSection(madeSection(cells)),
      ...cells.map(({ place, cell: { recipe, recipeHash, manifest, timing } }) =>
        htmlDetails(place.name, JSON.stringify({ recipe, recipeHash, manifest, timing }, null, 2)),
      ),
    ],
  };
}

const RULERS: readonly (readonly [Measure, string])[] = [
  ["generation", "generated answers"],
  ["labels", "likelihood of the labels"],
  ["options", "likelihood of the options"],
];

/** Averages over the tasks, a panel a ruler, whiskers of one standard error. */
export function accuracyBars(input: ReportInput, rows: readonly Row[]): string {
  const panels = RULERS.flatMap(([measure, title]) => {
    const groups = rows.flatMap((row) => {
      const figure = averageFigure(row, input.tasks, measure);
      if (!figure) return [];
      const error = Math.hypot(figure.standardError, figure.seedError ?? 0);
      return [{ title: titleOf(row), bars: [{ value: figure.value, error }] }];
    });
    return groups.length > 0 ? [{ label: "average, %", panels: [{ title, groups }] }] : [];
  });
  return barChart({
    title: `Table ${input.table.number}, ${input.modelName}: averages over the tasks`,
    series: ["average accuracy ± standard error"],
    rows: panels,
  });
}

function titleOf({ method, rank }: Pick<Row, "method" | "rank">): string {
  return rank > 0 ? `${methodTitle(method)} ${rank}` : methodTitle(method);
}

/** Loss by step, a picture a rank: training smoothed, validation as measured; of the first seed that kept its losses. */
export function lossPictures(cells: readonly CollectedCell[]): string[] {
  const kept = cells.filter(({ losses }) => losses.length > 1);
  const ranks = [...new Set(kept.map(({ cell }) => cell.recipe.training!.rank))];
  return ranks.map((rank) => {
    const methods = new Map<string, CollectedCell>();
    for (const cell of kept) {
      const { method, rank: own } = cell.cell.recipe.training!;
      if (own === rank && !methods.has(method)) methods.set(method, cell);
    }
    const curves = (points: (cell: CollectedCell) => Curve["points"]): Curve[] =>
      [...methods].map(([method, cell], i) => ({
        colour: i + 1,
        label: methodTitle(method),
        points: points(cell),
      }));
    const validated = curves(({ losses }) =>
      losses.flatMap(({ step, validationLoss }) =>
        validationLoss === undefined ? [] : [[step, validationLoss] as const],
      ),
    );
    return curveChart({
      title: `Loss while training, r = ${rank}`,
      x: "optimizer steps",
      y: "nats a token",
      panels: [
        { title: `training, means of ${SMOOTHED} steps, without the first`, curves: curves(smoothed) },
        ...(validated.some(({ points }) => points.length > 1)
          ? [{ title: "validation", curves: validated }]
          : []),
      ],
    });
  });
}

/** Means of stretches; the first is left out where there are several: it would take the scale from all others. */
function smoothed({ losses }: CollectedCell): [number, number][] {
  const size = Math.min(SMOOTHED, Math.max(1, Math.floor(losses.length / 2)));
  const points: [number, number][] = [];
  for (let end = size; end <= losses.length; end += size) {
    const part = losses.slice(end - size, end);
    points.push([part.at(-1)!.step, part.reduce((sum, { loss }) => sum + loss, 0) / size]);
  }
  return points.length > 3 ? points.slice(1) : points;
}

/** Machine, time and memory of every cell; the whole manifest is folded below. */
function madeSection(cells: readonly CollectedCell[]): Section {
  const duration = (seconds: number): string => (seconds > 0 ? formatSeconds(seconds) : MISSING);
  return {
    title: "How the cells were made",
    table: {
      columns: [
        { title: "cell" },
        right("trained"),
        right("training"),
        right("evaluation"),
        right("planned MiB"),
        { title: "processor" },
        right("threads"),
        { title: "commit" },
        { title: "finished" },
      ],
      rows: cells.map(({ place, cell: { manifest, timing } }) => {
        const { trained } = manifest;
        const planned = trained
          ? Object.values(trained.planned).reduce((sum, bytes) => sum + bytes, 0) / 2 ** 20
          : null;
        return [
          place.name,
          trained ? inMillions(trained.parameters) : "",
          duration(timing.trainSeconds),
          duration(timing.evaluateSeconds),
          planned?.toFixed(0) ?? "",
          `${manifest.processor} ${manifest.isa}`,
          `${timing.threads}`,
          manifest.commit ? manifest.commit.replace(/^(.{10})[0-9a-f]*/, "$1") : MISSING,
          timing.finished.slice(0, 16).replace("T", " "),
        ];
      }),
    },
    paragraphs: ["Recipe, hash, versions, command, data hashes and seeds of every cell:"],
  };
}
