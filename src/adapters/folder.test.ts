/** Folders of other tools: the official SBoRA repositories' (testdata of src/formats), and how a folder is found. */
import { describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAdapter } from "./folder.ts";

const official = (...parts: string[]): string => join(import.meta.dir, "../formats/testdata", ...parts);
const ramp = (count: number, from = 0): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => from + i / 64);

describe("the 16-bit repository", () => {
  test("SBoRA-FA: int64 indices and B", () => {
    const { method, config, metadata, modules } = readAdapter(official("official-sbora-fa"));
    expect({ method, metadata }).toEqual({ method: "sbora-fa", metadata: null });
    expect(config).toMatchObject({ peftType: "SBORA", rank: 3, alpha: 6, dropout: 0.05 });
    expect([...modules.keys()]).toEqual([
      "layers.0.self_attn.k_proj",
      "layers.0.mlp.down_proj",
      "layers.1.self_attn.k_proj",
      "layers.1.mlp.down_proj",
    ]);
    const { index, B } = modules.get("layers.0.mlp.down_proj")!;
    expect(index!.values).toEqual(Int32Array.of(8, 0, 5));
    expect(B!.shape).toEqual([48, 3]);
    expect(B!.values).toEqual(ramp(144));
  });

  test("DoRA: the magnitude is weight_m_wdecomp", () => {
    const { method, modules } = readAdapter(official("official-dora"));
    expect(method).toBe("dora");
    expect(modules.get("layers.1.self_attn.k_proj")!.m!.values).toEqual(ramp(16, 1));
  });
});

describe("the 4-bit repository", () => {
  const four = (n: number, ...rest: string[]): string =>
    official("official-4bit", `checkpoint-${n}`, ...rest);

  test("the kind is told by the tensors, or by the folder's name; any of its folders may be given", () => {
    for (const path of [four(8), four(8, "adapter_model"), four(8, "adapter_model", "SB_FB_sampleMul")]) {
      const { method, config, modules } = readAdapter(path);
      expect({ method, type: config.peftType }).toEqual({ method: "sbora-fb", type: "LORA" });
      const { A, index } = modules.get("layers.1.mlp.down_proj")!;
      expect(index!.values).toEqual(Int32Array.of(3, 15, 9));
      expect(A!.values).toEqual(ramp(240));
    }
    expect(readAdapter(four(9)).method).toBe("lora-fa");
  });

  test("its DoRA has no magnitude and is refused", () => {
    expect(() => readAdapter(four(10))).toThrow("4 modules (layers.0.self_attn.k_proj, …) have no magnitude");
  });

  test("several adapters in one checkpoint: one must be chosen", () => {
    const root = mkdtempSync(join(tmpdir(), "sbora-folder-"));
    try {
      const adapters = join(root, "adapter_model");
      mkdirSync(adapters);
      cpSync(four(8, "adapter_model", "SB_FB_sampleMul"), join(adapters, "SB_FB_sampleMul"), {
        recursive: true,
      });
      cpSync(four(9, "adapter_model", "lora_FA"), join(adapters, "lora_FA"), { recursive: true });
      expect(() => readAdapter(root)).toThrow("2 adapters below");
      expect(readAdapter(join(adapters, "lora_FA")).method).toBe("lora-fa");
      // outside such a checkpoint the name of a folder means nothing
      cpSync(four(9, "adapter_model", "lora_FA"), join(root, "lora_FA"), { recursive: true });
      expect(readAdapter(join(root, "lora_FA")).method).toBe("lora");
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});

test("a whole model, as full fine-tuning writes one, is told from an adapter", () => {
  const root = mkdtempSync(join(tmpdir(), "sbora-folder-"));
  try {
    writeFileSync(join(root, "config.json"), "{}");
    // what training keeps beside it
    mkdirSync(join(root, "last"));
    expect(() => readAdapter(root)).toThrow(
      /: this is a whole model .* give it as --model, without an adapter/,
    );
    expect(() => readAdapter(join(root, "last"))).toThrow("there is no adapter_config.json");
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("values are read when they are asked for, not held", () => {
  const { modules } = readAdapter(official("official-sbora-fa"));
  const { B } = modules.get("layers.0.mlp.down_proj")!;
  expect(B!.values).not.toBe(B!.values);
  expect(B!.values).toEqual(B!.values);
});
