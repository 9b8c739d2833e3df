/** What Table 3 prints: our rows, the paper's beside them, the finer rulers, and what all this can and cannot tell. */

import type { MethodName } from "../src/adapters/adapter.ts";
import { methods } from "../src/adapters/registry.ts";
import type { Measure } from "../src/evaluation/score.ts";
import { commonsenseTasks } from "../src/evaluation/tasks/registry.ts";
import {
  MISSING,
  markdownSections,
  right,
  type Section,
  type Table,
  textSections,
} from "../src/reporting/table.ts";
import { columns as paperColumns } from "./paper-data.ts";
import { inMillions } from "./parameters.ts";
import { type PublishedMethod, publishedDifference, publishedSection } from "./published-table.ts";
import type { Preset } from "./recipes/table3.ts";
import {
  averageFigure,
  type Figure,
  majorityOf,
  meanOf,
  type Outcome,
  pairedAverage,
  type Row,
  rowsOf,
  taskFigure,
} from "./summary.ts";

export interface ReportInput {
  readonly preset: Preset;
  readonly modelName: string;
  /** Task names in the order of the columns. */
  readonly tasks: readonly string[];
  readonly missing: readonly string[];
  readonly outcomes: readonly Outcome[];
}

export function textReport(input: ReportInput): string {
  return textSections(sections(input));
}

export function markdownReport(input: ReportInput): string {
  return markdownSections(sections(input));
}

function sections(input: ReportInput): Section[] {
  const rows = rowsOf(input.outcomes);
  const rulers = (["generation", "labels", "options", "perCharacter"] as const).filter((measure) =>
    rows.some((row) => averageFigure(row, input.tasks, measure) !== null),
  );
  const finer = rulers.filter((measure) => measure !== "generation");
  const paired = (["generation", "labels"] as const).filter((measure) => rulers.includes(measure));
  return [
    ...(rulers.includes("generation") ? [accuracySection(input, rows, "generation")] : []),
    publishedSection(3, paperColumnsOf(input.tasks)),
    ...finer.map((measure) => accuracySection(input, rows, measure)),
    ...paired.map((measure) => pairedSection(input, rows, measure)).filter((section) => section !== null),
    lossSection(rows),
    tellsSection(input, rows),
  ];
}

/** The paper's names of our tasks: both stand in the same order. */
function paperColumnsOf(tasks: readonly string[]): string[] {
  return tasks.flatMap((task) => {
    const at = commonsenseTasks.findIndex(({ name }) => name === task);
    return paperColumns[3][at] ?? [];
  });
}

const rulerTitles: Readonly<Record<Measure, string>> = {
  generation: "generated answers (the paper's ruler)",
  labels: "likelihood of the answer labels behind the paper's prompt",
  options: "likelihood of the options' texts behind the plain question",
  perCharacter: "the same, per character of the option",
};

function accuracySection(
  { preset, modelName, tasks, missing }: ReportInput,
  rows: readonly Row[],
  measure: Measure,
): Section {
  const seeds = Math.max(...rows.map(({ outcomes }) => outcomes.length));
  const table: Table = {
    columns: [
      { title: "method" },
      right("r"),
      right("trained"),
      ...paperColumnsOf(tasks).map(right),
      right("Avg"),
      right("± SE"),
      ...(seeds > 1 ? [right("seeds SD")] : []),
    ],
    rows: [
      ["majority class", "", "", ...majorityCells(rows, tasks), ""],
      ...rows.flatMap((row): (string[] | "line")[] => {
        const average = averageFigure(row, tasks, measure);
        const cells = [
          methodTitle(row.method),
          row.rank > 0 ? `${row.rank}` : "",
          inMillionsOrNothing(meanOf(row, (cell) => cell.manifest.trained?.parameters)),
          ...tasks.map((task) => shown(taskFigure(row, task, measure))),
          shown(average),
          average ? average.standardError.toFixed(1) : MISSING,
          ...(seeds > 1 ? [average?.seedDeviation?.toFixed(1) ?? MISSING] : []),
        ];
        return row.method === "base" ? [cells, "line"] : [cells];
      }),
    ],
  };
  const counts = [...new Set(tasks.map((task) => rows[0]?.outcomes[0]?.cell.tasks.sets[task]?.records ?? 0))];
  const records = counts.filter((n) => n > 0).sort((a, b) => a - b);
  const span = records.length > 1 ? `${records[0]} to ${records.at(-1)}` : `${records[0] ?? 0}`;
  return {
    title: `Ours, preset ${preset.name}, ${modelName}, ${span} test records a task, ${seeds} seed${seeds > 1 ? "s" : ""}: ${rulerTitles[measure]}, %`,
    table,
    paragraphs:
      missing.length > 0 && measure === "generation"
        ? [
            `${MISSING} means the test set is not there: ${missing.join(", ")}. Averages are over the sets that are.`,
          ]
        : [],
  };
}

function majorityCells(rows: readonly Row[], tasks: readonly string[]): string[] {
  const values = tasks.map((task) => majorityOf(rows, task));
  const present = values.filter((value) => value !== null);
  const average = present.reduce((sum, value) => sum + value, 0) / present.length;
  return [
    ...values.map((value) => value?.toFixed(1) ?? MISSING),
    present.length > 0 ? average.toFixed(1) : MISSING,
  ];
}

function shown(figure: Figure | null): string {
  return figure ? figure.value.toFixed(1) : MISSING;
}

function inMillionsOrNothing(count: number | null): string {
  return count === null ? "" : inMillions(count);
}

export function methodTitle(name: string): string {
  return name === "base" ? "base model" : methods[name as MethodName].title;
}

function lossSection(rows: readonly Row[]): Section {
  const number = (value: number | null, digits: number): string => value?.toFixed(digits) ?? MISSING;
  return {
    title: "Held-out loss on response tokens (nats a token), and what training took",
    table: {
      columns: [
        { title: "method" },
        right("r"),
        right("beside W"),
        right("merged"),
        right("best step"),
        right("answers parsed %"),
        right("planned MiB"),
        right("ms a step"),
        right("tokens/s"),
      ],
      rows: rows.map((row) => [
        methodTitle(row.method),
        row.rank > 0 ? `${row.rank}` : "",
        number(
          meanOf(row, (cell) => cell.tasks.heldOut?.unmerged),
          4,
        ),
        number(
          meanOf(row, (cell) => cell.tasks.heldOut?.merged),
          4,
        ),
        number(
          meanOf(row, (cell) => cell.manifest.trained?.bestStep),
          0,
        ),
        number(meanOf(row, parsedPercent), 1),
        number(
          meanOf(row, (cell) => plannedMiB(cell.manifest.trained)),
          1,
        ),
        row.method === "base"
          ? ""
          : number(
              meanOf(row, (cell) => 1000 * cell.timing.stepSeconds),
              0,
            ),
        row.method === "base"
          ? ""
          : number(
              meanOf(row, (cell) => cell.timing.tokensPerSecond),
              0,
            ),
      ]),
    },
    paragraphs: [
      "The held-out records are those that chose the best checkpoint; planned MiB are weights, trained state, saved activations and scratch of a training pass.",
    ],
  };
}

function parsedPercent({ tasks }: Outcome["cell"]): number | null {
  const shares = Object.values(tasks.sets).flatMap((set) => (set?.parsed == null ? [] : [set.parsed]));
  return shares.length === 0 ? null : shares.reduce((sum, share) => sum + share, 0) / shares.length;
}

function plannedMiB(trained: Outcome["cell"]["manifest"]["trained"]): number | null {
  if (!trained) return null;
  const { weights, trainable, kept, scratch } = trained.planned;
  return (weights + trainable + kept + scratch) / 2 ** 20;
}

/** Every method against LoRA of its rank (the first method where there is none), on the same records. */
function pairedSection({ tasks }: ReportInput, rows: readonly Row[], measure: Measure): Section | null {
  const trained = rows.filter(({ method }) => method !== "base");
  const compared = trained.flatMap((row) => {
    const same = trained.filter(({ rank }) => rank === row.rank);
    const reference = same.find(({ method }) => method === "lora") ?? trained[0]!;
    const difference = reference === row ? null : pairedAverage(row, reference, tasks, measure);
    return difference ? [{ row, reference, difference }] : [];
  });
  if (compared.length === 0) return null;
  const models = ["LLaMA-7B", "LLaMA3-8B"] as const;
  return {
    title: `Differences on the same records, points of Avg: ${rulerTitles[measure]}`,
    table: {
      columns: [
        { title: "method" },
        { title: "against" },
        right("difference"),
        right("± SE"),
        { title: "" },
        ...models.map((model) => right(`paper, ${model}`)),
      ],
      rows: compared.map(({ row, reference, difference: { value, standardError } }) => [
        `${methodTitle(row.method)} ${row.rank}`,
        `${methodTitle(reference.method)} ${reference.rank}`,
        signed(value),
        standardError.toFixed(1),
        Math.abs(value) > 2 * standardError ? "beyond 2 SE" : "",
        ...models.map((model) => {
          const [a, b] = [publishedMethod(row), publishedMethod(reference)];
          const theirs = publishedDifference(3, model, paperColumnsOf(tasks), a, b);
          return theirs === null ? MISSING : signed(theirs);
        }),
      ]),
    },
    paragraphs: [
      "The paper's columns: differences of the means of its printed cells over the same tasks, at the same rank where it has it, else at 32.",
    ],
  };
}

function publishedMethod({ method, rank }: Row): PublishedMethod {
  return { title: methodTitle(method), rank };
}

function signed(value: number): string {
  return `${value > 0 ? "+" : ""}${value.toFixed(1)}`;
}

/** What the flags changed of the preset: sentences about the preset do not hold there. */
function changedByFlags({ preset, modelName, tasks }: ReportInput, rows: readonly Row[]): string[] {
  const cells = rows.flatMap(({ outcomes }) => outcomes.map(({ cell }) => cell));
  const training = cells.find(({ recipe }) => recipe.training)?.recipe.training;
  const evaluation = cells[0]?.recipe.evaluation;
  const changed = (what: string, ours: unknown, theirs: unknown): string[] =>
    `${ours}` === `${theirs}` ? [] : [`${what} ${ours ?? "all"} (preset: ${theirs ?? "all"})`];
  return [
    ...changed("model", modelName, preset.model),
    ...(training
      ? [
          ...changed("steps", training.steps, preset.training.steps),
          ...changed("warm-up", training.warmup, preset.training.warmup),
          ...changed("learning rate", training.learningRate, preset.training.learningRate),
          ...changed("compute", training.compute, preset.training.compute),
        ]
      : []),
    ...(evaluation
      ? [
          ...changed("test records a task", evaluation.limit, preset.evaluation.limit),
          ...changed("beams", evaluation.beams, preset.evaluation.beams),
        ]
      : []),
    ...changed("tasks", tasks.length, preset.evaluation.tasks.length),
  ];
}

function tellsSection(input: ReportInput, rows: readonly Row[]): Section {
  const { preset } = input;
  const changed = changedByFlags(input, rows);
  const seeds = Math.max(...rows.map(({ outcomes }) => outcomes.length));
  const rates = new Set(
    rows.flatMap((r) => r.outcomes.map(({ cell }) => cell.recipe.training?.learningRate)),
  );
  rates.delete(undefined);
  return {
    title: "What this can and cannot tell",
    paragraphs: [
      ...preset.tells,
      `Differs from the protocol: ${preset.differs.join("; ")}.`,
      ...(changed.length > 0
        ? [
            `Flags changed the preset, and what is said of it above does not hold there: ${changed.join("; ")}.`,
          ]
        : []),
      `Standard errors come from the number of test records alone; ${
        seeds > 1
          ? "the spread over seeds stands beside them"
          : "with one seed the luck of one training run is not in them"
      }. One learning rate (${[...rates].join(", ")}) for all methods.`,
    ],
  };
}
