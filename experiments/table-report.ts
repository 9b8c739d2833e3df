/**
 * What Tables 3 and 4 print: our rows, the paper's beside them, the finer rulers, the paper's claims, and what all this can
 * and cannot tell.
 */
import type { Measure } from "../src/evaluation/score.ts";
import { aqua } from "../src/evaluation/tasks/aqua.ts";
import { type CsvValue, csvText } from "../src/reporting/csv.ts";
import {
  MISSING,
  markdownSections,
  right,
  type Section,
  type Table,
  textSections,
} from "../src/reporting/table.ts";
import { letterSection } from "./aqua-rules.ts";
import { type BesideInput, besideSection } from "./beside-paper.ts";
import { signed } from "./claims.ts";
import { columns as paperColumns } from "./paper-data.ts";
import { inMillions, methodTitle } from "./parameters.ts";
import {
  type PublishedAverage,
  type PublishedMethod,
  publishedDifference,
  publishedSection,
} from "./published-table.ts";
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
import { tableClaims } from "./table-claims.ts";
import type { PartialAverage, TaskTable } from "./task-tables.ts";

export interface ReportInput {
  readonly table: TaskTable;
  readonly preset: Preset;
  readonly modelName: string;
  /** Task names in the order of the columns. */
  readonly tasks: readonly string[];
  readonly missing: readonly string[];
  readonly outcomes: readonly Outcome[];
  /** Said where a table says what it can tell: findings about the data, one paragraph each. */
  readonly remarks?: readonly string[];
}

export function textReport(input: ReportInput): string {
  return textSections(reportSections(input));
}

export function markdownReport(input: ReportInput): string {
  return markdownSections(reportSections(input));
}

/** One line a cell, task and ruler. */
export function csvReport({ outcomes }: ReportInput): string {
  const rows = outcomes.flatMap(({ cell: { recipe, manifest, tasks } }) => {
    const { training } = recipe;
    const cell = [training?.method ?? "base", training?.rank ?? 0, training?.seed ?? null];
    return Object.entries(tasks.sets).flatMap(([task, set]) =>
      Object.entries(set?.scores ?? {}).map(([ruler, { correct, accuracy, standardError }]): CsvValue[] => [
        ...cell,
        manifest.trained?.parameters ?? 0,
        task,
        ruler,
        set!.records,
        correct,
        accuracy,
        standardError,
      ]),
    );
  });
  const figures = ["records", "correct", "accuracy", "standard_error"];
  return csvText(["method", "rank", "seed", "trained", "task", "ruler", ...figures], rows);
}

/** What is said, by its part: a page may order and fold it. Parts that say nothing here are null or empty. */
export interface ReportParts {
  readonly answers: Section | null;
  /** AQuA by both rules. */
  readonly letters: Section | null;
  readonly published: Section;
  /** Ours minus the paper's. */
  readonly beside: Section | null;
  readonly finer: readonly Section[];
  readonly paired: readonly Section[];
  readonly loss: Section;
  readonly claims: Section | null;
  readonly tells: Section;
}

export function reportParts(input: ReportInput): ReportParts {
  const rows = rowsOf(input.outcomes);
  const rulers = (["generation", "labels", "options", "perCharacter"] as const).filter((measure) =>
    rows.some((row) => averageFigure(row, input.tasks, measure) !== null),
  );
  const finer = rulers.filter((measure) => measure !== "generation");
  const paired = (["generation", "labels"] as const).filter((measure) => rulers.includes(measure));
  const columns = paperColumnsOf(input.table, input.tasks);
  const claims = tableClaims({
    table: input.table,
    modelName: input.modelName,
    accuracies: input.preset.name !== "tiny",
    tasks: input.tasks,
    columns,
    rows: rows.filter(({ method }) => method !== "base"),
    measures: paired.map((measure) => [measure, shortTitles[measure]] as const),
  });
  return {
    answers: rulers.includes("generation") ? accuracySection(input, rows, "generation") : null,
    letters: input.tasks.includes(aqua.name) ? letterSection(rows) : null,
    published: publishedSection(input.table.number, columns, publishedAverages(input)),
    beside: besideSection(besideInput(input), rows),
    finer: finer.map((measure) => accuracySection(input, rows, measure)),
    paired: paired
      .map((measure) => pairedSection(input, rows, measure))
      .filter((section) => section !== null),
    loss: lossSection(rows),
    claims,
    tells: tellsSection(input, rows),
  };
}

/** Everything that is said, in order. */
export function reportSections(input: ReportInput): Section[] {
  const { answers, letters, published, beside, finer, paired, loss, claims, tells } = reportParts(input);
  const all = [answers, letters, published, beside, ...finer, ...paired, loss, claims, tells];
  return all.filter((section) => section !== null);
}

export function besideInput({ table, preset, modelName, tasks }: ReportInput): BesideInput {
  const columns = paperColumnsOf(table, tasks);
  return { number: table.number, accuracies: preset.name !== "tiny", modelName, tasks, columns };
}

/** The paper's names of our tasks: both stand in the same order. */
function paperColumnsOf(table: TaskTable, tasks: readonly string[]): string[] {
  return tasks.flatMap((task) => {
    const at = table.tasks.findIndex(({ name }) => name === task);
    return paperColumns[table.number][at] ?? [];
  });
}

/** The partial averages over the columns that are asked for. */
function averagesOf({ table, tasks }: ReportInput): PartialAverage[] {
  return table.averages.map((average) => ({
    ...average,
    tasks: average.tasks.filter((task) => tasks.includes(task)),
  }));
}

function publishedAverages(input: ReportInput): PublishedAverage[] {
  return averagesOf(input).map(({ title, tasks }) => ({
    title,
    columns: paperColumnsOf(input.table, tasks),
  }));
}

export const shortTitles: Readonly<Record<Measure, string>> = {
  generation: "generated answers",
  labels: "likelihood of the labels",
  options: "likelihood of the options",
  perCharacter: "likelihood of the options per character",
  spacedLabels: "likelihood of the letters with a space",
};

export const rulerTitles: Readonly<Record<Measure, string>> = {
  generation: "generated answers (the paper's ruler)",
  labels: "likelihood of the answer labels behind the paper's prompt",
  options: "likelihood of the options' texts behind the plain question",
  perCharacter: "the same, per character of the option",
  spacedLabels: "likelihood of the letters with a space in front",
};

function accuracySection(input: ReportInput, rows: readonly Row[], measure: Measure): Section {
  const { preset, modelName, tasks, missing } = input;
  const partial = averagesOf(input);
  const seeds = Math.max(...rows.map(({ outcomes }) => outcomes.length));
  const table: Table = {
    columns: [
      { title: "method" },
      right("r"),
      right("trained"),
      ...paperColumnsOf(input.table, tasks).map(right),
      right("Avg"),
      right("± SE"),
      ...(seeds > 1 ? [right("± SE seeds")] : []),
      ...partial.map(({ title }) => right(title)),
    ],
    rows: [
      [
        "majority class",
        "",
        "",
        ...majorityCells(rows, tasks),
        "",
        ...(seeds > 1 ? [""] : []),
        ...partial.map(({ tasks: some }) => majorityCells(rows, some).at(-1)!),
      ],
      ...rows.flatMap((row): (string[] | "line")[] => {
        const average = averageFigure(row, tasks, measure);
        const cells = [
          methodTitle(row.method),
          row.rank > 0 ? `${row.rank}` : "",
          inMillionsOrNothing(meanOf(row, (cell) => cell.manifest.trained?.parameters)),
          ...tasks.map((task) => shown(taskFigure(row, task, measure))),
          shown(average),
          average ? average.standardError.toFixed(1) : MISSING,
          ...(seeds > 1 ? [average?.seedError?.toFixed(1) ?? MISSING] : []),
          ...partial.map(({ tasks: some }) => shown(averageFigure(row, some, measure))),
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
      measure === "generation"
        ? [
            ...(missing.length > 0
              ? [
                  `${MISSING} means the test set is not there: ${missing.join(", ")}. Averages are over the sets that are.`,
                ]
              : []),
            ...partial.map(({ note }) => note),
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
              meanOf(row, ({ timing }) => (timing.stepSeconds > 0 ? 1000 * timing.stepSeconds : null)),
              0,
            ),
        row.method === "base"
          ? ""
          : number(
              meanOf(row, ({ timing }) => (timing.tokensPerSecond > 0 ? timing.tokensPerSecond : null)),
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
function pairedSection(
  { table, tasks }: ReportInput,
  rows: readonly Row[],
  measure: Measure,
): Section | null {
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
        right("± 95 %"),
        { title: "" },
        ...models.map((model) => right(`paper, ${model}`)),
      ],
      rows: compared.map(({ row, reference, difference: { value, halfWidth } }) => [
        `${methodTitle(row.method)} ${row.rank}`,
        `${methodTitle(reference.method)} ${reference.rank}`,
        signed(value),
        halfWidth.toFixed(1),
        Math.abs(value) > halfWidth ? "differs" : "",
        ...models.map((model) => {
          const [a, b] = [publishedMethod(row), publishedMethod(reference)];
          const theirs = publishedDifference(table.number, model, paperColumnsOf(table, tasks), a, b);
          return theirs === null ? MISSING : signed(theirs);
        }),
      ]),
    },
    paragraphs: [
      "± 95 %: half of the interval, from the records' own differences and, with several seeds, from the seeds' (Student).",
      "The paper's columns: differences of the means of its printed cells over the same tasks, at the same rank where it has it, else at 32.",
    ],
  };
}

function publishedMethod({ method, rank }: Row): PublishedMethod {
  return { title: methodTitle(method), rank };
}

/** What the flags changed of the preset: sentences about the preset do not hold there. */
export function changedByFlags({ preset, modelName, tasks }: ReportInput, rows: readonly Row[]): string[] {
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
      ...(input.remarks ?? []),
      `Standard errors come from the number of test records alone; ${
        seeds > 1
          ? "those from the spread over seeds stand beside them"
          : "with one seed the luck of one training run is not in them"
      }. One learning rate (${[...rates].join(", ")}) for all methods.`,
    ],
  };
}
