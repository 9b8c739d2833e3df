/** Writes adapters and merged models in other tools' formats: PEFT folders, GGUF models, GGUF LoRA adapters. */
import { existsSync } from "node:fs";
import type { ParsedArgs } from "citty";
import { InputError } from "../src/errors.ts";
import { type ExportType, exportTypes } from "../src/formats/gguf-quantize.ts";
import { exportGguf } from "../src/formats/hf-to-gguf.ts";
import { exportGgufLora, exportPeft } from "../src/merging/export.ts";
import { startProgress } from "../src/reporting/progress.ts";
import { choiceFlag, required, runCommand } from "./arguments.ts";

const FORMATS = ["peft", "gguf", "gguf-lora"] as const;
const TYPES = exportTypes.map((type) => type.toLowerCase());

const EXAMPLES = `Examples
  bun run scripts/export.ts --format peft --model models/smollm2-135m --adapter runs/first --out exported/first
                                        for PEFT, vLLM and others; SBoRA becomes a LoRA with a one-hot factor, exactly
  bun run scripts/export.ts --format gguf --model models/merged --out merged.gguf --type q8_0
                                        a model for llama.cpp (merge adapters into it first)
  bun run scripts/export.ts --format gguf-lora --model models/smollm2-135m --adapter runs/first --out first.gguf`;

const ARGS = {
  format: { type: "string", valueHint: FORMATS.join("|"), description: "What to write" },
  model: { type: "string", valueHint: "DIR", description: "Model folder; for adapters, their base" },
  adapter: { type: "string", valueHint: "DIR", description: "Adapter folder (peft, gguf-lora)" },
  out: { type: "string", valueHint: "PATH", description: "New folder (peft) or file (gguf, gguf-lora)" },
  type: {
    type: "string",
    valueHint: TYPES.join("|"),
    description: "Type of GGUF matrices. Default: bf16 for models, f32 for adapters",
  },
} as const;

async function main(args: ParsedArgs<typeof ARGS>): Promise<void> {
  const format = choiceFlag(args, "format", FORMATS) ?? required({}, "format", FORMATS.join(", "));
  const modelDir = required(args, "model", "a Hugging Face model folder");
  const out = required(args, "out", format === "peft" ? "a new folder" : "a new file");
  const type = choiceFlag(args, "type", TYPES)?.toUpperCase() as ExportType | undefined;
  if (format === "peft" && type)
    throw new InputError("--type is for GGUF; PEFT folders keep the adapter's f32.");
  if (format !== "peft" && existsSync(out))
    throw new InputError(`${out}: is there already; choose another --out.`);
  if (format === "gguf") {
    if (args.adapter)
      throw new InputError(
        "--format gguf writes a model; merge the adapter into it first (scripts/merge.ts).",
      );
    writeModel(modelDir, out, type ?? "BF16");
  } else {
    const adapter = required(args, "adapter", "an adapter folder");
    if (format === "peft") await exportPeft({ modelDir, adapter, out });
    else exportGgufLora({ modelDir, adapter, out, type: type ?? "F32" });
  }
  console.log(`exported  ${out}`);
}

function writeModel(modelDir: string, out: string, type: ExportType): void {
  const progress: { line: ReturnType<typeof startProgress> | null } = { line: null };
  exportGguf(modelDir, out, {
    type,
    onTensor: (done, of) => {
      progress.line ??= startProgress("exporting", of, "tensors");
      progress.line.update(done);
    },
    onNote: (text) => console.error(`note: ${text}`),
  });
  progress.line?.end();
}

await runCommand({
  name: "bun run scripts/export.ts",
  description: "Write adapters and models in other tools' formats.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
