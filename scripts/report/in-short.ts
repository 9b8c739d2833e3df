/** What a table says in a few sentences, all of them figures: nothing is judged here that the table does not judge. */
import { inMillions } from "../../experiments/parameters.ts";
import { averageFigure, majorityOf, meanOf, type Row } from "../../experiments/summary.ts";
import { recordsOf, rowTitle } from "../../experiments/table-picture.ts";
import type { ReportInput, ReportParts } from "../../experiments/table-report.ts";
import type { Measure } from "../../src/evaluation/score.ts";
import { mean } from "../../src/reporting/statistics.ts";
import { verdictsIn } from "./chapter.ts";
import { commandOf, items } from "./items.ts";
import type { CollectedCell } from "./read.ts";

export function inShort(input: ReportInput, rows: readonly Row[], { claims }: ReportParts): string[] {
  const trained = rows.filter(({ method }) => method !== "base");
  const seeds = Math.max(1, ...rows.map(({ outcomes }) => outcomes.length));
  const tasks = input.tasks.filter((task) => !input.missing.includes(task));
  const where = `${recordsOf(rows, tasks)} test records of each of ${tasks.length} tasks, ${seeds} seed${seeds > 1 ? "s" : ""}.`;
  return [
    `${trained.length} trained rows${trained.length < rows.length ? " and the base" : ", no base row"}; ${where}`,
    ...(input.missing.length > 0
      ? [`Test sets that were not there: ${input.missing.join(", ")}. Averages are over the others.`]
      : []),
    ...missingInShort(input, rows),
    ...parametersInShort(trained),
    ...lossInShort(rows, trained, seeds),
    ...answersInShort(input, trained),
    ...verdictsInShort(claims),
  ];
}

/** Cells of the preset that are not there, and what runs them; another model or other flags have no plan to be held to. */
function missingInShort({ table, preset, modelName }: ReportInput, rows: readonly Row[]): string[] {
  if (modelName !== preset.model) return [];
  const planned = preset.groups.flatMap(({ methods, ranks }) =>
    ranks.flatMap((rank) => methods.map((method) => ({ method, rank }))),
  );
  const gaps = planned.flatMap(({ method, rank }) => {
    const row = rows.find((one) => one.method === method && one.rank === rank);
    const there = row?.outcomes.map(({ cell }) => cell.recipe.training?.seed) ?? [];
    const seeds = preset.seeds.filter((seed) => !there.includes(seed));
    return seeds.length > 0 ? [`${rowTitle({ method, rank })} (seed ${seeds.join(", ")})`] : [];
  });
  const all = [...(rows.some(({ method }) => method === "base") ? [] : ["base"]), ...gaps];
  const item = items.find(({ name }) => name === table.name);
  const command = item && commandOf(item, preset.name);
  return all.length > 0
    ? [`Not run of this preset: ${all.join("; ")}.${command ? ` The rest comes by: ${command}` : ""}`]
    : [];
}

function parametersInShort(trained: readonly Row[]): string[] {
  return trained.flatMap((row) => {
    const lora = trained.find(({ method, rank }) => method === "lora" && rank === row.rank);
    const count = (of: Row | undefined): number | null =>
      of ? meanOf(of, ({ manifest }) => manifest.trained?.parameters) : null;
    const [ours, theirs] = [count(row), count(lora)];
    if (row.method !== "sbora-fa" || !ours || !theirs) return [];
    const share = `${((100 * ours) / theirs).toFixed(0)} % of LoRA's ${inMillions(theirs)}`;
    return [`${rowTitle(row)} trains ${inMillions(ours)} parameters, ${share}.`];
  });
}

function lossInShort(rows: readonly Row[], trained: readonly Row[], seeds: number): string[] {
  const lossOf = (row: Row): number | null => meanOf(row, ({ tasks }) => tasks.heldOut?.merged);
  const base = rows.find(({ method }) => method === "base");
  const losses = trained.map(lossOf).filter((loss) => loss !== null);
  if (!base || losses.length === 0) return [];
  const [least, most] = [Math.min(...losses), Math.max(...losses)];
  const unsure = seeds > 1 ? "" : "; one seed a row says nothing of how much of that is luck";
  return [
    `Held-out loss: ${lossOf(base)?.toFixed(4) ?? "–"} (base), ${least.toFixed(4)} to ${most.toFixed(4)} after training` +
      `${losses.length > 1 ? `, ${(most - least).toFixed(4)} between the methods${unsure}` : ""}.`,
  ];
}

function answersInShort(input: ReportInput, trained: readonly Row[]): string[] {
  const measure: Measure = "generation";
  const values = trained.flatMap((row) => averageFigure(row, input.tasks, measure)?.value ?? []);
  const present = input.tasks.map((task) => majorityOf(trained, task)).filter((value) => value !== null);
  if (values.length === 0 || present.length === 0) return [];
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const always = mean(present);
  const parsed = trained.flatMap((row) => meanOf(row, parsedOf) ?? []);
  const below =
    most < always && parsed.length > 0
      ? ` No row reaches it: rows differ in how often an answer of the asked form was found (${Math.min(...parsed).toFixed(0)} to ${Math.max(...parsed).toFixed(0)} %).`
      : "";
  return [
    `Generated answers: ${least.toFixed(1)} to ${most.toFixed(1)} % right; always the most frequent answer: ${always.toFixed(1)} %.${below}`,
  ];
}

function parsedOf({ tasks }: CollectedCell["cell"]): number | null {
  const shares = Object.values(tasks.sets).flatMap((set) => set?.parsed ?? []);
  return shares.length === 0 ? null : mean(shares);
}

function verdictsInShort(claims: ReportParts["claims"]): string[] {
  const { holds, not, open } = verdictsIn(claims ? [claims] : []);
  if (holds + not + open === 0) return [];
  return [
    `Claims of the paper, held against this setting: ${holds} hold, ${not} do not, ${open} cannot be told.`,
  ];
}
