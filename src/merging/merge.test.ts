/** Merging and taking it back: every method, every stored type, several adapters, shards, and what is refused. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readWholeWeight } from "../adapters/full.ts";
import { loadAdapterValues, readAdapter } from "../adapters/storage.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { type FloatDtype, narrow, widen } from "../formats/half.ts";
import {
  openModelTensors,
  readSafetensorsHeader,
  readTensorAsF32,
  readTensorBytes,
  writeSafetensors,
} from "../formats/safetensors.ts";
import { writeModelTensors } from "../formats/safetensors-model-write.ts";
import { adapterOptionsOf } from "../model/load-adapter.ts";
import { freeLlama } from "../model/model.ts";
import { closeRig, figure, openRig, type Rig } from "../model/testing.ts";
import { attachTrainables, freeTrainables, linearAt, mergeTrainables } from "../model/trainables.ts";
import { allocatedBytes } from "../native/device.ts";
import { createTensor, freeTensor, readF32 } from "../native/tensor.ts";
import { BYTE_LEVEL } from "../text/testing.ts";
import { intoNewFolder, type MergeReport, RECORD_FILE } from "./merge.ts";
import { loadSources, openBase, type Part, partsByTensor } from "./sources.ts";
import {
  BASE,
  baseIn,
  bytesByName,
  loadGoldenModel,
  merging,
  optionsOf,
  readJson,
  saveDisturbed,
  saveGolden,
  sets,
  temporaryRoot,
} from "./testing.ts";
import { touchedBy } from "./touched.ts";
import { unmergeModel } from "./unmerge.ts";
import { verifyMerge } from "./verify.ts";

setDefaultTimeout(60_000);

const folders = temporaryRoot();
const { root, next, remove } = folders;
const { merge, refused } = merging(() => rig, folders);
let rig: Rig;
let bf16: string;
beforeAll(async () => {
  rig = await openRig("gqa");
  bf16 = baseIn(join(root, "bf16"), "BF16");
});
afterAll(() => {
  closeRig(rig);
  remove();
});

/** What mergeTrainables makes of a folder in a loaded model. */
function inMemory(base: string, adapter: string): Map<string, Float32Array> {
  const model = loadGoldenModel(rig, base);
  const folder = readAdapter(adapter);
  const trained = attachTrainables(model, adapterOptionsOf(folder), rig.scratch);
  loadAdapterValues(folder, rig.device, trained.adapters);
  mergeTrainables(model, trained, rig.scratch);
  const merged = new Map(
    trained.adapters.map(({ site }) => {
      const { weight } = linearAt(model, site.name);
      const values = createTensor(rig.device, "f32", [site.out, site.in]);
      readWholeWeight(rig.device, weight, values);
      const read = readF32(rig.device, values);
      freeTensor(rig.device, values);
      return [`model.${site.name}.weight`, read];
    }),
  );
  freeTrainables(model, trained);
  freeLlama(model);
  return merged;
}

describe.each(Object.keys(sets))("%s", (label) => {
  test("in f32 and in bf16: the bytes of mergeTrainables, and the proof passes", async () => {
    for (const [base, dtype] of [
      [BASE, "F32"],
      [bf16, "BF16"],
    ] as const) {
      const adapter = saveGolden(rig, label, next(), base);
      const alive = allocatedBytes(rig.device);
      const { out, report } = await merge([adapter], { modelDir: base });
      expect(allocatedBytes(rig.device)).toBeLessThanOrEqual(alive + 64 * 1024);
      const merged = openModelTensors(out);
      const expected = inMemory(base, adapter);
      expect(expected.size).toBe(2 * sets[label]!.targets.length);
      for (const [name, entry] of openModelTensors(base)) {
        const values = expected.get(name);
        const bytes = values ? narrow(dtype, values) : readTensorBytes(entry);
        expect(Buffer.compare(readTensorBytes(merged.get(name)!), bytes)).toBe(0);
      }
      const { logits, changed } = report.verification!;
      expect(Object.values(changed).every((count) => count > 0)).toBe(true);
      figure(`${label} ${dtype}: logits`, logits.difference);
      figure(`${label} ${dtype}: effect`, logits.effect);
      expect(logits.effect).toBeGreaterThan(0.1);
      if (dtype === "F32") expect(logits.difference).toBeLessThan(1e-4);
    }
  });

  test("taken back, the base's fingerprint is there again; also where the merge widened the weights", async () => {
    for (const [base, dtype] of [
      [BASE, undefined],
      [bf16, undefined],
      [bf16, "F32"],
    ] as const) {
      const adapter = saveGolden(rig, label, next(), base);
      const { out } = await merge([adapter], {
        modelDir: base,
        keepOriginals: true,
        ...(dtype ? { dtype } : {}),
      });
      expect(fingerprintModel(out)).not.toBe(fingerprintModel(base));
      const again = next();
      expect(await unmergeModel({ modelDir: out, out: again })).toBe(fingerprintModel(base));
      expect(bytesByName(again)).toEqual(bytesByName(base));
      expect(readFileSync(join(again, "config.json"), "utf8")).toBe(
        readFileSync(join(base, "config.json"), "utf8"),
      );
    }
  });
});

describe("stored types", () => {
  const halves: FloatDtype[] = ["F16", "BF16", "F32"];
  for (const dtype of halves) {
    test(`--dtype ${dtype}: f32 arithmetic, one rounding, the config says so`, async () => {
      const adapter = saveGolden(rig, "sbora-fa", next());
      const { out: exact } = await merge([adapter]);
      const { out, report } = await merge([adapter], { dtype });
      const expected = openModelTensors(exact);
      for (const [name, entry] of openModelTensors(out)) {
        const rounded = narrow(dtype, widen("F32", readTensorBytes(expected.get(name)!)));
        expect(Buffer.compare(readTensorBytes(entry), rounded)).toBe(0);
        expect(entry.dtype).toBe(dtype);
      }
      const names = { F16: "float16", BF16: "bfloat16", F32: "float32" };
      expect(readJson<{ torch_dtype: string }>(out, "config.json").torch_dtype).toBe(names[dtype]);
      if (dtype === "F32") expect(report.matrices.every(({ lost }) => lost === 0)).toBe(true);
      if (dtype === "BF16") expect(report.matrices.some(({ lost }) => lost > 0)).toBe(true);
    });
  }

  test("updates lost to rounding are those whose stored value stayed the base's", async () => {
    const adapter = saveDisturbed(rig, optionsOf("lora", { alpha: 0.02 }), next(), 0.02, bf16);
    const { out, report } = await merge([adapter], { modelDir: bf16 });
    const { matrices } = report;
    expect(matrices).toHaveLength(14);
    const [before, after] = [bytesByName(bf16), bytesByName(out)];
    for (const { name, elements, updates, lost, changed } of matrices) {
      const [a, b] = [new Uint16Array(before.get(name)!.buffer), new Uint16Array(after.get(name)!.buffer)];
      const different = a.filter((bits, i) => bits !== b[i]).length;
      expect(changed).toBe(different);
      expect(updates - lost).toBe(different);
      expect(lost).toBeGreaterThan(elements / 10);
    }
  });

  test("originals cannot be kept where the type gives nothing back", async () => {
    const adapter = saveGolden(rig, "lora", next());
    expect(await refused([adapter], { keepOriginals: true, dtype: "BF16" })).toContain("--keep-originals");
  });
});

describe("adapters of the official repositories", () => {
  const official = (...parts: string[]): string => join(import.meta.dir, "../formats/testdata", ...parts);
  const kinds = {
    "official-sbora-fa": "sbora-fa",
    "official-dora": "dora",
    "official-4bit/checkpoint-8": "sbora-fb",
    "official-4bit/checkpoint-9/adapter_model/lora_FA": "lora-fa",
  };
  for (const [dir, method] of Object.entries(kinds)) {
    test(dir, async () => {
      const { report } = await merge([official(dir)]);
      expect(report.adapters[0]).toMatchObject({ method, rank: 3 });
      expect(report.matrices.map(({ name }) => name)).toEqual([
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.1.self_attn.k_proj.weight",
      ]);
      const { difference, effect } = report.verification!.logits;
      expect(difference).toBeLessThan(effect * 1e-5);
    });
  }
});

describe("files", () => {
  test("tokenizer and settings travel, a card and a record say what was merged", async () => {
    const base = baseIn(next(), "F32");
    const texts = {
      "tokenizer.json": JSON.stringify(BYTE_LEVEL["tokenizer.json"]),
      "chat_template.jinja": "{{ messages[0].content }}",
      "generation_config.json": '{"eos_token_id": 2}',
    };
    for (const [name, text] of Object.entries(texts)) writeFileSync(join(base, name), text);
    writeFileSync(join(base, "notes.txt"), "not of the model");
    const { out } = await merge([saveGolden(rig, "sbora-fb", next())], { modelDir: base });
    const names = ["README.md", "config.json", "model.safetensors", RECORD_FILE, ...Object.keys(texts)];
    expect(readdirSync(out).sort()).toEqual(names.sort());
    for (const [name, text] of Object.entries(texts))
      expect(readFileSync(join(out, name), "utf8")).toBe(text);
    const card = readFileSync(join(out, "README.md"), "utf8");
    expect(card).toContain("sbora-fb");
    expect(card).toContain(fingerprintModel(BASE).slice(0, 16));
    const record = readJson<MergeReport & { schemaVersion: number }>(out, RECORD_FILE);
    expect(record.schemaVersion).toBe(1);
    expect(record.base.fingerprint).toBe(fingerprintModel(BASE));
    expect(record.matrices).toHaveLength(10);
  });

  test("shards: the base's own are kept, large files are cut; the weights do not depend on it", async () => {
    const sharded = baseIn(join(root, "sharded"), "F32", 60_000);
    const shards = readdirSync(sharded).filter((name) => name.startsWith("model-"));
    expect(shards.length).toBeGreaterThan(2);
    expect(fingerprintModel(sharded)).toBe(fingerprintModel(BASE));
    const adapter = saveGolden(rig, "lora", next());
    const { out: plain } = await merge([adapter]);
    const { out: kept } = await merge([adapter], { modelDir: sharded, keepOriginals: true });
    const { out: cut } = await merge([adapter], { maxShardBytes: 40_000 });
    expect(readdirSync(kept).filter((name) => name.startsWith("model-"))).toEqual(shards);
    const cutShards = readdirSync(cut).filter((name) => name.startsWith("model-")).length;
    expect(cutShards).toBeGreaterThan(shards.length);
    expect(fingerprintModel(kept)).toBe(fingerprintModel(plain));
    expect(fingerprintModel(cut)).toBe(fingerprintModel(plain));
    expect(await unmergeModel({ modelDir: kept, out: next() })).toBe(fingerprintModel(BASE));
  });
});

describe("refused, and nothing is left", () => {
  test("an adapter of another base: both names and fingerprints", async () => {
    const adapter = saveGolden(rig, "lora", next(), bf16);
    const message = await refused([adapter]);
    expect(message).toContain("golden/gqa");
    expect(message).toContain(BASE);
    expect(message).toContain(fingerprintModel(bf16).slice(0, 16));
    expect(message).toContain(fingerprintModel(BASE).slice(0, 16));
  });

  test("an adapter that changes nothing", async () => {
    const adapter = saveDisturbed(rig, optionsOf("lora"), next(), 0);
    expect(await refused([adapter])).toContain("no weight changed");
    const { out } = await merge([adapter], { verify: false });
    expect(existsSync(join(out, "model.safetensors"))).toBe(true);
  });

  test("one matrix whose updates all vanish in rounding, though the others keep theirs", async () => {
    const adapter = saveDisturbed(rig, optionsOf("sbora-fa"), next(), 0.05, bf16);
    const module = "layers.1.mlp.up_proj";
    const file = join(adapter, "adapter_model.safetensors");
    const factors = [...readSafetensorsHeader(file).tensors.values()].map((entry) => {
      const own = entry.name.includes(`${module}.lora_B`);
      const bytes = own
        ? narrow(
            "F32",
            readTensorAsF32(entry).map((v) => v * 1e-9),
          )
        : readTensorBytes(entry);
      return { name: entry.name, dtype: entry.dtype, shape: entry.shape, bytes: () => bytes };
    });
    writeSafetensors(file, factors, { format: "pt" });
    const message = await refused([adapter], { modelDir: bf16 });
    expect(message).toContain(`no weight of ${module} changed`);
    expect(message).toContain("--dtype f32");
    const { report } = await merge([adapter], { modelDir: bf16, dtype: "F32" });
    expect(report.verification!.changed[`model.${module}.weight`]).toBeGreaterThan(0);
  });

  test("a matrix that the adapter leaves alone is named, not refused", async () => {
    const adapter = saveDisturbed(rig, optionsOf("lora"), next());
    const file = join(adapter, "adapter_model.safetensors");
    const factors = [...readSafetensorsHeader(file).tensors.values()].map((entry) => {
      const own = entry.name.includes("layers.0.self_attn.k_proj.lora_B");
      const bytes = own ? new Uint8Array(entry.end - entry.start) : readTensorBytes(entry);
      return { name: entry.name, dtype: entry.dtype, shape: entry.shape, bytes: () => bytes };
    });
    writeSafetensors(file, factors, { format: "pt" });
    const notes: string[] = [];
    const { report } = await merge([adapter], { onNote: (note) => notes.push(note) });
    expect(report.verification!.idle).toEqual(["model.layers.0.self_attn.k_proj.weight"]);
    expect(notes.join()).toContain("does nothing in layers.0.self_attn.k_proj");
  });

  test("updates that all vanish in rounding", async () => {
    const adapter = saveDisturbed(rig, optionsOf("sbora-fa"), next(), 1e-9, bf16);
    expect(await refused([adapter], { modelDir: bf16 })).toContain("no weight changed");
  });

  test("weights beyond the stored type's range", async () => {
    const adapter = saveDisturbed(rig, optionsOf("sbora-fa"), next(), 1e5);
    expect(await refused([adapter], { dtype: "F16" })).toContain("infinite or NaN as F16");
  });

  test("an output folder with something in it; no adapter; a folder without originals", async () => {
    const adapter = saveGolden(rig, "oa", next());
    const { out } = await merge([adapter]);
    expect(await merge([adapter], { out }).catch((error: Error) => error.message)).toContain("not empty");
    expect(await refused([])).toContain("no adapter");
    const failed = await unmergeModel({ modelDir: out, out: next() }).catch((error: Error) => error.message);
    expect(failed).toContain("--keep-originals");
  });

  test("an output folder that another run fills meanwhile stays as it is", async () => {
    const out = next();
    const failed = await intoNewFolder(out, async () => {
      mkdirSync(out);
      writeFileSync(join(out, "theirs"), "");
    }).catch((error: Error) => error.message);
    expect(failed).toContain("cannot be written");
    expect(readdirSync(out)).toEqual(["theirs"]);
    expect(readdirSync(root).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  test("the proof: a weight outside the adapter, a NaN, a matrix of other values", async () => {
    const adapter = saveGolden(rig, "sbora-fa", next());
    const { out } = await merge([adapter]);
    const base = openBase(BASE);
    const sources = loadSources(base, [{ dir: adapter, weight: 1 }]);
    const proveAfter = async (name: string, change: (values: Float32Array) => void): Promise<string> => {
      const dir = next();
      baseIn(dir, "F32");
      const tensors = [...openModelTensors(out).values()].map((entry) => {
        const values = readTensorAsF32(entry);
        if (entry.name === name) change(values);
        return { name: entry.name, dtype: "F32" as const, shape: entry.shape, bytes: narrow("F32", values) };
      });
      writeModelTensors(dir, tensors);
      return verifyMerge(rig.device, base, sources, dir).then(
        () => "passed",
        (error: Error) => error.message,
      );
    };
    const q = "model.layers.0.self_attn.q_proj.weight";
    const index = [...readAdapter(adapter).modules.get("layers.0.self_attn.q_proj")!.index!.values];
    const free = [...Array(48).keys()].find((column) => !index.includes(column))!;
    expect(await proveAfter(q, () => {})).toBe("passed");
    const outside = await proveAfter(q, (values) => {
      values[48 + free]! += 1;
    });
    expect(outside).toContain(`tensor ${q}: 1 weights changed that no adapter reaches`);
    const embedding = await proveAfter("model.embed_tokens.weight", (values) => {
      values[0] = Number.NaN;
    });
    expect(embedding).toContain("1 values are infinite or NaN");
    const inside = await proveAfter(q, (values) => {
      for (let row = 0; row < 48; row++) values[row * 48 + index[0]!]! += 0.5;
    });
    expect(inside).toContain(`tensor ${q}: 48 of `);
    const last = await proveAfter(q, (values) => {
      const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
      bits[5 * 48 + index[1]!]! += 16;
    });
    expect(last).toContain(`tensor ${q}: 1 of ${48 * index.length} weights are not the base's plus`);
  });

  test("the proof in 16 bits: every row of a column, every sampled row, to the last place", async () => {
    for (const label of ["sbora-fa", "sbora-fb", "lora", "dora"]) {
      const adapter = saveGolden(rig, label, next(), bf16);
      const { out, report } = await merge([adapter], { modelDir: bf16 });
      const { recomputed, logits } = report.verification!;
      expect(recomputed).toBeGreaterThan(1000);
      const base = openBase(bf16);
      const sources = loadSources(base, [{ dir: adapter, weight: 1 }]);
      const [[part]] = [...partsByTensor(base, sources).values()] as [[Part]];
      const name = `model.${part.site.name}.weight`;
      const { index } = touchedBy(part) as { index?: Int32Array };
      const row = label === "sbora-fb" ? index![0]! : 0;
      const column = label === "sbora-fa" ? index![0]! : 0;
      const dir = next();
      baseIn(dir, "BF16");
      const tensors = [...openModelTensors(out).values()].map((entry) => {
        const bytes = readTensorBytes(entry);
        // two places off
        if (entry.name === name) new Uint16Array(bytes.buffer)[row * entry.shape[1]! + column]! += 2;
        return { name: entry.name, dtype: "BF16" as const, shape: entry.shape, bytes };
      });
      writeModelTensors(dir, tensors);
      const failed = await verifyMerge(rig.device, base, sources, dir).catch((error: Error) => error.message);
      expect(failed).toContain(`tensor ${name}: 1 of `);
      // such a weight is nothing that logits would show
      expect(logits.difference).toBeGreaterThan(1e-3);
    }
  });

  test("unmerging a folder that was changed after the merge", async () => {
    const { out } = await merge([saveGolden(rig, "sbora-fa", next())], { keepOriginals: true });
    const tensors = [...openModelTensors(out).values()].map((entry) => {
      const values = readTensorAsF32(entry);
      if (entry.name === "model.norm.weight") values[0]! += 1;
      return { name: entry.name, dtype: "F32" as const, shape: entry.shape, bytes: narrow("F32", values) };
    });
    writeModelTensors(out, tensors);
    const target = next();
    const message = await unmergeModel({ modelDir: out, out: target }).catch((error: Error) => error.message);
    expect(message).toContain("changed after the merge");
    expect(existsSync(target)).toBe(false);
  });
});
