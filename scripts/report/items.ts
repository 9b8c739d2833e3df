/** What the paper shows and this repository can make: the order of the page, and the command of every part of it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { PresetName } from "../../experiments/recipes/table3.ts";

export interface Item {
  /** Folder below results, name of the script. */
  readonly name: string;
  /** In the paper. */
  readonly title: string;
  readonly subject: string;
  /** Flags of the presets that it has, without the preset's own. */
  readonly flags: Readonly<Partial<Record<PresetName, string>>>;
}

export const PRESETS: readonly PresetName[] = ["paper", "small", "tiny"];

const model = { tiny: "", small: "--model models/smollm2-135m", paper: "" };
const data = "--data data/llm-adapters";
const trained = {
  tiny: "",
  small: `--model models/smollm2-135m ${data}`,
  paper: `--model models/llama-7b ${data} --compute bf16`,
};
const onLlama3 = { ...trained, paper: `--model models/llama3-8b ${data} --compute bf16` };

/** In the paper's order. */
const known: readonly Item[] = [
  { name: "table1", title: "Table 1", subject: "numbers stored", flags: model },
  { name: "table2", title: "Table 2", subject: "operations for one vector", flags: model },
  { name: "table3", title: "Table 3", subject: "commonsense reasoning", flags: trained },
  { name: "table4", title: "Table 4", subject: "arithmetic reasoning", flags: trained },
  {
    name: "table5",
    title: "Table 5",
    subject: "QSBoRA: NF4 base, MMLU",
    flags: {
      tiny: "",
      small: "--model models/smollm2-135m --data data",
      paper: "--model models/llama-7b --data data",
    },
  },
  {
    name: "figure2",
    title: "Figure 2",
    subject: "the regional update of a merged matrix",
    flags: { ...trained, paper: `--model models/llama-7b ${data}` },
  },
  { name: "figure3", title: "Figure 3", subject: "memory against time, LLaMA-7B", flags: trained },
  { name: "figure4", title: "Figure 4", subject: "memory against time, LLaMA3-8B", flags: onLlama3 },
  {
    name: "multi-sbora",
    title: "Multi-SBoRA",
    subject: "tasks trained apart, merged into one model",
    flags: { tiny: "", small: trained.small },
  },
];

const SCRIPTS = join(import.meta.dir, "../../experiments");

/** Those that this version has a script for. */
export const items: readonly Item[] = known.filter(({ name }) => existsSync(join(SCRIPTS, `${name}.ts`)));

/** What makes an item at a preset; null where it has no such preset. */
export function commandOf({ name, flags }: Item, preset: PresetName): string | null {
  const own = flags[preset];
  if (own === undefined) return null;
  const words = [`bun run experiments/${name}.ts`, preset === "tiny" ? "" : `--preset ${preset}`, own];
  return words.filter(Boolean).join(" ");
}

/** "Table 3", "figure9" */
export function itemTitle(name: string): string {
  return known.find((item) => item.name === name)?.title ?? name;
}

/** What a reader must know before any figure of such a chapter: no figure of a small run may pass for the paper's. */
export function scopeOf(preset: string): string {
  const scopes: Readonly<Record<string, string>> = {
    tiny:
      "Not the paper's experiment: the embedded model of 0.7 million parameters and an invented world. It shows that every " +
      "step works from end to end; no accuracy, time or memory here says anything about the paper's models.",
    small:
      "Not the paper's experiment: a model of 135 million parameters, short training, part of the test records. It compares " +
      "the methods on this model; a verdict here is a verdict about this setting, not about the paper's figures at 7B.",
  };
  return scopes[preset] ?? "A setting of its own; what of the paper it can test stands below.";
}
