/** What Table 5 of this size can and cannot tell, and what the flags changed of its preset. */
import type { Section } from "../src/reporting/table.ts";
import type { MmluReport } from "./mmlu-report.ts";
import { setTitles } from "./mmlu-summary.ts";

/** What the flags changed of the preset: sentences about the preset do not hold there. */
export function changedByFlags({ preset, modelName, outcomes }: MmluReport): string[] {
  const changed = (what: string, ours: unknown, theirs: unknown): string[] =>
    `${ours}` === `${theirs}` ? [] : [`${what} ${ours ?? "all"} (preset: ${theirs ?? "all"})`];
  const recipes = outcomes.map(({ cell }) => cell.recipe);
  const { evaluation } = recipes[0]!;
  const own = preset.sets.flatMap(({ name, training: theirs }) => {
    const ours = recipes.find(({ set, training }) => set === name && training)?.training;
    if (!ours) return [];
    return (["steps", "learningRate", "compute"] as const).flatMap((field) =>
      changed(`${setTitles[name]}: ${field}`, ours[field], theirs[field]),
    );
  });
  const qdora = recipes.find(({ training }) => training?.method === "dora")?.training;
  return [
    ...changed("model", modelName, preset.model),
    ...own,
    ...(qdora ? changed("QDoRA's norm", qdora.doraNorm ?? "scaled", preset.doraNorm) : []),
    ...changed("questions a subject", evaluation.limit, preset.evaluation.limit),
    ...changed("longest prompt", evaluation.maxTokens, preset.evaluation.maxTokens),
    ...changed("too long prompts", evaluation.overlong, preset.evaluation.overlong),
    ...changed("subjects", evaluation.subjects?.join("+") ?? null, null),
  ];
}

const NORMS = {
  unscaled:
    "QDoRA divides by ‖W + B·A‖, without s and detached, and m starts anew while B·A is zero: the official 4-bit code's norm, not " +
    "that of Tables 3 and 4 (--dora-norm scaled).",
  scaled:
    "QDoRA divides by ‖W + s·B·A‖ as DoRA does in Tables 3 and 4; the official 4-bit code leaves s out.",
} as const;

export function tellsSection(report: MmluReport): Section {
  const { preset, outcomes, remarks } = report;
  const changed = changedByFlags(report);
  const recipes = outcomes.map(({ cell }) => cell.recipe);
  const qdora = recipes.find(({ training }) => training?.method === "dora")?.training;
  const seeds = new Set(recipes.flatMap(({ training }) => training?.seed ?? []));
  const rates = new Set(recipes.flatMap(({ training }) => training?.learningRate ?? []));
  return {
    title: "What this can and cannot tell",
    paragraphs: [
      ...preset.tells,
      `Differs from the protocol: ${preset.differs.join("; ")}.`,
      ...(qdora ? [NORMS[qdora.doraNorm ?? "scaled"]] : []),
      ...(changed.length > 0
        ? [
            `Flags changed the preset, and what is said of it above does not hold there: ${changed.join("; ")}.`,
          ]
        : []),
      ...remarks,
      `Standard errors come from the number of questions alone; ${
        seeds.size > 1
          ? "those from the spread over seeds stand beside them"
          : "with one seed the luck of one training run is not in them"
      }. One learning rate (${[...rates].join(", ")}) for all methods.`,
    ],
  };
}
