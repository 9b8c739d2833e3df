/** What Table 5 prints: ours for every set that was trained on, the paper's beside it, held-out losses, claims, subjects. */
import { letters } from "../src/data/mmlu.ts";
import { type MmluMeasure, mmluMeasures } from "../src/evaluation/mmlu-score.ts";
import {
  type Column,
  MISSING,
  markdownSections,
  right,
  type Section,
  textSections,
} from "../src/reporting/table.ts";
import { signed } from "./claims.ts";
import { type MODELS, mmluClaims, publishedDifferences } from "./mmlu-claims.ts";
import { subjectSections } from "./mmlu-subjects.ts";
import {
  countsOf,
  letterNats,
  type MmluOutcome,
  type MmluRow,
  measuresOf,
  mmluRulers,
  namesOf,
  oneLetter,
  pooledFigure,
  quantizedTitle,
  rowName,
  rowsBySet,
  setTitles,
  splitsOf,
  splitTitles,
  trainedOf,
} from "./mmlu-summary.ts";
import { tellsSection } from "./mmlu-tells.ts";
import { paperModels } from "./models.ts";
import { columns as paperColumns } from "./paper-data.ts";
import { inMillions, methodOfTitle, trainedParameters } from "./parameters.ts";
import { publishedSection } from "./published-table.ts";
import type { MmluPreset, SetName } from "./recipes/table5.ts";
import { averageFigure, type Figure, meanOf, pairedAverage } from "./summary.ts";

export { subjectSections } from "./mmlu-subjects.ts";
export { changedByFlags } from "./mmlu-tells.ts";

export interface MmluReport {
  readonly preset: MmluPreset;
  readonly modelName: string;
  readonly outcomes: readonly MmluOutcome[];
  /** Sets and splits that are not there. */
  readonly missing: readonly string[];
  /** Findings about the data, one paragraph each. */
  readonly remarks: readonly string[];
}

/** Without the subjects, which are a page of their own. */
export function mmluText(report: MmluReport): string {
  return textSections(mmluSections(report));
}

export function mmluMarkdown(report: MmluReport): string {
  return markdownSections([...mmluSections(report), ...subjectSections(report)]);
}

/** Everything that is said, in order. */
export function mmluSections(report: MmluReport): Section[] {
  const sets = rowsBySet(report.outcomes);
  const measures = measuresOf(report);
  const claims = mmluClaims({
    modelName: report.modelName,
    accuracies: report.preset.name !== "tiny",
    sets: sets.map(([set, rows]) => [set, rows.filter(({ method }) => method !== "base")] as const),
    measures: measures.map((measure) => [measure, measure === "labels" ? "letters" : "letters with a space"]),
  });
  const own = sets.flatMap(([set, rows], i) => [
    ...measures.map((measure, j) => accuracySection(report, set, rows, measure, i + j === 0)),
    lossSection(set, rows),
  ]);
  return [
    ...own,
    paperSection(),
    ...sets.map(([set, rows]) => pairedSection(set, rows)).filter((section) => section !== null),
    ...(claims ? [claims] : []),
    tellsSection(report),
  ];
}

function accuracySection(
  { preset, modelName, missing }: MmluReport,
  set: SetName,
  rows: readonly MmluRow[],
  measure: MmluMeasure,
  first: boolean,
): Section {
  const splits = splitsOf(rows).map((split) => ({ split, names: namesOf(rows, split) }));
  const seeds = Math.max(...rows.map(({ outcomes }) => outcomes.length));
  const errors = (figure: Figure | null): string[] => [
    figure?.standardError.toFixed(1) ?? MISSING,
    ...(seeds > 1 ? [figure?.seedError?.toFixed(1) ?? MISSING] : []),
  ];
  const errorColumns = (): Column[] => [right("± SE"), ...(seeds > 1 ? [right("± SE seeds")] : [])];
  const counts = splits.map(({ split, names }) => {
    const { questions, shortened } = countsOf(rows, names);
    const cut = shortened > 0 ? `, ${shortened} of them behind fewer shots or cut` : "";
    return `${splitTitles[split]} ${names.length} subjects, ${questions} questions${cut}`;
  });
  return {
    title:
      `Ours, fine-tuned on ${setTitles[set]}, preset ${preset.name}, ${modelName} in NF4: MMLU with ` +
      `${preset.evaluation.shots} shots by ${mmluRulers[measure]}, %, ${seeds} seed${seeds > 1 ? "s" : ""}`,
    table: {
      columns: [
        { title: "method" },
        right("r"),
        right("trained"),
        right("halved"),
        ...splits.flatMap(({ split }) => [
          right(`${split} macro`),
          ...errorColumns(),
          right(`${split} pooled`),
          ...errorColumns(),
          right("nats"),
        ]),
      ],
      rows: [
        [
          "one letter always",
          ...["", "", ""],
          ...splits.flatMap(({ names }) => {
            const { macro, pooled } = oneLetter(rows, names);
            const blank = errorColumns().map(() => "");
            const nothing = Math.log(letters.length).toFixed(3);
            return [macro.toFixed(1), ...blank, pooled.toFixed(1), ...blank, nothing];
          }),
        ],
        ...rows.flatMap((row): (string[] | "line")[] => {
          const trained = trainedOf(row);
          const cells = [
            quantizedTitle(row.method),
            row.rank > 0 ? `${row.rank}` : "",
            trained === null ? "" : inMillions(trained),
            trained === null ? "" : inMillions(trained / 2),
            ...splits.flatMap(({ names }) => {
              const macro = averageFigure(row, names, measure);
              const pooled = pooledFigure(row, names, measure);
              const nats = letterNats(row, names, measure);
              return [
                ...[shown(macro), ...errors(macro), shown(pooled), ...errors(pooled)],
                nats?.toFixed(3) ?? MISSING,
              ];
            }),
          ];
          return row.method === "base" ? [cells, "line"] : [cells];
        }),
      ],
    },
    paragraphs: first
      ? [
          `${counts.join("; ")}. Macro: plain mean over subjects, as the paper averages; pooled: over questions. nats: mean of ` +
            "−log of the right letter's share among the four, whose likeliest is the answer. The first row: the best of always " +
            "answering A, B, C or D, and equal shares.",
          "halved: the trained parameters as the published script prints them at 4 bit, half of the true ones.",
          ...(missing.length > 0 ? [`Not there: ${missing.join(", ")}.`] : []),
        ]
      : [],
  };
}

function shown(figure: Figure | null): string {
  return figure ? figure.value.toFixed(1) : MISSING;
}

function shownNumber(value: number | null, digits = 1): string {
  return value !== null && Number.isFinite(value) ? value.toFixed(digits) : MISSING;
}

function lossSection(set: SetName, rows: readonly MmluRow[]): Section {
  return {
    title: `${setTitles[set]}: loss on held-out replies (nats a token), and what training took`,
    table: {
      columns: [
        { title: "method" },
        right("r"),
        right("beside W"),
        right("merged"),
        right("lowest"),
        right("at step"),
        right("planned MiB"),
        right("ms a step"),
        right("tokens/s"),
        right("asked in s"),
      ],
      rows: rows.map((row) => {
        const trained = row.method !== "base";
        const facts = (read: (facts: NonNullable<ManifestFacts>) => number | null): number | null =>
          meanOf(row, ({ manifest }) => manifest.trained && read(manifest.trained));
        const ifTrained = (value: number | null, digits: number): string =>
          trained ? shownNumber(value, digits) : "";
        const perSecond = meanOf(row, ({ timing }) => timing.tokensPerSecond);
        return [
          quantizedTitle(row.method),
          row.rank > 0 ? `${row.rank}` : "",
          shownNumber(
            meanOf(row, ({ tasks }) => tasks.heldOut?.unmerged),
            4,
          ),
          shownNumber(
            meanOf(row, ({ tasks }) => tasks.heldOut?.merged),
            4,
          ),
          ifTrained(
            facts(({ bestValidationLoss }) => bestValidationLoss),
            4,
          ),
          ifTrained(
            facts(({ bestStep }) => bestStep),
            0,
          ),
          ifTrained(
            facts(({ planned }) => Object.values(planned).reduce((sum, bytes) => sum + bytes, 0) / 2 ** 20),
            1,
          ),
          ifTrained(
            meanOf(row, ({ timing }) => 1000 * timing.stepSeconds),
            0,
          ),
          ifTrained(perSecond, 0),
          shownNumber(
            meanOf(row, ({ timing }) => timing.evaluateSeconds),
            0,
          ),
        ];
      }),
    },
    paragraphs: [
      "beside W and merged: with the adapter of the last step, which is also the one that is asked; lowest: over the steps that were " +
        "validated on the same records. Merged, SBoRA leaves the 4-bit codes and replaces its columns or rows; the other methods " +
        "replace every weight by one of the compute type. planned MiB: weights, trained state, saved activations and scratch.",
    ],
  };
}

type ManifestFacts = MmluOutcome["cell"]["manifest"]["trained"];

/** The paper's rows with the true parameter counts beside the halved ones it prints. */
function paperSection(): Section {
  return publishedSection(
    5,
    paperColumns[5],
    [],
    [
      {
        title: "true",
        cell: ({ model, method, rank }) => {
          const shape = paperModels[model as (typeof MODELS)[number]];
          return inMillions(trainedParameters(shape, methodOfTitle(method)!, rank!, ["all-linear"]));
        },
      },
    ],
  );
}

/** Every row against QLoRA (the first row where there is none), on the same questions. */
function pairedSection(set: SetName, rows: readonly MmluRow[]): Section | null {
  const trained = rows.filter(({ method }) => method !== "base");
  const reference = trained.find(({ method }) => method === "lora") ?? trained[0];
  const splits = splitsOf(rows);
  const compared = trained.filter((row) => row !== reference);
  if (!reference || compared.length === 0) return null;
  const measures = mmluMeasures.filter((measure) =>
    averageFigure(reference, namesOf(rows, splits[0]!), measure),
  );
  const printed = compared.some((row) => publishedDifferences(set, row, reference) !== "");
  return {
    title: `${setTitles[set]}: differences from ${rowName(reference)} on the same questions, points of the macro average`,
    table: {
      columns: [
        { title: "method" },
        ...splits.flatMap((split) =>
          measures.flatMap((measure) => [
            right(`${split}${measure === "labels" ? "" : ", spaced"}`),
            right("± 95 %"),
            { title: "" },
          ]),
        ),
        ...(printed ? [{ title: "paper" }] : []),
      ],
      rows: compared.map((row) => [
        rowName(row),
        ...splits.flatMap((split) =>
          measures.flatMap((measure) => {
            const difference = pairedAverage(row, reference, namesOf(rows, split), measure);
            if (!difference) return [MISSING, MISSING, ""];
            const { value, halfWidth } = difference;
            return [signed(value), halfWidth.toFixed(1), Math.abs(value) > halfWidth ? "differs" : ""];
          }),
        ),
        ...(printed ? [publishedDifferences(set, row, reference)] : []),
      ]),
    },
    paragraphs: [
      "± 95 %: half of the interval, from the questions' own differences and, with several seeds, from the seeds' (Student).",
    ],
  };
}
