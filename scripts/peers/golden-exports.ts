/**
 * Everything we export of the tiny golden model, for check_peft.py to load with the real packages:
 *
 *     bun run scripts/peers/golden-exports.ts OUT
 *
 * OUT/<set>/{native,peft,saved-as-peft,merged}, OUT/<set>/lora.gguf, and OUT/tiny (a model with a tokenizer) as OUT/tiny-<type>.gguf.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { exportTypes } from "../../src/formats/gguf-quantize.ts";
import { exportGguf } from "../../src/formats/hf-to-gguf.ts";
import { exportGgufLora, exportPeft } from "../../src/merging/export.ts";
import { mergeModel } from "../../src/merging/merge.ts";
import { BASE, saveGolden, sets } from "../../src/merging/testing.ts";
import { closeRig, openRig } from "../../src/model/testing.ts";
import { writeTinyModel } from "../../src/training/testing.ts";

const out = process.argv[2];
if (!out) throw new Error("give a folder");
const rig = await openRig("gqa");
for (const [label, { kind }] of Object.entries(sets)) {
  const dir = join(out, label);
  mkdirSync(dir, { recursive: true });
  const adapter = saveGolden(rig, label, join(dir, "native"));
  saveGolden(rig, label, join(dir, "saved-as-peft"), BASE, "peft");
  await exportPeft({ modelDir: BASE, adapter, out: join(dir, "peft") });
  const adapters = [{ dir: adapter, weight: 1 }];
  const rest = { keepOriginals: false, allowOverlap: false, verify: true };
  await mergeModel({ device: rig.device, modelDir: BASE, adapters, out: join(dir, "merged"), ...rest });
  if (kind !== "dora") exportGgufLora({ modelDir: BASE, adapter, out: join(dir, "lora.gguf"), type: "F32" });
}
closeRig(rig);
writeTinyModel(join(out, "tiny"));
for (const type of exportTypes) exportGguf(join(out, "tiny"), join(out, `tiny-${type}.gguf`), { type });
