/** Merges adapters into a model and proves it: a plain model folder comes out. */
import type { ParsedArgs } from "citty";
import { InputError } from "../src/errors.ts";
import { type FloatDtype, floatDtypes } from "../src/formats/half.ts";
import { sharesText } from "../src/merging/card.ts";
import { type MergeReport, mergeModel } from "../src/merging/merge.ts";
import type { AdapterSource } from "../src/merging/sources.ts";
import { closeDevice } from "../src/native/device.ts";
import { startProgress } from "../src/reporting/progress.ts";
import { textTable } from "../src/reporting/table.ts";
import {
  choiceFlag,
  deviceFlags,
  openCommandDevice,
  quantizeFlag,
  quantizeFlags,
  repeatedFlag,
  required,
  runCommand,
} from "./arguments.ts";

const DTYPES = floatDtypes.map((dtype) => dtype.toLowerCase());

const EXAMPLES = `Examples
  bun run scripts/merge.ts --model models/smollm2-135m --adapter runs/first --out models/merged
  bun run scripts/merge.ts --model models/smollm2-135m --adapter runs/first --out models/merged-f32 --dtype f32 --keep-originals
  bun run scripts/merge.ts --model models/smollm2-135m --adapter runs/a --adapter runs/b:0.7 --out models/both

A folder of ours, of PEFT's (LoRA, DoRA, rsLoRA) or of the official SBoRA repository; ":0.7" scales its change. The merge ends with
a proof: every weight outside the adapters bit-equal to the base's, no NaN, the merged model's logits those of base + adapter. When it
fails, the command ends with 1 and writes no folder. Ctrl-C leaves none either, but what was begun: .NAME.PID.tmp beside it, to be deleted.`;

const ARGS = {
  model: { type: "string", valueHint: "DIR", description: "Model the adapters were trained on" },
  adapter: {
    type: "string",
    valueHint: "DIR[:WEIGHT]",
    description: "Adapter folder; may be given several times",
  },
  out: { type: "string", valueHint: "DIR", description: "New folder for the merged model" },
  dtype: {
    type: "string",
    valueHint: DTYPES.join("|"),
    description: "Stored type of the weights. Default: the model's",
  },
  ...quantizeFlags,
  "keep-originals": {
    type: "boolean",
    default: false,
    description: "Keep what is overwritten, so that scripts/unmerge.ts can give the base back bit by bit",
  },
  "allow-overlap": {
    type: "boolean",
    default: false,
    description: "Add up adapters that change the same weights",
  },
  verify: { type: "boolean", default: true, negativeDescription: "Skip the proof" },
  device: deviceFlags.device,
  threads: deviceFlags.threads,
} as const;

type Args = ParsedArgs<typeof ARGS>;

/** "runs/b:0.7" -> folder and weight; a colon that no number follows belongs to the path. */
function sourceOf(text: string): AdapterSource {
  const [, dir, weight] = /^(.+):([-+]?[\d.]+(?:e[-+]?\d+)?)$/i.exec(text) ?? [];
  if (dir === undefined) return { dir: text, weight: 1 };
  if (!Number.isFinite(Number(weight)))
    throw new InputError(`--adapter is "${text}"; expected a number behind the colon.`);
  return { dir, weight: Number(weight) };
}

function show({ matrices, verification }: MergeReport, out: string): void {
  const percent = (part: number, of: number): string => `${((100 * part) / Math.max(1, of)).toFixed(2)} %`;
  const rows = matrices.map(({ name, elements, touched, updates, lost, changed }) => [
    name.replace(/^model\.|\.weight$/g, ""),
    percent(touched, elements),
    changed === null ? "not checked" : percent(changed, elements),
    percent(lost, updates),
  ]);
  const columns = ["matrix", "adapted", "changed", "lost to rounding"].map((title, i) => ({
    title,
    align: i === 0 ? ("left" as const) : ("right" as const),
  }));
  console.log(textTable({ columns, rows }));
  console.log(sharesText({ matrices }));
  if (verification) {
    const { untouched, logits } = verification;
    console.log(`untouched  ${untouched} weights compared, all bit-equal to the base's`);
    console.log(
      `logits     differ by at most ${logits.difference.toPrecision(3)} from base + adapter over ${logits.positions} positions ` +
        `(the adapter changes them by up to ${logits.effect.toPrecision(3)}, the largest is ${logits.largest.toPrecision(3)})`,
    );
  }
  console.log(`merged     ${out}`);
}

async function main(args: Args): Promise<void> {
  const modelDir = required(args, "model", "a Hugging Face model folder");
  const adapters = repeatedFlag("adapter").map(sourceOf);
  if (adapters.length === 0) required({}, "adapter", "an adapter folder");
  const out = required(args, "out", "a new folder for the merged model");
  const dtype = choiceFlag(args, "dtype", DTYPES)?.toUpperCase() as FloatDtype | undefined;
  const quantize = quantizeFlag(args);
  const device = await openCommandDevice(args);
  const progress: { line: ReturnType<typeof startProgress> | null } = { line: null };
  try {
    const report = await mergeModel({
      device,
      modelDir,
      adapters,
      out,
      ...(dtype ? { dtype } : {}),
      ...(quantize ? { quantize } : {}),
      keepOriginals: args["keep-originals"],
      allowOverlap: args["allow-overlap"],
      verify: args.verify,
      onTensor: (done, of) => {
        progress.line ??= startProgress("merging", of, "tensors");
        progress.line.update(done);
      },
      onVerify: () => progress.line?.end(args.verify ? "verifying" : ""),
      onNote: (text) => console.error(`note: ${text}`),
    });
    show(report, out);
  } finally {
    closeDevice(device);
  }
}

await runCommand({
  name: "bun run scripts/merge.ts",
  description: "Merge adapters into a model's weights, exactly, and prove it.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
