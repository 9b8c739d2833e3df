/** What Multi-SBoRA prints: tasks alone and merged, whose weights they are, verdicts, and the same as CSV and picture. */

import { arithmeticTasks, commonsenseTasks } from "../src/evaluation/tasks/registry.ts";
import { type BarChart, barChart } from "../src/reporting/bars.ts";
import { type CsvValue, csvText } from "../src/reporting/csv.ts";
import { mean } from "../src/reporting/statistics.ts";
import { markdownSections, right, type Section, textSections } from "../src/reporting/table.ts";
import { signed } from "./claims.ts";
import {
  claimsOf,
  lost,
  type MultiOutcome,
  type MultiRuler,
  multiRulers,
  type Run,
  shareLost,
  type VariantRuns,
} from "./multi-sbora-claims.ts";
import type { Structure } from "./multi-sbora-structure.ts";
import type { MultiStudy } from "./multi-sbora-study.ts";
import { columns as paperColumns } from "./paper-data.ts";

export interface MultiReport {
  readonly study: Pick<MultiStudy, "preset" | "modelName" | "taskNames" | "rank" | "seeds" | "tasks">;
  readonly variants: readonly VariantRuns[];
}

export const PICTURE = "picture.svg";

export function textOf(report: MultiReport): string {
  return textSections(sections(report));
}

export function markdownOf(report: MultiReport): string {
  return `![${title(report)}](${PICTURE})\n\n${markdownSections(sections(report))}`;
}

function sections(report: MultiReport): Section[] {
  return [
    ...multiRulers.map((ruler) => tasksSection(report, ruler)),
    structureSection(report),
    claimsSection(report),
    tellsSection(report),
  ];
}

const units: Readonly<Record<MultiRuler, { long: string; digits: number }>> = {
  accuracy: { long: "generated answers, %", digits: 1 },
  loss: { long: "held-out loss on response tokens, nats a token", digits: 3 },
};

function title({ study: { preset, modelName, rank, taskNames } }: MultiReport): string {
  const model = modelName === preset.name ? "" : `, ${modelName}`;
  return `Multi-SBoRA, preset ${preset.name}${model}: ${taskNames.length} adapters of rank ${rank} merged into one model`;
}

/** The paper's columns stand in the order of the registry. */
const titles = new Map([
  ...commonsenseTasks.map(({ name }, i) => [name, paperColumns[3][i]!] as const),
  ...arithmeticTasks.map(({ name }, i) => [name, paperColumns[4][i]!] as const),
]);

function taskTitle(name: string): string {
  return titles.get(name) ?? name;
}

type Model = "base" | "alone" | "merged";
const models = ["base", "alone", "merged"] as const;

function outcomeOf(run: Run, model: Model, task: string): MultiOutcome {
  return model === "alone" ? run.alone.get(task)! : run[model];
}

/** Mean over seeds. */
function figure({ runs }: VariantRuns, model: Model, task: string, ruler: MultiRuler): number {
  return mean(
    runs.map((run) => {
      const { sets, heldOut } = outcomeOf(run, model, task).cell.tasks;
      return ruler === "accuracy" ? sets[task]!.scores.generation!.accuracy : heldOut[task]!.loss;
    }),
  );
}

function tasksSection(report: MultiReport, ruler: MultiRuler): Section {
  const { study, variants } = report;
  const { taskNames: tasks } = study;
  const { long, digits } = units[ruler];
  const average = (own: VariantRuns, model: Model): number =>
    mean(tasks.map((task) => figure(own, model, task, ruler)));
  const base = variants[0]!;
  const baseRow = [
    "base model",
    ...tasks.flatMap((task) => [figure(base, "base", task, ruler).toFixed(digits), ""]),
    average(base, "base").toFixed(digits),
  ];
  const rows = variants.map((own) => {
    const loss = lost(own, tasks, ruler);
    const share = shareLost(own, tasks, ruler);
    return [
      own.variant.title,
      ...[
        ...tasks.map((task) => (model: Model) => figure(own, model, task, ruler)),
        (model: Model) => average(own, model),
      ]
        .flatMap((value) => [value("alone"), value("merged")])
        .map((value) => value.toFixed(digits)),
      signed(loss.value, digits),
      loss.standardError.toFixed(digits),
      share ? (100 - share.value).toFixed(0) : "nothing gained",
    ];
  });
  const { seeds, preset, tasks: data } = study;
  const counts = tasks.map((task) =>
    ruler === "accuracy" ? data.get(task)!.tests.length : preset.training.valSize,
  );
  const span = [...new Set(counts)].join(", ");
  return {
    title: `${title(report)}: ${long}, ${span} records a task, ${seeds.length} seed${seeds.length > 1 ? "s" : ""}`,
    table: {
      columns: [
        { title: "method" },
        ...tasks.flatMap((task) => [right(`${taskTitle(task)} alone`), right("merged")]),
        right("Avg alone"),
        right("merged"),
        right("lost"),
        right("± SE"),
        right("kept %"),
      ],
      rows: [baseRow, "line", ...rows],
    },
    paragraphs:
      ruler === "accuracy"
        ? [
            "Alone: the base with the adapter of that task merged into it. Merged: one model with the adapters of all tasks. Lost: alone minus merged on the same records, averaged over the tasks; where all records agree, one in n is taken for its error. Kept: what is left of the gain over the base.",
          ]
        : ["The held-out records chose no checkpoint: the last step's adapters are measured."],
  };
}

function structureSection({ variants, study }: MultiReport): Section {
  const rows = variants.map(({ variant, runs }) => {
    const structures = runs.map(({ merged }) => merged.cell.structure).filter((own) => own !== null);
    const [first] = structures;
    if (!first) return [variant.title, "", "all weights", "all weights", "", ""];
    const sum = (read: (own: Structure) => number): string =>
      `${structures.reduce((total, own) => total + read(own), 0)}`;
    return [
      variant.title,
      `${first.matrices}`,
      `${sum((own) => own.touched)} ${first.lines}`,
      sum((own) => own.shared),
      "bit-equal",
      `${sum((own) => own.untouched)} bit-equal`,
    ];
  });
  return {
    title: `Whose weights the merged model has${study.seeds.length > 1 ? `, ${study.seeds.length} seeds together` : ""}`,
    table: {
      columns: [
        { title: "method" },
        right("matrices"),
        right("of one adapter"),
        right("of several"),
        right("to its single-merged model"),
        right("of none, to the base"),
      ],
      rows,
    },
    paragraphs: [
      "Checked weight by weight when a merged cell is made; a single weight that differs ends the run with an error and leaves no cell.",
    ],
  };
}

function claimsSection({ study, variants }: MultiReport): Section {
  const claims = claimsOf(variants, study.taskNames);
  const exact = variants.flatMap(({ variant, runs }) =>
    variant.draw === "disjoint"
      ? runs.map(({ merged }) => ({ variant, structure: merged.cell.structure! }))
      : [],
  );
  const structural = [...new Set(exact.map(({ variant }) => variant))].map((variant) => {
    const own = exact.filter((one) => one.variant === variant).map(({ structure }) => structure);
    const touched = own.reduce((sum, { touched: count }) => sum + count, 0);
    const shared = own.reduce((sum, { shared: count }) => sum + count, 0);
    const { lines } = own[0]!;
    return [
      `${variant.title}: every touched ${lines.slice(0, -1)} is bit for bit its single-merged model's`,
      `${touched} of ${touched + shared} ${lines}`,
      shared === 0 ? "holds" : "does not hold",
      "",
      "",
    ];
  });
  const rows = claims.map(({ claim, by }) => [
    claim,
    ...multiRulers.flatMap((ruler) => {
      const { found, verdict } = by[ruler];
      return [found ? `${signed(found.value)} ± ${found.halfWidth.toFixed(1)}` : "nothing gained", verdict];
    }),
  ]);
  return {
    title: "Verdicts",
    table: {
      columns: [
        { title: "claim" },
        right("% of the gain lost ± 95 %"),
        { title: "by answers" },
        right("% of the gain lost ± 95 %"),
        { title: "by held-out loss" },
      ],
      rows: [...structural, ...rows],
    },
    paragraphs: [
      "Lost: what merging took, as a share of what the adapters alone gained over the base (who learned more has more to lose), paired on the same records, ± half of its 95 % interval; for a comparison, how much more of its gain the other lost. Holds and does not hold are said where the interval leaves no doubt, else it cannot be told.",
    ],
  };
}

function tellsSection({ study, variants }: MultiReport): Section {
  const { preset, taskNames, tasks, seeds } = study;
  const recipe = variants[0]!.runs[0]!.alone.get(taskNames[0]!)!.cell.recipe;
  const { steps, learningRate, warmup } = recipe.adapters[0]!.training;
  const changed = [
    ["steps", steps, preset.training.steps],
    ["learning rate", learningRate, preset.training.learningRate],
    ["warm-up", warmup, preset.training.warmup],
    ["test records a task", recipe.evaluation.limit, preset.evaluation.limit],
    ["tasks", taskNames.join(", "), preset.tasks.join(", ")],
    ["rank", study.rank, preset.rank],
  ].flatMap(([what, ours, theirs]) => (ours === theirs ? [] : [`${what} ${ours} (preset: ${theirs})`]));
  const parts = taskNames.flatMap((name) => {
    const part = tasks.get(name)?.part;
    return part ? [`${taskTitle(name)} trains on ${part}`] : [];
  });
  return {
    title: "What this can and cannot tell",
    paragraphs: [
      ...preset.tells,
      ...(parts.length > 0 ? [`${parts.join("; ")}.`] : []),
      ...(changed.length > 0
        ? [
            `Flags changed the preset, and what is said of it above may not hold there: ${changed.join("; ")}.`,
          ]
        : []),
      `Every adapter: ${steps} steps, learning rate ${learningRate} for all methods. Standard errors come from the records; ${
        seeds.length > 1
          ? "the verdicts' intervals hold the spread over seeds too, by Student's factor for so few"
          : "with one seed the luck of one training run is not in them"
      }.`,
    ],
  };
}

const COLUMNS = [
  "method",
  "draw",
  "rank",
  "seed",
  "task",
  "model",
  "records",
  "correct",
  "accuracy_percent",
  "held_out_tokens",
  "held_out_nats_per_token",
] as const;

/** A row for every seed, method, task and model, by COLUMNS. */
function figures({ study, variants }: MultiReport): CsvValue[][] {
  return variants.flatMap(({ variant, runs }) =>
    runs.flatMap((run, i) =>
      study.taskNames.flatMap((task) =>
        models.map((model) => {
          const { sets, heldOut } = outcomeOf(run, model, task).cell.tasks;
          const { correct, accuracy } = sets[task]!.scores.generation!;
          const { tokens, loss } = heldOut[task]!;
          const counted = tokens.reduce((sum, count) => sum + count, 0);
          const where = [variant.method, variant.draw, study.rank, study.seeds[i]!, task, model];
          return [...where, sets[task]!.records, correct, accuracy, counted, loss];
        }),
      ),
    ),
  );
}

export function csvOf(report: MultiReport): string {
  return csvText(COLUMNS, figures(report));
}

/** The figures of the CSV and the claims with their numbers, for programs. */
export function jsonOf(report: MultiReport): string {
  const { preset, modelName, taskNames, rank, seeds } = report.study;
  const rows = figures(report).map((row) =>
    Object.fromEntries(COLUMNS.map((name, i) => [name, row[i] ?? null])),
  );
  const claims = claimsOf(report.variants, taskNames);
  const json = {
    experiment: "multi-sbora",
    preset: preset.name,
    model: modelName,
    rank,
    seeds,
    rows,
    claims,
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

export function pictureOf(report: MultiReport): string {
  const { study, variants } = report;
  const row = (ruler: MultiRuler, label: string): BarChart["rows"][number] => ({
    label,
    ...(ruler === "accuracy" ? { top: 100 } : {}),
    panels: variants.map((own) => ({
      title: own.variant.title,
      groups: study.taskNames.map((task) => ({
        title: taskTitle(task),
        bars: models.map((model) => ({
          value: figure(own, model, task, ruler),
          ...(ruler === "accuracy" ? { error: answersError(own, model, task) } : {}),
        })),
      })),
    })),
  });
  return barChart({
    title: title(report),
    series: ["base model", "its own adapter alone", "all adapters merged"],
    rows: [row("accuracy", "right answers, %"), row("loss", "held-out loss, nats")],
    note: "Whiskers: one standard error of the answers' share. Held-out loss: nats a response token, less is better.",
  });
}

/** Binomial, mean over seeds: the records are the same. */
function answersError({ runs }: VariantRuns, model: Model, task: string): number {
  return mean(
    runs.map((run) => outcomeOf(run, model, task).cell.tasks.sets[task]!.scores.generation!.standardError),
  );
}
