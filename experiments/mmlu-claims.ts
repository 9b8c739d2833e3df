/** The claims of Table 5: QSBoRA-FA against every other row of its rank, rank 128 against 64, and trained parameters. */
import type { MmluMeasure } from "../src/evaluation/mmlu-score.ts";
import type { Section } from "../src/reporting/table.ts";
import { aboveZero, type Claim, claimsSection, counted, signed } from "./claims.ts";
import {
  type MmluRow,
  namesOf,
  quantizedTitle,
  rowName,
  setTitles,
  splitsOf,
  splitTitles,
  trainedOf,
} from "./mmlu-summary.ts";
import { inMillions } from "./parameters.ts";
import { publishedDifference, publishedParameters } from "./published-table.ts";
import type { SetName } from "./recipes/table5.ts";
import { pairedAverage } from "./summary.ts";

/** The paper's models. */
export const MODELS = ["LLaMA-7B", "LLaMA-13B", "LLaMA3-8B"] as const;

export interface MmluClaimInput {
  readonly modelName: string;
  /** false: questions that were made up, whose accuracies test no claim of the paper. */
  readonly accuracies: boolean;
  readonly sets: readonly (readonly [SetName, readonly MmluRow[]])[];
  /** Rulers that are there, and how they are called. */
  readonly measures: readonly (readonly [MmluMeasure, string])[];
}

/** null where no claim can be held against what was run. */
export function mmluClaims(input: MmluClaimInput): Section | null {
  const { modelName, accuracies, sets } = input;
  const parameters = sets.slice(0, 1).flatMap(([, rows]) => parameterClaims(rows));
  const others = accuracies ? sets.flatMap(([set, rows]) => accuracyClaims(input, set, rows)) : [];
  const claims = [...parameters, ...others];
  if (claims.length === 0) return null;
  const title = `The paper's claims in Table 5, on ${modelName}`;
  if (!accuracies) {
    return claimsSection(title, claims, ["Accuracies on made-up questions test no claim of the paper."]);
  }
  return claimsSection(title, claims, [
    "holds, does not hold: the 95 % interval of the difference of the macro averages, on the same questions, lies above, below " +
      "zero; cannot be told: it contains zero at this number of questions and seeds. One interval in twenty misses by chance.",
    "Paper: differences of its printed cells, single runs: a difference of a point or two is no claim by itself.",
  ]);
}

function parameterClaims(rows: readonly MmluRow[]): Claim[] {
  return rows
    .filter(({ method }) => method === "sbora-fa" || method === "sbora-fb")
    .flatMap((row) => {
      const lora = rows.find(({ method, rank }) => method === "lora" && rank === row.rank);
      const [ours, theirs] = [trainedOf(row), lora ? trainedOf(lora) : null];
      if (ours === null || theirs === null) return [];
      const paper = MODELS.flatMap((model) => {
        const [a, b] = [row.method, "lora"].map((method) =>
          publishedParameters(5, model, quantizedTitle(method), row.rank),
        );
        return a && b ? [`${a} of ${b} (${model}, both halved)`] : [];
      });
      return [
        {
          claim: `${rowName(row)} trains about half of ${rowName(lora!)}'s parameters (at most 60 %)`,
          verdict: counted(ours <= 0.6 * theirs),
          here: `${inMillions(ours)} of ${inMillions(theirs)} (${((100 * ours) / theirs).toFixed(0)} %)`,
          paper: paper.join(", "),
        },
      ];
    });
}

function accuracyClaims(input: MmluClaimInput, set: SetName, rows: readonly MmluRow[]): Claim[] {
  const fa = rows.filter(({ method }) => method === "sbora-fa");
  const against = fa.flatMap((row) =>
    rows
      .filter(({ method, rank }) => rank === row.rank && method !== "sbora-fa")
      .map((other) => [row, other] as const),
  );
  const wider = rows
    .filter(({ method }) => method.startsWith("sbora-"))
    .flatMap((row) =>
      rows
        .filter(({ method, rank }) => method === row.method && rank < row.rank)
        .map((other) => [row, other] as const),
    );
  return [...against, ...wider].flatMap(([row, other]) =>
    splitsOf(rows).flatMap((split) =>
      input.measures.flatMap(([measure, name]): Claim[] => {
        const difference = pairedAverage(row, other, namesOf(rows, split), measure);
        if (!difference) return [];
        const { value, halfWidth, pairs } = difference;
        return [
          {
            claim: `${setTitles[set]}: ${rowName(row)} above ${rowName(other)}, ${splitTitles[split]}, ${name}`,
            verdict: aboveZero(difference),
            here: `${signed(value)} ± ${halfWidth.toFixed(1)} points, ${pairs} seed${pairs > 1 ? "s" : ""}`,
            paper: publishedDifferences(set, row, other),
          },
        ];
      }),
    ),
  );
}

/** "+1.4 (LLaMA-7B), …" of the paper's printed cells; "" where it has none. */
export function publishedDifferences(set: SetName, a: MmluRow, b: MmluRow): string {
  const titled = ({ method, rank }: MmluRow) => ({ title: quantizedTitle(method), rank });
  return MODELS.flatMap((model) => {
    const value = publishedDifference(5, model, [setTitles[set]], titled(a), titled(b));
    return value === null ? [] : [`${signed(value)} (${model})`];
  }).join(", ");
}
