/** Merging on a 4-bit base: SBoRA exactly beside the codes, the others into 16 bits of the dequantized base. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { readAdapter } from "../adapters/storage.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { narrow, widen } from "../formats/half.ts";
import { findNf4, isNf4Line, readNf4Lines } from "../formats/nf4.ts";
import { dequantizeNf4, readNf4Values } from "../formats/nf4-values.ts";
import { openModelTensors, readTensorAsF32, readTensorBytes } from "../formats/safetensors.ts";
import { freeLlama, type Llama, loadLlama } from "../model/model.ts";
import { isNf4Folder, isQuantized } from "../model/nf4.ts";
import { closeRig, figure, largestDifference, openRig, packed, type Rig } from "../model/testing.ts";
import { logitsPass } from "../model/train-pass.ts";
import { quantizeNf4 } from "../native/nf4.ts";
import {
  BASE,
  baseIn,
  bytesByName,
  merging,
  optionsOf,
  readJson,
  saveDisturbed,
  temporaryRoot,
} from "./testing.ts";
import { unmergeModel } from "./unmerge.ts";

setDefaultTimeout(120_000);

const NF4_MODEL = resolve(import.meta.dir, "../formats/testdata/nf4-model") as `/${string}`;
const folders = temporaryRoot();
const { next, remove } = folders;
let rig: Rig;
let four: Rig;
const { merge, refused } = merging(() => rig, folders);
beforeAll(async () => {
  rig = await openRig("gqa");
  four = await openRig(NF4_MODEL);
});
afterAll(() => {
  closeRig(rig);
  closeRig(four);
  remove();
});

const SEQUENCES = [
  [1, 5, 9, 60, 33],
  [3, 4, 5],
];

function logits(dir: string, quantize?: "nf4" | "nf4-double"): Float32Array {
  const model: Llama = loadLlama(rig.device, dir, {
    ...{ compute: "f32", positions: 64 },
    ...(quantize ? { quantize } : {}),
  });
  try {
    return logitsPass(model, packed(SEQUENCES), rig);
  } finally {
    freeLlama(model);
  }
}

describe("SBoRA on a folder of bitsandbytes", () => {
  test.each(["sbora-fa", "sbora-fb"])(
    "%s: codes untouched, exact lines beside them, taken out again",
    async (name) => {
      const adapter = saveDisturbed(four, optionsOf(name, { rank: 5 }), next(), 0.05, NF4_MODEL);
      const { out, report } = await merge([adapter], { modelDir: NF4_MODEL });
      const before = bytesByName(NF4_MODEL);
      const after = bytesByName(out);
      for (const [tensor, bytes] of before) expect([tensor, after.get(tensor)]).toEqual([tensor, bytes]);
      const added = [...after.keys()].filter((tensor) => !before.has(tensor));
      expect(added.length).toBe(2 * 14);
      expect(added.every(isNf4Line)).toBe(true);
      expect(readJson(out, "config.json")).toEqual(readJson(NF4_MODEL, "config.json"));
      expect(report.dtype).toBe("nf4");
      const { untouched, recomputed, logits: proof, changed } = report.verification!;
      const all = report.matrices.reduce((sum, { elements }) => sum + elements, 0);
      const touched = report.matrices.reduce((sum, matrix) => sum + matrix.touched, 0);
      expect(recomputed).toBe(touched);
      expect(untouched).toBeGreaterThanOrEqual(all - touched);
      expect(Object.values(changed).every((count) => count > 0)).toBe(true);
      expect(figure(`${name}: merged against live`, proof.difference / proof.effect)).toBeLessThan(0.1);
      const taken = next();
      expect(await unmergeModel({ modelDir: out, out: taken })).toBe(fingerprintModel(NF4_MODEL));
      expect(logits(taken)).toEqual(logits(NF4_MODEL));
    },
  );

  test("a second adapter joins the first's columns; rows do not join columns", async () => {
    const first = saveDisturbed(four, optionsOf("sbora-fa", { seed: 3 }), next(), 0.05, NF4_MODEL);
    const { out: once } = await merge([first], { modelDir: NF4_MODEL });
    const second = saveDisturbed(four, optionsOf("sbora-fa", { seed: 4 }), next(), 0.05, once);
    const { out: twice } = await merge([second], { modelDir: once });
    const count = (dir: string): number => {
      const tensors = openModelTensors(dir);
      return readNf4Lines(findNf4(tensors, "model.layers.0.mlp.up_proj.weight")!)!.indices.length;
    };
    expect(count(once)).toBe(4);
    expect(count(twice)).toBeGreaterThan(4);
    const rows = saveDisturbed(four, optionsOf("sbora-fb"), next(), 0.05, once);
    expect(await refused([rows], { modelDir: once })).toMatch(
      /columns .* and rows .* cannot both be replaced.*--dtype bf16/,
    );
    const { out, report } = await merge([rows], { modelDir: once, dtype: "BF16" });
    expect(report.dtype).toBe("BF16");
    expect(isNf4Folder(out)).toBe(false);
  });
});

describe("other methods", () => {
  test.each(["lora", "dora", "oa", "lora-fa"])("%s: 16 bits of the dequantized base", async (name) => {
    const adapter = saveDisturbed(four, optionsOf(name), next(), 0.05, NF4_MODEL);
    const { out, report } = await merge([adapter], { modelDir: NF4_MODEL });
    expect(report.dtype).toBe("BF16");
    const [before, after] = [openModelTensors(NF4_MODEL), openModelTensors(out)];
    expect([...after.keys()].sort()).toEqual(
      [...before.keys()].filter((key) => !/weight\./.test(key)).sort(),
    );
    expect(readJson<object>(out, "config.json")).not.toHaveProperty("quantization_config");
    const { logits: proof } = report.verification!;
    expect(figure(`${name}: merged against live`, proof.difference / proof.effect)).toBeLessThan(0.5);
    expect(await refused([adapter], { modelDir: NF4_MODEL, keepOriginals: true })).toMatch(
      /--keep-originals.*4-bit/,
    );
  });

  test("in f32 nothing is lost", async () => {
    const adapter = saveDisturbed(four, optionsOf("lora"), next(), 0.05, NF4_MODEL);
    const { report } = await merge([adapter], { modelDir: NF4_MODEL, dtype: "F32" });
    expect(report.matrices.every(({ lost }) => lost === 0)).toBe(true);
    const { difference, largest } = report.verification!.logits;
    expect(difference / largest).toBeLessThan(1e-4);
  });
});

describe("--quantize", () => {
  test.each(["nf4", "nf4-double"] as const)(
    "%s: a folder that loads as the base quantized, plus the adapter",
    async (quantize) => {
      const base = baseIn(next(), "BF16");
      const adapter = saveDisturbed(rig, optionsOf("sbora-fa"), next(), 0.05, base);
      const { out, report } = await merge([adapter], { modelDir: base, quantize });
      expect(report.base.quantize).toBe(quantize);
      const tensors = openModelTensors(out);
      for (const name of openModelTensors(base).keys()) {
        expect(findNf4(tensors, name) !== null).toBe(isQuantized(name));
      }
      const config = readJson<{ quantization_config: Record<string, unknown> }>(out, "config.json");
      expect(config.quantization_config).toMatchObject({
        bnb_4bit_quant_type: "nf4",
        bnb_4bit_use_double_quant: quantize === "nf4-double",
        load_in_4bit: true,
      });
      // Without its lines it is the base as --quantize loads it, to the last bit.
      const taken = next();
      await unmergeModel({ modelDir: out, out: taken });
      expect(logits(taken)).toEqual(logits(base, quantize));
      expect(logits(out)).not.toEqual(logits(taken));
      expect(existsSync(join(out, "originals.safetensors"))).toBe(false);
    },
  );

  test("a dense method's result holds the dequantized base", async () => {
    const adapter = saveDisturbed(rig, optionsOf("lora"), next());
    const { out } = await merge([adapter], { quantize: "nf4", dtype: "F32" });
    const [base, merged] = [openModelTensors(BASE), openModelTensors(out)];
    const name = "model.layers.0.mlp.gate_proj.weight";
    const [original, now] = [readTensorAsF32(base.get(name)!), readTensorAsF32(merged.get(name)!)];
    expect(largestDifference(original, now)).toBeGreaterThan(0.01);
    expect(readTensorBytes(merged.get("model.embed_tokens.weight")!)).toEqual(
      readTensorBytes(base.get("model.embed_tokens.weight")!),
    );
  });
});

test("what re-quantizing the merged matrix loses, and the lines do not", async () => {
  const adapter = saveDisturbed(four, optionsOf("sbora-fa", { rank: 8 }), next(), 0.004, NF4_MODEL);
  const { out } = await merge([adapter], { modelDir: NF4_MODEL });
  const { modules } = readAdapter(adapter);
  const [base, merged] = [openModelTensors(NF4_MODEL), openModelTensors(out)];
  const wanted: number[] = [];
  const kept: number[] = [];
  const requantized: number[] = [];
  let disturbed = 0;
  for (const [module, { B, index }] of modules) {
    const name = `model.${module}.weight`;
    const entry = findNf4(base, name)!;
    const { out: rows, in: width } = entry;
    const before = readNf4Values(entry);
    const exact = before.slice();
    const r = index!.values.length;
    for (let row = 0; row < rows; row++)
      index!.values.forEach((column, j) => {
        exact[row * width + column]! += B!.values[row * r + j]!;
      });
    const shape = {
      name,
      data: exact as Float32Array<ArrayBuffer>,
      dtype: "f32",
      out: rows,
      in: width,
    } as const;
    const { codes, absmax } = quantizeNf4(rig.device, shape);
    const again = dequantizeNf4(codes, absmax, rows * width, "F32");
    const ours = readNf4Values(findNf4(merged, name)!);
    const touched = new Set(index!.values);
    for (let i = 0; i < exact.length; i++) {
      if (!touched.has(i % width)) {
        disturbed += again[i] !== before[i] ? 1 : 0;
        expect(ours[i]).toBe(before[i]!);
        continue;
      }
      wanted.push(exact[i]! - before[i]!);
      kept.push(ours[i]! - exact[i]!);
      requantized.push(again[i]! - exact[i]!);
    }
  }
  const rms = (values: number[]): number =>
    Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
  // The update is smaller than half a step of the codes: quantized again it is gone, in bf16 it stays.
  const lost = figure("re-quantized: error of the update", rms(requantized) / rms(wanted));
  const ours = figure("lines: error of the update", rms(kept) / rms(wanted));
  expect(lost).toBeGreaterThan(0.9);
  expect(ours).toBeLessThan(lost / 4);
  expect(figure("weights no adapter reaches that re-quantizing moves", disturbed)).toBeGreaterThan(0);
});

test("bf16 bits of a line are those of W + ΔW rounded once", async () => {
  const adapter = saveDisturbed(four, optionsOf("sbora-fb"), next(), 0.05, NF4_MODEL);
  const { out } = await merge([adapter], { modelDir: NF4_MODEL });
  const name = "model.layers.1.self_attn.o_proj.weight";
  const { A, index } = readAdapter(adapter).modules.get(name.slice(6, -7))!;
  const before = readNf4Values(findNf4(openModelTensors(NF4_MODEL), name)!);
  const lines = readNf4Lines(findNf4(openModelTensors(out), name)!)!;
  const [r, width] = A!.shape as [number, number];
  lines.indices.forEach((row, at) => {
    const j = index!.values.indexOf(row);
    const sum = Float32Array.from({ length: width }, (_, i) =>
      Math.fround(Math.fround(2 * A!.values[j * width + i]!) + before[row * width + i]!),
    );
    expect(widen("BF16", narrow("BF16", sum))).toEqual(
      widen("BF16", new Uint8Array(lines.values.slice(at * width, (at + 1) * width).buffer)),
    );
  });
  expect(lines.indices.length).toBe(r);
});
