/**
 * Figure 2 of the paper: the regional update. A merged matrix beside the base's, read from the two files: LoRA changes all of
 * it, SBoRA-FA r columns, SBoRA-FB r rows. Merged models are named with --merged, or trained and merged here for the purpose.
 */
import { basename, join } from "node:path";
import type { ParsedArgs } from "citty";
import { choiceFlag, listFlag, runCommand, wholeFlag } from "../scripts/arguments.ts";
import type { MethodName } from "../src/adapters/adapter.ts";
import { checkRank, methodNamed } from "../src/adapters/registry.ts";
import { InputError } from "../src/errors.ts";
import { writeTextFile } from "../src/formats/files.ts";
import { readLlamaConfig } from "../src/formats/hf-config.ts";
import { openModelTensors } from "../src/formats/safetensors.ts";
import { linearNames, linearPath, targetedLinears } from "../src/model/shapes.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";
import { fileHash, type Manifest, makeManifest } from "../src/reporting/manifest.ts";
import { startProgress } from "../src/reporting/progress.ts";
import { markdownSections, textSections } from "../src/reporting/table.ts";
import { paperRecipe } from "../src/training/recipe.ts";
import { makeFolder } from "./cell-file.ts";
import { methodTitle } from "./parameters.ts";
import type { PresetName } from "./recipes/table3.ts";
import {
  type RegionalReport,
  regionalCsv,
  regionalJson,
  regionalOf,
  regionalPicture,
  regionalSections,
} from "./regional-report.ts";
import { type MergedModel, openMerged, withTrainedMerges } from "./regional-study.ts";
import { dataFolder, modelFolder, slug, trainingFileIn } from "./study.ts";
import { writeTinySums } from "./tiny/data.ts";

const EXAMPLES = `Examples
  bun run experiments/figure2.ts
        the embedded tiny model, fine-tuned a little by three methods and merged: a minute, no download
  bun run experiments/figure2.ts --preset small --model models/smollm2-135m --data data/llm-adapters --linear down_proj
  bun run experiments/figure2.ts --preset small --model models/smollm2-135m --merged merged-lora,merged-sbora
        models that scripts/merge.ts has made of this base; nothing is trained
  bun run experiments/figure2.ts --preset small --model DIR --data DIR --dry-run

figure.svg, figure.csv, figure.json and figure.md are written to --out.`;

const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

const ARGS = {
  preset: { ...text("tiny|small|paper", "Model and data together"), default: "tiny" },
  model: text("DIR", "The base. Default: the embedded model (preset tiny)"),
  data: text("DIR", "LLM-Adapters' files. Default: the tiny world's (preset tiny)"),
  merged: text("DIR,DIR", "Merged models of this base. Default: trained and merged here"),
  methods: { ...text("a,b", "What is trained here"), default: "lora,sbora-fa,sbora-fb" },
  rank: text("R", "Default: 8 (tiny), 32"),
  steps: text("N", "Optimizer steps of each. Default: 20"),
  linear: { ...text(linearNames.join("|"), "Which matrix is shown"), default: "up_proj" },
  layer: { ...text("N", "Of which layer, from 0"), default: "0" },
  out: text("DIR", "Default: results/figure2/<preset>"),
  "dry-run": { type: "boolean", default: false, description: "Print what would be done; train nothing" },
} as const;

const TRAINING_FILES: Readonly<Record<PresetName, string>> = {
  tiny: "tiny_math.json",
  small: "math_8k.json",
  paper: "math_10k.json",
};

async function figure2(args: ParsedArgs<typeof ARGS>): Promise<void> {
  const preset = choiceFlag(args, "preset", Object.keys(TRAINING_FILES) as PresetName[])!;
  const out = args.out ?? join("results", "figure2", preset);
  const flags = { model: args.model ?? null, data: args.data ?? null, out };
  const modelDir = modelFolder({ name: preset, model: "smollm2-135m" }, flags);
  const config = readLlamaConfig(modelDir);
  const layer = wholeFlag(args, "layer", 0)!;
  if (layer >= config.layers)
    throw new InputError(`--layer is ${layer}; the model has ${config.layers}, from 0.`);
  const linear = choiceFlag(args, "linear", linearNames)!;
  const rank = wholeFlag(args, "rank", 1) ?? (preset === "tiny" ? 8 : 32);
  const methods = listFlag(args, "methods")!.map((name) => methodNamed(name).name);
  const sites = targetedLinears(config, paperRecipe.targets);
  for (const name of methods) for (const site of sites) checkRank(methodNamed(name), rank, site);
  const report = {
    modelName: flags.model === null ? preset : slug(basename(modelDir)),
    matrix: `model.${linearPath(layer, linear)}.weight`,
    base: openModelTensors(modelDir),
    adapted: sites.map(({ name }) => `model.${name}.weight`),
  };
  const named = listFlag(args, "merged");
  const steps = wholeFlag(args, "steps", 1) ?? 20;
  if (args["dry-run"]) {
    const made = named
      ? `reads ${named.join(", ")}`
      : `trains ${methods.join(", ")} at r = ${rank}, ${steps} steps each, and merges`;
    console.log(`${made}; shows ${report.matrix} of ${report.modelName}, writes to ${out}`);
    return;
  }
  const device = await openDevice();
  const show = (merged: readonly MergedModel[], data: Manifest["data"]): void => {
    const manifest = makeManifest(device, { name: report.modelName, fingerprint: "" }, data);
    write({ ...report, merged }, manifest, out);
  };
  const lines = new Map<MethodName, ReturnType<typeof startProgress>>();
  try {
    if (named) {
      show(named.map(openMerged), {});
      return;
    }
    const training = { name: preset, trainingFile: TRAINING_FILES[preset] };
    const dataFile = trainingFileIn(dataFolder({ writeTinyData: writeTinySums }, training, flags), training);
    const onStep = (method: MethodName, step: number, of: number): void => {
      if (!lines.has(method)) lines.set(method, startProgress(methodTitle(method), of));
      lines.get(method)!.update(step);
      if (step === of) lines.get(method)!.end();
    };
    await withTrainedMerges({ device, modelDir, dataFile, methods, rank, steps, onStep }, (merged) =>
      show(merged, { [basename(dataFile)]: fileHash(dataFile) }),
    );
  } finally {
    closeDevice(device);
  }
}

function write(report: RegionalReport, manifest: Manifest, out: string): void {
  const found = regionalOf(report);
  const sections = regionalSections(report, found);
  makeFolder(out);
  writeTextFile(join(out, "figure.svg"), regionalPicture(report, found));
  writeTextFile(join(out, "figure.csv"), regionalCsv(found));
  writeTextFile(join(out, "figure.json"), regionalJson(report, found, manifest));
  writeTextFile(join(out, "figure.md"), `![](figure.svg)\n\n${markdownSections(sections)}`);
  console.log(textSections(sections));
  console.log(`\nfigure.svg, .csv, .json and .md in ${out}`);
}

await runCommand({
  name: "bun run experiments/figure2.ts",
  description: "Figure 2: which columns and rows of a matrix a merge changed.",
  args: ARGS,
  examples: EXAMPLES,
  run: figure2,
});
