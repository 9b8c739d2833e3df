/** What `table1.ts` and `table2.ts` share as commands: flags, the layer, and writing the tables. */
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { choiceFlag, wholeFlag } from "../scripts/arguments.ts";
import { checkRank, methods } from "../src/adapters/registry.ts";
import { writeTextFile } from "../src/formats/files.ts";
import { linearNames } from "../src/model/shapes.ts";
import { closeDevice, type Device, openDevice } from "../src/native/device.ts";
import { csvText } from "../src/reporting/csv.ts";
import { type Manifest, makeManifest } from "../src/reporting/manifest.ts";
import { markdownSections, type Section, textSections } from "../src/reporting/table.ts";
import { makeFolder } from "./cell-file.ts";
import type { LayerSource } from "./one-layer.ts";
import { layerSource } from "./one-layer.ts";
import { type PresetName, tableMethods } from "./recipes/table3.ts";

const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

const RANKS: Readonly<Record<PresetName, number>> = { tiny: 8, small: 32, paper: 32 };

export const LAYER_ARGS = {
  preset: {
    ...text("tiny|small|paper", "Model and rank; paper: LLaMA-7B's shape, no weights"),
    default: "tiny",
  },
  model: text("DIR", "Hugging Face model folder. Default: the embedded model (preset tiny)"),
  linear: { ...text(linearNames.join("|"), "Which linear of the first layer"), default: "up_proj" },
  rank: text("R", "Default: 8 (tiny), 32 (small, paper)"),
  out: text("DIR", "Default: results/<table>/<preset>"),
  "dry-run": { type: "boolean", default: false, description: "Print the formulas; count nothing" },
} as const;

export interface LayerPlan {
  readonly preset: PresetName;
  readonly source: LayerSource;
  readonly rank: number;
}

export interface LayerTable {
  readonly name: "table1" | "table2";
  /** Formulas with their values, nothing counted. */
  readonly planned: (plan: LayerPlan) => Section[];
  /** Formulas, then the table of what was counted, then verdicts; `json` for programs. */
  readonly counted: (device: Device, plan: LayerPlan) => { sections: Section[]; json: object };
}

export async function runLayerTable(table: LayerTable, args: ParsedArgs<typeof LAYER_ARGS>): Promise<void> {
  const preset = choiceFlag(args, "preset", Object.keys(RANKS) as PresetName[])!;
  const source = layerSource(preset, { model: args.model ?? null, linear: args.linear });
  const rank = wholeFlag(args, "rank", 1) ?? RANKS[preset];
  for (const name of tableMethods) checkRank(methods[name], rank, source.shape);
  const plan: LayerPlan = { preset, source, rank };
  if (args["dry-run"]) {
    console.log(textSections(table.planned(plan)));
    return;
  }
  const device = await openDevice({ threads: 1 });
  try {
    const { sections, json } = table.counted(device, plan);
    const out = args.out ?? join("results", table.name, preset);
    makeFolder(out);
    const manifest: Manifest = makeManifest(device, { name: source.modelName, fingerprint: "" }, {});
    writeTextFile(join(out, "table.md"), markdownSections(sections));
    writeTextFile(join(out, "table.json"), `${JSON.stringify({ manifest, ...json }, null, 2)}\n`);
    const [, { table: counts } = {}] = sections;
    const header = counts!.columns.map(({ title }) => title);
    const rows = counts!.rows
      .filter((row) => row !== "line")
      .map((row) => row.map((cell) => cell.replaceAll(",", "")));
    writeTextFile(join(out, "table.csv"), csvText(header, rows));
    console.log(textSections(sections));
    console.log(`\ntable.md, table.csv and table.json in ${out}`);
  } finally {
    closeDevice(device);
  }
}

/** "layers.0.mlp.up_proj [256,128] of sbora-tiny, r = 8" */
export function layerTitle({ source: { shape, modelName }, rank }: LayerPlan): string {
  return `${shape.name} [${shape.out},${shape.in}] of ${modelName}, r = ${rank}`;
}

/** 28049408 -> "28,049,408" */
export function grouped(value: number): string {
  return value.toLocaleString("en-US");
}
