/** The README.md of a merged model: what it is made of, and what the merge was proved to be. */
import type { MergeReport } from "./merge.ts";

const FOUR_BIT = `Codes and scales are the base's, untouched, in bitsandbytes' layout; the columns (\`.sbora_columns\`) or rows (\`.sbora_rows\`) that
the adapter changes stand beside them in bf16 (\`.sbora_values\`) and replace the dequantized ones. Readers that do not know them load the base
without the adapter. \`bun run scripts/unmerge.ts --model THIS --out DIR\` takes them out again.`;

export function modelCard(name: string, report: MergeReport, keptOriginals: boolean): string {
  const { base, adapters, dtype, verification } = report;
  const rows = adapters.map(
    ({ name, method, rank, weight, sha256 }) =>
      `| ${name} | ${method} | ${rank} | ${weight} | \`${sha256.slice(0, 16)}\` |`,
  );
  const kept =
    dtype === "nf4"
      ? FOUR_BIT
      : keptOriginals
        ? "`originals.safetensors` holds what the merge overwrote: `bun run scripts/unmerge.ts --model THIS --out DIR` gives the base back bit by bit."
        : "The base's weights were not kept: take the base itself to go back.";
  return `---
base_model: ${JSON.stringify(base.name)}
library_name: transformers
pipeline_tag: text-generation
tags: [merged, ${[...new Set(adapters.map(({ method }) => method))].join(", ")}]
---

# ${name}

\`${base.name}\`${base.quantize ? `, quantized to ${base.quantize},` : ""} (fingerprint \`${base.fingerprint.slice(0, 16)}\`) with ${adapters.length === 1 ? "an adapter" : `${adapters.length} adapters`} merged into its weights by sbora. It is a plain
LLaMA model and loads like its base; tokenizer, chat template and generation settings are the base's.

| adapter | method | rank | weight | SHA-256 |
|---|---|---|---|---|
${rows.join("\n")}

Stored as ${dtype}; computed in f32 and rounded once. ${sharesText(report)}

${
  verification
    ? `Proved after writing: ${verification.untouched.toLocaleString("en")} weights that no adapter reaches are bit-equal to the base's, no value is
NaN or infinite, and over ${verification.logits.positions} positions of fixed prompts no logit differs by more than ${verification.logits.difference.toPrecision(3)} from base + adapter
(the adapter itself changes them by up to ${verification.logits.effect.toPrecision(3)}).`
    : "Not verified (`--no-verify`)."
}

${kept}

The licence is that of the base model.
`;
}

/** "x % of the adapted weights changed; rounding dropped y % of the updates." */
export function sharesText({ matrices }: Pick<MergeReport, "matrices">): string {
  const sum = (of: (m: MergeReport["matrices"][number]) => number): number =>
    matrices.reduce((total, matrix) => total + of(matrix), 0);
  const percent = (part: number, whole: number): string =>
    `${((100 * part) / Math.max(1, whole)).toFixed(2)} %`;
  const updates = sum((m) => m.updates);
  const lost = sum((m) => m.lost);
  return (
    `${matrices.length} matrices adapted, ${percent(
      updates - lost,
      sum((m) => m.elements),
    )} of their weights changed; rounding dropped ` + `${percent(lost, updates)} of the updates.`
  );
}
