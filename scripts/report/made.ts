/** How the files of a chapter were made: what all have in common once, what differs in a table, everything in folds. */
import { basename } from "node:path";
import { inMillions } from "../../experiments/parameters.ts";
import { htmlCode, htmlFacts, htmlFold, htmlHeading, htmlTable } from "../../src/reporting/html.ts";
import { formatSeconds } from "../../src/reporting/progress.ts";
import { MISSING, right, type Table } from "../../src/reporting/table.ts";
import type { Made } from "./read.ts";

/** What a file may say; whoever wrote it has not said all of it. */
interface Facts {
  readonly name: string;
  readonly command: string;
  readonly commit: string;
  readonly machine: string;
  readonly threads: string;
  readonly seeds: string;
  readonly trained: string;
  readonly training: string;
  readonly evaluation: string;
  readonly planned: string;
  readonly peak: string;
  readonly finished: string;
}

type Loose = Readonly<Record<string, unknown>>;

export function madeSection(made: readonly Made[]): string[] {
  if (made.length === 0) return [];
  const facts = made.map(factsOf);
  const shared = (read: (one: Made) => string): string => distinct(made.map(read)).join("; ") || MISSING;
  return [
    htmlHeading("How this was made"),
    htmlFacts([
      ["processor", distinct(facts.map(({ machine }) => machine)).join("; ")],
      ["threads", distinct(facts.map(({ threads }) => threads)).join(", ") || MISSING],
      ["versions", shared(({ file: { manifest: m } }) => `sbora ${m.sbora}, Bun ${m.bun}, ${m.platform}`)],
      ["commits", distinct(facts.map(({ commit }) => commit)).join(", ") || MISSING],
      ["seeds", distinct(facts.flatMap(({ seeds }) => seeds.split(", "))).join(", ") || MISSING],
      ["base model", shared(({ file: { manifest: m } }) => fingerprinted(m.model))],
    ]),
    htmlTable(tableOf(facts), "Every file: time, memory, commit"),
    ...dataFold(made),
    htmlFold(`Manifest of every file (${made.length})`, made.map(manifestFold)),
  ];
}

/** A model is what its tensors are; the folder it lay in is the run's own affair. */
function fingerprinted({ name, fingerprint }: { name: string; fingerprint: string }): string {
  const own = basename(name);
  return fingerprint === "" ? own : `${own}, SHA-256 of its tensors ${fingerprint}`;
}

/** Columns of which no file says anything are left out. */
function tableOf(facts: readonly Facts[]): Table {
  const columns = [
    ["trained", "trained"],
    ["training", "training"],
    ["evaluation", "evaluation"],
    ["planned", "planned MiB"],
    ["peak", "peak MiB"],
    ["commit", "commit"],
    ["finished", "finished (UTC)"],
  ] as const satisfies (readonly [keyof Facts, string])[];
  const shown = columns.filter(([key]) => facts.some((one) => one[key] !== ""));
  const left = ["commit", "finished"];
  return {
    columns: [
      { title: "file" },
      ...shown.map(([key, title]) => (left.includes(key) ? { title } : right(title))),
    ],
    rows: facts.map((one) => [one.name, ...shown.map(([key]) => one[key] || MISSING)]),
  };
}

function factsOf({ name, file }: Made): Facts {
  const { manifest } = file;
  const timing = loose(file.timing);
  const recipe = loose(file.recipe);
  const trained = loose(manifest.trained);
  const threads = number(timing.threads) ?? number(manifest.threads);
  const parameters = number(trained.parameters) ?? number(manifest.parameters);
  const planned = Object.values(loose(trained.planned)).map((bytes) => number(bytes) ?? 0);
  const peak = number(timing.peak);
  return {
    name,
    command: text(timing.command) || text(manifest.command),
    commit: (manifest.commit ?? "").replace(/^(.{10})[0-9a-f]*/, "$1"),
    machine: `${manifest.processor}, ${manifest.isa}`,
    threads: threads === null ? "" : `${threads}`,
    seeds: seedsOf(recipe).join(", "),
    trained: parameters === null ? "" : inMillions(parameters),
    training: duration(number(timing.trainSeconds) ?? number(timing.seconds)),
    evaluation: duration(number(timing.evaluateSeconds)),
    planned: planned.length === 0 ? "" : mebibytes(planned.reduce((sum, bytes) => sum + bytes, 0)),
    peak: peak === null ? "" : mebibytes(peak),
    finished: text(timing.finished).slice(0, 16).replace("T", " "),
  };
}

/** Of the training, or of every adapter; the base has only that of its held-out records. */
function seedsOf(recipe: Loose): number[] {
  const adapters = Array.isArray(recipe.adapters)
    ? recipe.adapters.map((one) => loose(loose(one).training))
    : [];
  const seeds = [loose(recipe.training), ...adapters]
    .map(({ seed }) => number(seed))
    .filter((seed) => seed !== null);
  const held = number(loose(recipe.heldOut).seed);
  return seeds.length === 0 && held !== null ? [held] : seeds;
}

function dataFold(made: readonly Made[]): string[] {
  const rows = distinct(
    made.flatMap(({ file }) => Object.entries(file.manifest.data).map(([name, hash]) => `${name}\n${hash}`)),
  ).map((line) => line.split("\n"));
  if (rows.length === 0) return [];
  const table = { columns: [{ title: "file" }, { title: "SHA-256" }], rows };
  return [
    htmlFold(`Data files (${rows.length}) and their hashes`, [
      htmlTable(table, "Data files and their hashes"),
    ]),
  ];
}

function manifestFold(made: Made): string {
  const { recipe, recipeHash, manifest, timing } = made.file;
  const facts = factsOf(made);
  // Curves hold hundreds of samples and steps: the picture shows them.
  const short = Object.fromEntries(
    Object.entries(loose(timing)).filter(([, value]) => !Array.isArray(value) || value.length < 16),
  );
  return htmlFold(made.name, [
    ...(facts.command === "" ? [] : [htmlCode(facts.command)]),
    htmlCode(JSON.stringify({ recipeHash, manifest, timing: short, recipe }, null, 2)),
  ]);
}

function loose(value: unknown): Loose {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Loose) : {};
}

function number(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function duration(seconds: number | null): string {
  return seconds !== null && seconds > 0 ? formatSeconds(seconds) : "";
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(0);
}

function distinct(values: readonly string[]): string[] {
  return [...new Set(values.filter(Boolean))];
}
