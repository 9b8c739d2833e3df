/** The file of one cell of Table 5: as those of Tables 3 and 4, with MMLU's subjects in place of tasks. */
import type { MmluSplit } from "../src/data/mmlu.ts";
import type { Quantization } from "../src/model/nf4.ts";
import type { TrainRecipe } from "../src/training/recipe.ts";
import type { CellFile, CellPlace, CellTasks, TaskResult } from "./cell-file.ts";
import type { PresetName } from "./recipes/table3.ts";
import type { MmluEvaluation, SetName } from "./recipes/table5.ts";

/** Everything that decides a cell's numbers. */
export interface MmluRecipe {
  readonly table: "table5";
  readonly preset: PresetName;
  readonly set: SetName;
  /** Rows drawn of the set, where it is a collection. */
  readonly sample: number | null;
  /** null: the base as it is. */
  readonly training: TrainRecipe | null;
  readonly base: { readonly quantize: Quantization; readonly compute: TrainRecipe["compute"] };
  /** `adapter`: asked is the one of the last step, beside the weights. */
  readonly evaluation: MmluEvaluation & { readonly adapter: "last" };
  /** Which training records are held out, and where they are cut. */
  readonly heldOut: { readonly records: number; readonly seed: number } & NonNullable<TrainRecipe["lengths"]>;
  readonly inputs: {
    /** Fingerprint of the base, SHA-256 of its tokenizer.json and of the prompt format's forms. */
    readonly base: string;
    readonly tokenizer: string;
    readonly prompt: string;
    /** SHA-256 of what is trained on, and of each split's files; null: not there. */
    readonly training: string;
    readonly mmlu: Readonly<Record<MmluSplit, string | null>>;
  };
}

/** One subject. */
export interface MmluResult extends TaskResult {
  /** Mean of −log of the right letter's share among the four, nats: log 4 = 1.386 is knowing nothing. */
  readonly labelNats: number;
  /** The same by the letters with a space; null where those are no other tokens. */
  readonly spacedNats: number | null;
  /** Prompts that were too long. */
  readonly shortened: number;
}

export interface MmluTasks extends CellTasks {
  /** By `<split>/<subject>`. */
  readonly sets: Readonly<Record<string, MmluResult>>;
}

export interface MmluCell extends Omit<CellFile, "recipe" | "tasks"> {
  readonly recipe: MmluRecipe;
  readonly tasks: MmluTasks;
}

export interface MmluPlan {
  readonly place: CellPlace;
  readonly recipe: MmluRecipe;
  /** What it trains with; of the base what its held-out records are split and cut by. */
  readonly training: TrainRecipe;
}

/** Name of a subject's results in a cell. */
export function resultName(split: MmluSplit, subject: string): string {
  return `${split}/${subject}`;
}
