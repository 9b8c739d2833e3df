/** GGUF out: read again by our own reader, tensors and settings come back as they went. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readGguf, readGgufTensor } from "./gguf.ts";
import { type ExportType, quantize } from "./gguf-quantize.ts";
import { dequantize } from "./gguf-quants.ts";
import { convertGguf } from "./gguf-to-hf.ts";
import { exportGguf } from "./hf-to-gguf.ts";
import { openModelTensors, readTensorAsF32, readTensorBytes } from "./safetensors.ts";
import { inputErrorOf, withFiles } from "./testing.ts";
import { f32Tensor, ggufBytes, TINY_METADATA, tinyMetadata, tinyTensors } from "./testing-gguf.ts";

/** A tiny model as a folder. */
function withModel<T>(use: (dir: string, model: string) => T, tensors = tinyTensors()): T {
  return withFiles({ "tiny.gguf": ggufBytes({ metadata: tinyMetadata(), tensors }) }, (dir) => {
    const model = join(dir, "model");
    convertGguf(join(dir, "tiny.gguf"), model);
    return use(dir, model);
  });
}

function exported<T>(type: ExportType, use: (path: string, model: string, notes: string[]) => T): T {
  return withModel((dir, model) => {
    const path = join(dir, "out.gguf");
    const notes: string[] = [];
    exportGguf(model, path, { type, onNote: (text) => notes.push(text) });
    return use(path, model, notes);
  });
}

const bytesOf = (dir: string): Map<string, Uint8Array> =>
  new Map([...openModelTensors(dir)].map(([name, entry]) => [name, readTensorBytes(entry)]));

describe("models", () => {
  for (const type of ["BF16", "F16", "F32"] as const) {
    test(`${type}: a folder of the same weights, settings and tokenizer comes back`, () => {
      exported(type, (path, model) => {
        const again = `${model}-again`;
        convertGguf(path, again);
        expect(bytesOf(again)).toEqual(bytesOf(model));
        for (const name of [
          "tokenizer.json",
          "tokenizer_config.json",
          "config.json",
          "generation_config.json",
        ]) {
          expect(readFileSync(join(again, name), "utf8")).toBe(readFileSync(join(model, name), "utf8"));
        }
      });
    });
  }

  test("every metadata key of the file it came from stands in it again", () => {
    exported("BF16", (path) => {
      const { metadata } = readGguf(path);
      for (const [key] of TINY_METADATA) expect(metadata.has(key)).toBe(true);
      expect(metadata.get("general.file_type")).toBe(32);
      expect(metadata.get("tokenizer.ggml.pre")).toBe("smollm");
      expect(metadata.get("tokenizer.ggml.merges")).toEqual(["a b"]);
      expect(metadata.get("tokenizer.ggml.token_type")).toEqual([3, 3, 1, 1, 1, 1]);
    });
  });

  test("norms stay F32, matrices have the type; rows of q and k are in the first file's order again", () => {
    // Each row holds its own number.
    const numbered = Float32Array.from({ length: 64 }, (_, i) => Math.floor(i / 8));
    const tensors = tinyTensors().map((tensor) =>
      tensor.name === "blk.0.attn_q.weight" ? f32Tensor(tensor.name, [8, 8], numbered) : tensor,
    );
    withModel((dir, model) => {
      exportGguf(model, join(dir, "out.gguf"), { type: "F16" });
      const file = readGguf(join(dir, "out.gguf"));
      expect(file.tensors.get("blk.0.attn_norm.weight")!.type.name).toBe("F32");
      const q = file.tensors.get("blk.0.attn_q.weight")!;
      expect(q.type.name).toBe("F16");
      expect(dequantize(q.type, readGgufTensor(file, q))).toEqual(numbered);
      const hf = readTensorAsF32(openModelTensors(model).get("model.layers.0.self_attn.q_proj.weight")!);
      expect(hf.filter((_, i) => i % 8 === 0)).toEqual(Float32Array.of(0, 2, 1, 3, 4, 6, 5, 7));
    }, tensors);
  });

  test("Q8_0: rows that are no whole blocks become F16, with a note", () => {
    exported("Q8_0", (path, _model, notes) => {
      const file = readGguf(path);
      expect(file.tensors.get("blk.0.ffn_up.weight")!.type.name).toBe("F16");
      expect(notes.join()).toContain("8 tensors");
      expect(file.metadata.get("general.quantization_version")).toBe(2);
    });
  });

  test("linear RoPE scaling is a factor, LLaMA 3's a tensor of divisors", () => {
    withModel((dir, model) => {
      const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8")) as object;
      const llama3 = {
        rope_type: "llama3",
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 64,
      };
      const written = (over: object, name: string): ReturnType<typeof readGguf> => {
        writeFileSync(join(model, "config.json"), JSON.stringify({ ...config, ...over }));
        exportGguf(model, join(dir, name), { type: "F32" });
        return readGguf(join(dir, name));
      };
      const linear = written({ rope_scaling: { type: "linear", factor: 2 } }, "linear.gguf");
      expect(linear.metadata.get("llama.rope.scaling.factor")).toBe(2);
      const three = written({ rope_theta: 10000, rope_scaling: llama3 }, "llama3.gguf");
      const freqs = three.tensors.get("rope_freqs.weight")!;
      // wavelengths 2π and 628: in between and beyond original / low = 64
      const [fast, slow] = dequantize(freqs.type, readGgufTensor(three, freqs));
      expect(fast).toBeCloseTo(1, 6);
      expect(slow).toBe(8);
    });
  });

  test("SentencePiece with or without a space in front comes back as it was", () => {
    const sentencePiece = {
      "tokenizer.ggml.model": { text: "llama" },
      "tokenizer.ggml.pre": { text: "default" },
      "tokenizer.ggml.tokens": { texts: ["<unk>", "<s>", "a", "ab", "b", "▁"] },
      "tokenizer.ggml.token_type": { i32s: [2, 3, 1, 1, 1, 1] },
      "tokenizer.ggml.scores": { f32s: [0, 0, -3, -1, -2, -4] },
      "tokenizer.ggml.unknown_token_id": { u32: 0 },
    } as const;
    for (const prefix of [true, false]) {
      const metadata = tinyMetadata({
        ...sentencePiece,
        "tokenizer.ggml.add_space_prefix": { bool: prefix },
      });
      withFiles({ "sp.gguf": ggufBytes({ metadata, tensors: tinyTensors() }) }, (dir) => {
        convertGguf(join(dir, "sp.gguf"), join(dir, "model"));
        const tokenizer = readFileSync(join(dir, "model", "tokenizer.json"), "utf8");
        expect(tokenizer.includes('"type":"Prepend"')).toBe(prefix);
        expect(tokenizer.includes('"type":"Strip"')).toBe(prefix);
        exportGguf(join(dir, "model"), join(dir, "again.gguf"), { type: "BF16" });
        expect(readGguf(join(dir, "again.gguf")).metadata.get("tokenizer.ggml.add_space_prefix")).toBe(
          prefix,
        );
      });
    }
  });

  test("BOS in front: tokenizer_config.json's add_bos_token goes first, then the post-processor", () => {
    withModel((dir, model) => {
      const change = (name: string, over: object): void => {
        const path = join(model, name);
        writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...over }));
      };
      const bos = "<|start|>";
      const single = [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }];
      const special_tokens = { [bos]: { id: bos, ids: [1], tokens: [bos] } };
      const template = { type: "TemplateProcessing", single, pair: single, special_tokens };
      for (const post_processor of [template, null]) {
        change("tokenizer.json", { post_processor });
        for (const add_bos_token of [true, false, null]) {
          change("tokenizer_config.json", { add_bos_token });
          exportGguf(model, join(dir, "bos.gguf"), { type: "BF16" });
          const exported = readGguf(join(dir, "bos.gguf")).metadata.get("tokenizer.ggml.add_bos_token");
          expect(exported).toBe(add_bos_token ?? post_processor !== null);
        }
      }
    });
  });

  test("refused: a tokenizer that llama.cpp does not know, ids beyond the vocabulary, a missing tensor", () => {
    withModel((dir, model) => {
      const path = join(model, "tokenizer.json");
      const tokenizer = JSON.parse(readFileSync(path, "utf8")) as {
        model: { vocab: Record<string, number> };
      };
      const refusal = (over: object): string => {
        writeFileSync(path, JSON.stringify({ ...tokenizer, ...over }));
        return inputErrorOf(() => exportGguf(model, join(dir, "x.gguf"), { type: "F32" }));
      };
      const split = { type: "Split", pattern: { Regex: "x" }, behavior: "Isolated", invert: false };
      expect(refusal({ pre_tokenizer: split })).toContain("no name for this pre-tokenizer");
      expect(refusal({ model: { type: "WordPiece" } })).toContain('expected "BPE"');
      const vocab = { ...tokenizer.model.vocab, far: 6 };
      expect(refusal({ model: { ...tokenizer.model, vocab } })).toContain("below vocab_size 6");
      writeFileSync(path, JSON.stringify(tokenizer));
      const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8")) as object;
      writeFileSync(join(model, "config.json"), JSON.stringify({ ...config, tie_word_embeddings: false }));
      const untied = inputErrorOf(() => exportGguf(model, join(dir, "x.gguf"), { type: "F32" }));
      expect(untied).toContain("lm_head.weight is missing");
    });
  });
});

describe("Q8_0", () => {
  test("one block by hand: scale, rounding away from zero, sign", () => {
    const values = new Float32Array(32);
    values.set([127, -127, 0.5, -0.5, 1.4, 1.6, -2.5, 0]);
    const bytes = quantize("Q8_0", values);
    expect(bytes.length).toBe(34);
    // d = 1 as f16
    expect([bytes[0], bytes[1]]).toEqual([0x00, 0x3c]);
    expect([...new Int8Array(bytes.buffer, 2, 8)]).toEqual([127, -127, 1, -1, 1, 2, -3, 0]);
  });

  test("zeros, and the error of random values is at most half a step", () => {
    expect(quantize("Q8_0", new Float32Array(32)).every((byte) => byte === 0)).toBe(true);
    const values = Float32Array.from({ length: 320 }, (_, i) => Math.sin(i * 12.9898) * (1 + (i % 7)));
    const file = readGgufType("Q8_0");
    const back = dequantize(file, quantize("Q8_0", values));
    for (let b = 0; b < 10; b++) {
      const block = values.subarray(b * 32, b * 32 + 32);
      const step = Math.max(...block.map(Math.abs)) / 127;
      block.forEach((value, i) => {
        // half a step, and what rounding the scale to f16 adds
        expect(Math.abs(value - back[b * 32 + i]!)).toBeLessThan(0.5 * step + 127 * step * 2 ** -11);
      });
    }
  });
});

function readGgufType(name: string): Parameters<typeof dequantize>[0] {
  const tensors = [{ ...f32Tensor("x", [32], new Float32Array(32)), type: 8, bytes: new Uint8Array(34) }];
  return withFiles({ "x.gguf": ggufBytes({ tensors }) }, (dir) => {
    const { type } = readGguf(join(dir, "x.gguf")).tensors.get("x")!;
    expect(type.name).toBe(name);
    return type;
  });
}
