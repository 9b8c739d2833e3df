/** What `figure3.ts` and `figure4.ts` share as commands: their flags, and running the curves one after the other. */
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { COMPUTE_TYPES, choiceFlag, formatSize, listFlag, wholeFlag } from "../scripts/arguments.ts";
import { stopOnSignals } from "../scripts/stop.ts";
import { methodNames } from "../src/adapters/adapter.ts";
import { readInstructionRecords } from "../src/data/records.ts";
import { withTemporaryFolder, writeTextFile } from "../src/formats/files.ts";
import { formatSeconds, startProgress } from "../src/reporting/progress.ts";
import { markdownSections, right, textSections, textTable } from "../src/reporting/table.ts";
import { prepareRun } from "../src/training/prepare.ts";
import { curveMethods, curveRanks, type MemoryFigure } from "./memory-recipe.ts";
import { memoryCsv, memoryJson, memoryPicture, memorySections } from "./memory-report.ts";
import { type CurveFile, type MemoryStudy, openMemoryStudy, runCurve } from "./memory-study.ts";
import { wholeList } from "./number-lists.ts";
import { inMillions, methodTitle } from "./parameters.ts";
import type { PresetName } from "./recipes/table3.ts";
import { sayStopped } from "./run-progress.ts";

const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

export const FIGURE_ARGS = {
  preset: { ...text("tiny|small|paper", "Model, data and recipe together"), default: "tiny" },
  model: text("DIR", "Hugging Face model folder. Default: the embedded model (preset tiny)"),
  data: text("DIR", "LLM-Adapters' files. Default: the tiny world's (preset tiny)"),
  methods: text("a,b", `Out of ${methodNames.join(", ")}. Default: ${curveMethods.join(",")}`),
  ranks: text("64,32", `One panel each. Default: ${curveRanks.join(",")}`),
  seed: text("N", "Index draw, init, shuffle and dropout. Default: 42"),
  steps: text("N", "Optimizer steps. Default: the preset's"),
  out: text("DIR", "Default: results/<figure>/<preset>"),
  compute: text(COMPUTE_TYPES.join("|"), "Type of the products. Default: the preset's"),
  threads: text("N", "Threads (default: the cores this process may use)"),
  "dry-run": { type: "boolean", default: false, description: "Print the plan; train nothing" },
} as const;

export async function runFigure(figure: MemoryFigure, args: ParsedArgs<typeof FIGURE_ARGS>): Promise<void> {
  const preset = figure.presets[choiceFlag(args, "preset", Object.keys(figure.presets) as PresetName[])!];
  const out = args.out ?? join("results", figure.name, preset.name);
  const flags = {
    model: args.model ?? null,
    data: args.data ?? null,
    methods: listFlag(args, "methods") ?? null,
    ranks: wholeList(args, "ranks", 1),
    seed: wholeFlag(args, "seed", 0) ?? null,
    steps: wholeFlag(args, "steps", 1) ?? null,
    compute: choiceFlag(args, "compute", COMPUTE_TYPES) ?? null,
    threads: wholeFlag(args, "threads", 1) ?? null,
    out,
  };
  if (args["dry-run"]) {
    const planned = (dir: string): string => planOf(openMemoryStudy(figure, preset, { ...flags, out: dir }));
    console.log(await withTemporaryFolder(planned));
  } else await drawFigure(openMemoryStudy(figure, preset, flags), out);
}

/** Every curve, measured where its file is not there yet; then the picture from the files. */
async function drawFigure(study: MemoryStudy, out: string): Promise<void> {
  const stop = stopOnSignals();
  const curves: CurveFile[] = [];
  for (const [i, plan] of study.curves.entries()) {
    const { method, rank } = plan.recipe.training;
    const label = `[${i + 1}/${study.curves.length}] ${methodTitle(method)} r=${rank}`;
    let progress: ReturnType<typeof startProgress> | null = null;
    const curve = await runCurve(study, plan, {
      shouldStop: () => stop.signal !== null,
      onStep(step, of) {
        progress ??= startProgress(label, of, "steps", step - 1);
        progress.update(step);
      },
    });
    (progress as ReturnType<typeof startProgress> | null)?.end();
    if (!curve) return sayStopped(stop);
    const { peak, seconds } = curve.timing;
    console.error(`${label}: ${formatSize(peak, "B")} at most, ${formatSeconds(seconds)}`);
    curves.push(curve);
  }
  const report = { ...study, curves };
  const sections = memorySections(report);
  writeTextFile(join(out, "figure.svg"), memoryPicture(report));
  writeTextFile(join(out, "figure.csv"), memoryCsv(curves));
  writeTextFile(join(out, "figure.json"), memoryJson(report));
  writeTextFile(join(out, "figure.md"), `![](figure.svg)\n\n${markdownSections(sections)}`);
  console.log(textSections(sections));
  console.log(`\n${curves.length} curves and figure.svg, .csv, .json, .md in ${out}`);
}

/** --dry-run: steps and planned memory of every curve; nothing is loaded. */
function planOf(study: MemoryStudy): string {
  const records = readInstructionRecords(study.dataFile);
  const rows = study.curves.map(({ recipe: { training, maxTokens } }) => {
    const { modelDir, dataFile } = study;
    const { plan, steps, tokensPerStep } = prepareRun({
      modelDir,
      dataFile,
      records,
      recipe: training,
      maxTokens,
    });
    const planned = plan.weights + plan.fixed + plan.trainable + plan.kept + plan.scratch;
    return [
      methodTitle(training.method),
      `${training.rank}`,
      inMillions(plan.parameters),
      `${steps}`,
      formatSize(steps * tokensPerStep),
      formatSize(planned, "B"),
    ];
  });
  const columns = [right("r"), right("trained"), right("steps"), right("tokens"), right("memory planned")];
  return [
    `model    ${study.modelName} (${study.modelDir})`,
    `data     ${study.dataFile}, ${records.length} records`,
    "",
    textTable({ columns: [{ title: "method" }, ...columns], rows }),
    "",
    "planned: weights, trained state, saved activations, scratch; Bun, the program and the workspace come on top",
  ].join("\n");
}
