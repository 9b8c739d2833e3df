/** Adapters and tokenizers in other tools' layouts, read again by our own readers. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { methodNamed } from "../adapters/registry.ts";
import { readAdapter } from "../adapters/storage.ts";
import { readGguf, readGgufTensor } from "../formats/gguf.ts";
import { dequantize } from "../formats/gguf-quants.ts";
import { llamaTensors } from "../formats/gguf-tensors.ts";
import { convertGguf } from "../formats/gguf-to-hf.ts";
import { bytesOf, narrow } from "../formats/half.ts";
import { readLlamaConfig, writeHfConfig } from "../formats/hf-config.ts";
import { exportGguf } from "../formats/hf-to-gguf.ts";
import { readPeftConfig, writePeftConfig } from "../formats/peft.ts";
import { readSafetensorsHeader, type TensorToWrite, writeSafetensors } from "../formats/safetensors.ts";
import { writeModelTensors } from "../formats/safetensors-model-write.ts";
import { closeRig, openRig, type Rig } from "../model/testing.ts";
import { BYTE_FALLBACK, BYTE_LEVEL } from "../text/testing.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { exportGgufLora, exportPeft } from "./export.ts";
import { lowRankOf } from "./low-rank.ts";
import { mergeModel } from "./merge.ts";
import { loadSources, openBase, partsByTensor } from "./sources.ts";
import { BASE, bytesByName, readJson, saveGolden, sets, temporaryRoot } from "./testing.ts";

const { next, remove } = temporaryRoot();
let rig: Rig;
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => {
  closeRig(rig);
  remove();
});

async function merged(adapter: string): Promise<Map<string, Uint8Array>> {
  const out = next();
  const rest = { keepOriginals: false, allowOverlap: false, verify: true };
  await mergeModel({
    device: rig.device,
    modelDir: BASE,
    adapters: [{ dir: adapter, weight: 1 }],
    out,
    ...rest,
  });
  return bytesByName(out);
}

/** A PEFT LoRA with ranks and scalings of its own in some modules, and none in others. */
function patterned(useRslora: boolean): string {
  const dir = next();
  mkdirSync(dir);
  const config = readLlamaConfig(BASE);
  const modules = ["layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "layers.1.mlp.down_proj"];
  const ranks = [4, 2, 4];
  const tensors = modules.flatMap((module, i): TensorToWrite[] => {
    const [named] = llamaTensors(config).filter(({ name }) => name === `model.${module}.weight`);
    const [out, width] = named!.shape as [number, number];
    const wave = (n: number): Uint8Array =>
      bytesOf(Float32Array.from({ length: n }, (_, k) => Math.sin(k + i) / 8));
    const name = (factor: string): string => `base_model.model.model.${module}.${factor}.weight`;
    return [
      { name: name("lora_A"), dtype: "F32", shape: [ranks[i]!, width], bytes: wave(ranks[i]! * width) },
      { name: name("lora_B"), dtype: "F32", shape: [out, ranks[i]!], bytes: wave(out * ranks[i]!) },
    ];
  });
  writeSafetensors(join(dir, "adapter_model.safetensors"), tensors);
  writePeftConfig(dir, {
    peftType: "LORA",
    adapterName: null,
    rank: 4,
    alpha: 6,
    dropout: 0,
    targetModules: ["q_proj", "down_proj"],
    useDora: false,
    useRslora,
    rankPattern: { "layers.1.self_attn.q_proj": 2 },
    alphaPattern: { down_proj: 3 },
    baseModel: "golden/gqa",
    modulesToSave: [],
  });
  return dir;
}

describe("PEFT", () => {
  for (const label of Object.keys(sets)) {
    test(`${label}: the exported folder merges to the same bytes, by its own metadata and without`, async () => {
      const adapter = saveGolden(rig, label, next());
      const out = next();
      await exportPeft({ modelDir: BASE, adapter, out });
      const config = readPeftConfig(out);
      expect(config.peftType).toBe("LORA");
      expect(config.rankPattern).toEqual({});
      expect(config.useDora).toBe(label === "dora");
      expect(readAdapter(out).method).toBe(methodNamed(sets[label]!.kind).name);
      const expected = await merged(adapter);
      expect(await merged(out)).toEqual(expected);
      // as another tool would see it
      rmSync(join(out, "sbora.json"));
      const { method } = readAdapter(out);
      expect(method).toBe(
        method.startsWith("sbora") || label === "dora" ? methodNamed(sets[label]!.kind).name : "lora",
      );
      expect(await merged(out)).toEqual(expected);
      const { tensors } = readSafetensorsHeader(join(out, "adapter_model.safetensors"));
      expect([...tensors.values()].every(({ dtype }) => dtype === "F32")).toBe(true);
    });
  }

  for (const useRslora of [false, true]) {
    test(`rank and alpha patterns${useRslora ? " with rsLoRA" : ""} are folded into one rank and one alpha`, async () => {
      const adapter = patterned(useRslora);
      const out = next();
      await exportPeft({ modelDir: BASE, adapter, out });
      const config = readPeftConfig(out);
      expect(config).toMatchObject({ rank: 4, useRslora: false, rankPattern: {}, alphaPattern: {} });
      expect(config.targetModules).toEqual([
        "layers.0.self_attn.q_proj",
        "layers.1.self_attn.q_proj",
        "layers.1.mlp.down_proj",
      ]);
      const [before, after] = [await merged(adapter), await merged(out)];
      let worst = 0;
      for (const [name, bytes] of before) {
        const [a, b] = [new Float32Array(bytes.buffer), new Float32Array(after.get(name)!.buffer)];
        worst = a.reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), worst);
      }
      expect(worst).toBeLessThan(2e-7);
    });
  }

  test("scalings by hand: alpha / r, and alpha / √r with rsLoRA, after the patterns", () => {
    const scalings = (dir: string): number[] =>
      [...partsByTensor(openBase(BASE), loadSources(openBase(BASE), [{ dir, weight: 1 }])).values()].map(
        ([part]) => part!.site.scaling,
      );
    expect(scalings(patterned(false))).toEqual([6 / 4, 6 / 2, 3 / 4]);
    expect(scalings(patterned(true))).toEqual([6 / 2, 6 / Math.SQRT2, 3 / 2]);
  });

  test("an output that is there, an adapter of another model", async () => {
    const adapter = saveGolden(rig, "lora", next());
    const out = next();
    mkdirSync(out);
    writeFileSync(join(out, "x"), "");
    expect(exportPeft({ modelDir: BASE, adapter, out })).rejects.toThrow("not empty");
  });
});

describe("GGUF LoRA", () => {
  for (const label of Object.keys(sets).filter((name) => name !== "dora")) {
    test(`${label}: factors and alpha come back, q and k in GGUF's order of rows`, () => {
      const adapter = saveGolden(rig, label, next());
      const out = `${next()}.gguf`;
      exportGgufLora({ modelDir: BASE, adapter, out, type: "F32" });
      const file = readGguf(out);
      const { rank, alpha } = sets[label]!;
      expect(file.metadata.get("general.type")).toBe("adapter");
      expect(file.metadata.get("adapter.type")).toBe("lora");
      expect(file.metadata.get("adapter.lora.alpha")).toBe(alpha);
      const base = openBase(BASE);
      const parts = partsByTensor(base, loadSources(base, [{ dir: adapter, weight: 1 }]));
      expect(file.tensors.size).toBe(2 * parts.size);
      for (const { gguf, name, heads } of llamaTensors(base.config)) {
        const [part] = parts.get(name) ?? [];
        if (!part) continue;
        const { A, B } = lowRankOf(part.method, part.site, part.stored);
        const read = (suffix: string): Float32Array => {
          const tensor = file.tensors.get(`${gguf}.${suffix}`)!;
          return dequantize(tensor.type, readGgufTensor(file, tensor));
        };
        expect(file.tensors.get(`${gguf}.lora_a`)!.shape).toEqual([rank, part.site.in]);
        expect(read("lora_a")).toEqual(A);
        const b = read("lora_b");
        const half = part.site.out / Math.max(1, heads) / 2;
        for (let row = 0; row < part.site.out; row++) {
          // [head, half, 2] in the file, [head, 2, half] at home
          const [head, inHead] = [Math.floor(row / (2 * half)), row % (2 * half)];
          const home = heads === 0 ? row : head * 2 * half + (inHead % 2) * half + Math.floor(inHead / 2);
          expect(b.subarray(row * rank, (row + 1) * rank)).toEqual(
            B.subarray(home * rank, (home + 1) * rank),
          );
        }
      }
    });
  }

  test("mixed scalings go into B; DoRA is refused", () => {
    const out = `${next()}.gguf`;
    exportGgufLora({ modelDir: BASE, adapter: patterned(false), out, type: "F16" });
    const file = readGguf(out);
    const alpha = file.metadata.get("adapter.lora.alpha") as number;
    const q = file.tensors.get("blk.1.attn_q.weight.lora_b")!;
    const firstRow = dequantize(q.type, readGgufTensor(file, q));
    // row 0 keeps its place; the file's scale is alpha / 2, the module's own 6 / 2
    expect(firstRow[0]!).toBeCloseTo(((Math.sin(1) / 8) * 3) / (alpha / 2), 3);
    const dora = saveGolden(rig, "dora", next());
    const refused = `${next()}.gguf`;
    expect(() => exportGgufLora({ modelDir: BASE, adapter: dora, out: refused, type: "F32" })).toThrow(
      "no DoRA",
    );
    expect(existsSync(refused)).toBe(false);
  });
});

describe("tokenizers through GGUF and back", () => {
  const texts = [
    "the t he 12 im 日本 ½ <|end|> <s>",
    "  a b  the\n\ttthe... Ünïcödé 🙂",
    "abc the's n",
    "",
    " ",
    "the </s> b",
  ];
  for (const [kind, files] of Object.entries({ "byte level": BYTE_LEVEL, "byte fallback": BYTE_FALLBACK })) {
    test(`${kind}: the same ids, BOS and stops`, () => {
      const model = next();
      mkdirSync(model);
      for (const [name, json] of Object.entries(files))
        writeFileSync(join(model, name), JSON.stringify(json));
      const before = loadTokenizer(model);
      const small = {
        ...readLlamaConfig(BASE),
        vocabSize: before.vocabSize + 3,
        hiddenSize: 8,
        intermediateSize: 6,
        layers: 1,
        heads: 2,
        kvHeads: 1,
        headSize: 4,
        eosTokenIds: [before.eosId!],
      };
      writeHfConfig(model, small);
      writeModelTensors(
        model,
        llamaTensors(small).map(({ name, shape }) => {
          const values = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5);
          return { name, dtype: "F32", shape, bytes: narrow("F32", values) };
        }),
      );
      const path = `${next()}.gguf`;
      exportGguf(model, path, { type: "F32" });
      const again = next();
      convertGguf(path, again);
      const after = loadTokenizer(again);
      for (const text of texts) expect(after.encode(text)).toEqual(before.encode(text));
      expect(after.bosId).toBe(before.bosId);
      expect(after.eosIds).toEqual([before.eosId!]);
      expect(after.padToken).toBe(before.padToken);
      expect(after.decode(before.encode(texts[1]!))).toBe(before.decode(before.encode(texts[1]!)));
      const { model: json } = readJson<{ model: { vocab: Record<string, number> } }>(again, "tokenizer.json");
      expect(json.vocab[`[PAD${before.vocabSize}]`]).toBe(before.vocabSize);
    });
  }
});
