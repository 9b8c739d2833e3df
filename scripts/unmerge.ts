/** Takes a merge back, bit by bit, from the originals that merge --keep-originals kept. */
import type { ParsedArgs } from "citty";
import { unmergeModel } from "../src/merging/unmerge.ts";
import { startProgress } from "../src/reporting/progress.ts";
import { required, runCommand } from "./arguments.ts";

const EXAMPLES = `Examples
  bun run scripts/unmerge.ts --model models/merged-f32 --out models/base-again

The fingerprint of the result must be that of the base; otherwise the command ends with 1 and writes no folder.`;

const ARGS = {
  model: { type: "string", valueHint: "DIR", description: "Folder of merge --keep-originals" },
  out: { type: "string", valueHint: "DIR", description: "New folder for the base" },
} as const;

async function main(args: ParsedArgs<typeof ARGS>): Promise<void> {
  const modelDir = required(args, "model", "a folder that merge --keep-originals wrote");
  const out = required(args, "out", "a new folder for the base");
  const progress: { line: ReturnType<typeof startProgress> | null } = { line: null };
  const fingerprint = await unmergeModel({
    modelDir,
    out,
    onTensor: (done, of) => {
      progress.line ??= startProgress("restoring", of, "tensors");
      progress.line.update(done);
    },
  });
  progress.line?.end();
  console.log(`restored     ${out}`);
  console.log(`fingerprint  ${fingerprint}, the base's`);
}

await runCommand({
  name: "bun run scripts/unmerge.ts",
  description: "Give the base model of a merge back, bit by bit.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
