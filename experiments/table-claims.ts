/** The claims of Tables 3 and 4: SBoRA-FA against every other method, on the paper's ruler and on likelihood where it is. */
import type { Measure } from "../src/evaluation/score.ts";
import type { Section } from "../src/reporting/table.ts";
import { aboveZero, type Claim, claimsSection, counted, signed } from "./claims.ts";
import { inMillions, methodTitle } from "./parameters.ts";
import { publishedDifference, publishedParameters } from "./published-table.ts";
import { meanOf, pairedAverage, type Row } from "./summary.ts";
import type { TaskTable } from "./task-tables.ts";

/** The paper's models. */
const MODELS = ["LLaMA-7B", "LLaMA3-8B"] as const;

export interface ClaimInput {
  readonly table: TaskTable;
  readonly modelName: string;
  /** false: questions that were made up, whose accuracies test no claim of the paper. */
  readonly accuracies: boolean;
  /** Task names that have a test set. */
  readonly tasks: readonly string[];
  /** Their columns in the paper. */
  readonly columns: readonly string[];
  /** Trained rows. */
  readonly rows: readonly Row[];
  /** Rulers that are there, the paper's first, and how they are called. */
  readonly measures: readonly (readonly [Measure, string])[];
}

/** null where no claim can be held against what was run. */
export function tableClaims(input: ClaimInput): Section | null {
  const sbora = input.rows.filter(({ method }) => method === "sbora-fa");
  const claims = sbora.flatMap((row) => [
    ...parameterClaims(input, row),
    ...(input.accuracies ? input.rows : [])
      .filter((other) => other.method !== "sbora-fa" && comparable(row, other))
      .flatMap((other) => accuracyClaims(input, row, other)),
  ]);
  if (claims.length === 0) return null;
  const title = `The paper's claims for SBoRA-FA in Table ${input.table.number}, on ${input.modelName}`;
  if (!input.accuracies) {
    return claimsSection(title, claims, [
      "Accuracies on made-up questions test no claim of the paper; how the methods differ on them stands above.",
    ]);
  }
  return claimsSection(title, claims, [
    "holds, does not hold: the 95 % interval of the difference on the same records lies above, below zero; cannot be told: it " +
      "contains zero at this number of records and seeds. One interval in twenty misses by chance.",
    "Paper: differences of the means of its printed cells over the same tasks, at these ranks where it has them, else at 32; " +
      "single runs, so a difference of a point or two is no claim by itself.",
  ]);
}

/** At equal rank, and LoRA at half the rank: about as many trained parameters. */
function comparable(row: Row, other: Row): boolean {
  return other.rank === row.rank || (other.method === "lora" && 2 * other.rank === row.rank);
}

function parameterClaims({ table, rows }: ClaimInput, row: Row): Claim[] {
  const lora = rows.find(({ method, rank }) => method === "lora" && rank === row.rank);
  const [ours, theirs] = [row, lora].map(
    (r) => r && meanOf(r, ({ manifest }) => manifest.trained?.parameters),
  );
  if (!ours || !theirs) return [];
  const paper = MODELS.flatMap((model) => {
    const [a, b] = ["SBoRA-FA", "LoRA"].map((title) => publishedParameters(table.number, model, title, 32));
    return a && b ? [`${a} of ${b} (${model}, r=32)`] : [];
  });
  return [
    {
      claim: `SBoRA-FA ${row.rank} trains at most half of LoRA ${row.rank}'s parameters`,
      verdict: counted(2 * ours <= theirs),
      here: `${inMillions(ours)} of ${inMillions(theirs)} (${((100 * ours) / theirs).toFixed(0)} %)`,
      paper: paper.join(", "),
    },
  ];
}

function accuracyClaims({ table, tasks, columns, measures }: ClaimInput, row: Row, other: Row): Claim[] {
  return measures.flatMap(([measure, name]) => {
    const difference = pairedAverage(row, other, tasks, measure);
    if (!difference) return [];
    const titled = ({ method, rank }: Row) => ({ title: methodTitle(method), rank });
    const theirs = MODELS.map((model) => {
      const value = publishedDifference(table.number, model, columns, titled(row), titled(other));
      return value === null ? "" : `${signed(value)} (${model})`;
    });
    const { value, halfWidth, pairs } = difference;
    return [
      {
        claim: `${methodTitle(row.method)} ${row.rank} above ${methodTitle(other.method)} ${other.rank}: ${name}`,
        verdict: aboveZero(difference),
        here: `${signed(value)} ± ${halfWidth.toFixed(1)} points, ${pairs} seed${pairs > 1 ? "s" : ""}`,
        paper: theirs.filter(Boolean).join(", "),
      },
    ];
  });
}
