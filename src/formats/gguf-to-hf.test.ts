import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decimalOf } from "./gguf-config.ts";
import { convertGguf } from "./gguf-to-hf.ts";
import { bf16ToF32, bytesOf, f32ToBf16, f32ToF16 } from "./half.ts";
import { type LlamaConfig, readLlamaConfig } from "./hf-config.ts";
import { ropeFactors, scalingOfFactors } from "./llama3-rope.ts";
import { openModelTensors, readTensorAsF32 } from "./safetensors.ts";
import { inputErrorOf, withFiles } from "./testing.ts";
import {
  f32Tensor,
  ggufBytes,
  type TensorPart,
  TINY,
  type Typed,
  tinyMetadata,
  tinyTensors,
} from "./testing-gguf.ts";

type Over = Readonly<Record<string, Typed | undefined>>;

function convert<T>(over: Over, tensors: readonly TensorPart[], use: (dir: string) => T): T {
  const file = ggufBytes({ metadata: tinyMetadata(over), tensors });
  return withFiles({ "tiny.gguf": file }, (dir) => {
    const out = join(dir, "out");
    convertGguf(join(dir, "tiny.gguf"), out);
    return use(out);
  });
}

const json = (dir: string, name: string): unknown => JSON.parse(readFileSync(join(dir, name), "utf8"));
const tokenizerOf = (over: Over): unknown =>
  convert(over, tinyTensors(), (dir) => json(dir, "tokenizer.json"));
const refused = (over: Over, tensors = tinyTensors()): string =>
  inputErrorOf(() => convert(over, tensors, () => null));

describe("weights", () => {
  test("have their Hugging Face names and shapes, in bf16", () => {
    convert({}, tinyTensors(), (dir) => {
      const tensors = openModelTensors(dir);
      const shapes = Object.fromEntries([...tensors].map(([name, { shape }]) => [name, shape]));
      const layer = "model.layers.0";
      expect(shapes).toEqual({
        "model.embed_tokens.weight": [6, 8],
        [`${layer}.input_layernorm.weight`]: [8],
        [`${layer}.self_attn.q_proj.weight`]: [8, 8],
        [`${layer}.self_attn.k_proj.weight`]: [4, 8],
        [`${layer}.self_attn.v_proj.weight`]: [4, 8],
        [`${layer}.self_attn.o_proj.weight`]: [8, 8],
        [`${layer}.post_attention_layernorm.weight`]: [8],
        [`${layer}.mlp.gate_proj.weight`]: [6, 8],
        [`${layer}.mlp.up_proj.weight`]: [6, 8],
        [`${layer}.mlp.down_proj.weight`]: [8, 6],
        "model.norm.weight": [8],
      });
      expect(new Set([...tensors.values()].map((t) => t.dtype))).toEqual(new Set(["BF16"]));
      const v = readTensorAsF32(tensors.get(`${layer}.self_attn.v_proj.weight`)!);
      const exact = Float32Array.from({ length: 32 }, (_, i) => 4 + i / 1024);
      expect(v).toEqual(bf16ToF32(f32ToBf16(exact)));
      expect(v).not.toEqual(exact);
    });
  });

  test("rows of q and k go from [head, half, 2] back to [head, 2, half]; others stay", () => {
    // Each row holds its own number.
    const rows = (name: string, count: number): TensorPart =>
      f32Tensor(
        name,
        [TINY.hidden, count],
        Float32Array.from({ length: TINY.hidden * count }, (_, i) => Math.floor(i / TINY.hidden)),
      );
    const changed = new Map([
      ["blk.0.attn_q.weight", rows("blk.0.attn_q.weight", 8)],
      ["blk.0.attn_k.weight", rows("blk.0.attn_k.weight", 4)],
      ["blk.0.attn_v.weight", rows("blk.0.attn_v.weight", 4)],
    ]);
    const tensors = tinyTensors().map((tensor) => changed.get(tensor.name) ?? tensor);
    convert({}, tensors, (dir) => {
      const opened = openModelTensors(dir);
      const firsts = (name: string): number[] =>
        [...readTensorAsF32(opened.get(`model.layers.0.self_attn.${name}.weight`)!)].filter(
          (_, i) => i % TINY.hidden === 0,
        );
      expect(firsts("q_proj")).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
      expect(firsts("k_proj")).toEqual([0, 2, 1, 3]);
      expect(firsts("v_proj")).toEqual([0, 1, 2, 3]);
    });
  });

  test("a head of its own is lm_head, and the embedding is not tied", () => {
    const head = f32Tensor("output.weight", [8, 6], new Float32Array(48).fill(1));
    convert({}, [...tinyTensors(), head], (dir) => {
      expect(openModelTensors(dir).get("lm_head.weight")?.shape).toEqual([6, 8]);
      expect(readLlamaConfig(dir).tiedEmbeddings).toBe(false);
    });
  });

  test("f16 and bf16 tensors", () => {
    const values = Float32Array.from({ length: 8 }, (_, i) => 1 + i / 64);
    const tensors = tinyTensors().map((tensor): TensorPart => {
      if (tensor.name === "output_norm.weight")
        return { ...tensor, type: 1, bytes: bytesOf(f32ToF16(values)) };
      if (tensor.name === "blk.0.ffn_norm.weight")
        return { ...tensor, type: 30, bytes: bytesOf(f32ToBf16(values)) };
      return tensor;
    });
    convert({}, tensors, (dir) => {
      const opened = openModelTensors(dir);
      for (const name of ["model.norm.weight", "model.layers.0.post_attention_layernorm.weight"])
        expect(readTensorAsF32(opened.get(name)!)).toEqual(values);
    });
  });

  test("everything wrong is said before anything is written", () => {
    const [embedding, norm, ...others] = tinyTensors();
    const wrong = [
      embedding!,
      { ...norm!, sizes: [4, 2] },
      ...others.slice(1),
      f32Tensor("blk.0.attn_q.bias", [8], new Float32Array(8)),
    ];
    const text = refused({}, wrong);
    expect(text).toMatch(/tensor blk\.0\.attn_q\.bias belongs to no plain LLaMA/);
    expect(text).toMatch(/tensor blk\.0\.attn_norm\.weight is \[2, 4\], expected \[8\]/);
    expect(text).toMatch(/tensor blk\.0\.attn_q\.weight is missing/);
    withFiles({ "t.gguf": ggufBytes({ metadata: tinyMetadata(), tensors: wrong }) }, (dir) => {
      expect(() => convertGguf(join(dir, "t.gguf"), join(dir, "out"))).toThrow();
      expect(existsSync(join(dir, "out"))).toBe(false);
    });
    const unknown = tinyTensors().map((t, i) =>
      i === 10 ? { ...t, type: 28, bytes: new Uint8Array(64) } : t,
    );
    expect(refused({}, unknown)).toMatch(/tensor output_norm\.weight is F64, which is not supported/);
  });
});

describe("configuration", () => {
  test("is read back as the metadata says", () => {
    convert({}, tinyTensors(), (dir) => {
      expect({ ...readLlamaConfig(dir), nameOrPath: "" }).toEqual({
        vocabSize: 6,
        hiddenSize: 8,
        intermediateSize: 6,
        layers: 1,
        heads: 2,
        kvHeads: 1,
        headSize: 4,
        maxPositions: 64,
        // The file holds the f32 next to it, 9.999999747378752e-6.
        rmsNormEps: 1e-5,
        ropeTheta: 100000,
        ropeScaling: null,
        tiedEmbeddings: true,
        bosTokenId: 1,
        eosTokenIds: [0],
        padTokenId: 0,
        torchDtype: "bfloat16",
        nameOrPath: "",
      });
      expect(readdirSync(dir).sort()).toEqual([
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
      ]);
    });
  });

  test.each<[string, Over, RegExp]>([
    [
      "another architecture",
      { "general.architecture": { text: "qwen2" } },
      /general\.architecture is "qwen2", expected "llama"/,
    ],
    [
      "no layers",
      { "llama.block_count": undefined },
      /llama\.block_count is missing, expected a positive integer/,
    ],
    [
      "text for a number",
      { "llama.embedding_length": { text: "8" } },
      /llama\.embedding_length is 8, expected a positive integer/,
    ],
    ["experts", { "llama.expert_count": { u32: 8 } }, /llama\.expert_count is set, expected a dense model/],
    [
      "partly rotated heads",
      { "llama.rope.dimension_count": { u32: 2 } },
      /dimension_count is 2, expected the head size 4/,
    ],
    [
      "yarn",
      { "llama.rope.scaling.type": { text: "yarn" } },
      /scaling\.type is "yarn", expected none or linear/,
    ],
    [
      "sizes per layer",
      { "llama.feed_forward_length": { i32s: [6, 6] } },
      /feed_forward_length is an array of 2/,
    ],
    [
      "a BOS beyond the vocabulary",
      { "tokenizer.ggml.bos_token_id": { u32: 6 } },
      /bos_token_id is 6, expected ids below vocab_size 6/,
    ],
    [
      "types that are too few",
      { "tokenizer.ggml.token_type": { i32s: [1] } },
      /token_type has 1 entries, expected one for each of 6 tokens/,
    ],
    [
      "an unknown pre-tokenizer",
      { "tokenizer.ggml.pre": { text: "dbrx" } },
      /tokenizer\.ggml\.pre is "dbrx", expected one of smollm, gpt-2/,
    ],
    [
      "an unknown model",
      { "tokenizer.ggml.model": { text: "t5" } },
      /tokenizer\.ggml\.model is "t5", expected "gpt2"/,
    ],
    ["no merges", { "tokenizer.ggml.merges": undefined }, /tokenizer\.ggml\.merges is missing/],
    [
      "more layers than any model has",
      { "llama.block_count": { u32: 2 ** 28 } },
      /as config\.json: num_hidden_layers is 268435456, expected an integer from 1 to 4096/,
    ],
    [
      "an end of text beyond the vocabulary",
      { "tokenizer.ggml.eot_token_id": { u32: 77 } },
      /eos_token_id is \[0,77\], expected ids below vocab_size 6/,
    ],
    [
      "more tokens than the embedding has rows",
      {
        "tokenizer.ggml.tokens": { texts: [..."abcdefg"] },
        "tokenizer.ggml.token_type": { i32s: Array(7).fill(1) },
      },
      /tokenizer\.ggml\.tokens has 7 entries, expected at most the embedding's 6/,
    ],
  ])("refuses %s", (_, over, expected) => {
    expect(refused(over)).toMatch(expected);
  });

  test("refuses heads that no LLaMA has, before tensors of their sizes are asked for", () => {
    const odd = { "llama.attention.key_length": { u32: 3 }, "llama.rope.dimension_count": { u32: 3 } };
    expect(refused(odd)).toMatch(/head_dim is 3, expected an even number/);
    const heads = { "llama.attention.head_count": { u32: 3 }, "llama.attention.head_count_kv": { u32: 2 } };
    expect(refused({ ...heads, "llama.rope.dimension_count": { u32: 2 } })).toMatch(
      /num_key_value_heads is 2, expected a divisor of num_attention_heads 3/,
    );
  });

  test("linear RoPE scaling and a second end of text", () => {
    const over = {
      "llama.rope.scaling.type": { text: "linear" },
      "llama.rope.scaling.factor": { f32: 2 },
      "tokenizer.ggml.eot_token_id": { u32: 1 },
    };
    convert(over, tinyTensors(), (dir) => {
      expect(readLlamaConfig(dir)).toMatchObject({
        ropeScaling: { type: "linear", factor: 2 },
        eosTokenIds: [0, 1],
      });
    });
  });

  // Four numbers a head have two wavelengths: with base 1e8 2π and 62832, beyond the smooth part; with 500000 2π and 4443, in it.
  const smooth = (factor: number): number => {
    const share = (8192 / (2 * Math.PI * Math.sqrt(500_000)) - 1) / 3;
    return 1 / ((1 - share) / factor + share);
  };

  test("LLaMA 3.1's RoPE scaling is told by its divisors, and written into GGUF again as it was", () => {
    const cases: [base: number, divisors: number[], factor: number | null][] = [
      [1e8, [1, 8], 8],
      [1e8, [1, 32], 32],
      [1e8, [1, 1], null],
    ];
    for (const [base, divisors, factor] of cases) {
      const tensors = [...tinyTensors(), f32Tensor("rope_freqs.weight", [2], divisors)];
      convert({ "llama.rope.freq_base": { f32: base } }, tensors, (dir) => {
        const { ropeScaling } = readLlamaConfig(dir);
        const rest = { lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 };
        expect(ropeScaling).toEqual(factor === null ? null : { type: "llama3", factor, ...rest });
        const again = ropeFactors(readLlamaConfig(dir));
        expect(again && [...again]).toEqual(factor === null ? null : divisors);
      });
    }
  });

  test("as LLaMA 3.2 has it: 64 numbers a head, factor 32, also with llama.cpp's f32 arithmetic", () => {
    const rotation = { ropeTheta: 500_000, headSize: 64 };
    const ropeScaling = {
      type: "llama3",
      factor: 32,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 8192,
    } as const;
    const divisors = ropeFactors({ ...rotation, ropeScaling } as LlamaConfig)!;
    expect([divisors[0], divisors.at(-1)]).toEqual([1, 32]);
    const between = divisors.filter((d) => d > 1 && d < 32);
    expect(between.length).toBeGreaterThan(2);
    expect(scalingOfFactors(divisors, rotation)).toEqual(ropeScaling);
    expect(
      scalingOfFactors(
        divisors.map((d) => d * (d < 32 ? 1 + 1e-5 : 1)),
        rotation,
      ),
    ).toEqual(ropeScaling);
    // other functions
    expect(
      scalingOfFactors(
        divisors.map((d) => d * (d < 32 ? 1.01 : 1)),
        rotation,
      ),
    ).toBeNull();
    expect(scalingOfFactors(divisors, { ...rotation, ropeTheta: 10_000 })).toBeNull();
    expect(scalingOfFactors(divisors.slice(1), rotation)).toBeNull();
  });

  test("other divisors are refused with what was found", () => {
    const refusal = (tensor: TensorPart, over: Over = {}): string =>
      refused(over, [...tinyTensors(), tensor]);
    const base = { "llama.rope.freq_base": { f32: 500_000 } };
    // right for no factor: in the smooth part the last divisor is not the factor
    expect(refusal(f32Tensor("rope_freqs.weight", [2], [1, smooth(8)]), base)).toMatch(
      /rope_freqs\.weight holds 2 divisors from 1\.00000 to 2\.\d+, which are not LLaMA 3\.1's for llama\.rope\.freq_base 500000/,
    );
    expect(refusal(f32Tensor("rope_freqs.weight", [2], [1.5, 8]))).toContain("from 1.50000 to 8.00000");
    expect(refusal(f32Tensor("rope_freqs.weight", [2], [1, Number.NaN]))).toContain("to NaN");
    expect(refusal(f32Tensor("rope_freqs.weight", [3], [1, 1, 8]))).toContain("is F32 [3], expected F32 [2]");
    const linear = {
      "llama.rope.scaling.type": { text: "linear" },
      "llama.rope.scaling.factor": { f32: 2 },
    };
    expect(refusal(f32Tensor("rope_freqs.weight", [2], [1, 8]), linear)).toContain(
      'is "linear", and there is',
    );
  });

  test.each([
    [Math.fround(1e-5), 1e-5],
    [Math.fround(1e-6), 1e-6],
    [Math.fround(0.1), 0.1],
    [500000, 500000],
    [Math.fround(1 / 3), 0.33333334],
  ])("decimalOf(%d)", (value, expected) => {
    expect(decimalOf(value)).toBe(expected);
  });
});

describe("tokenizer", () => {
  const DIGITS = { type: "Digits", individual_digits: true };
  const BYTES = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const added = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };

  test("smollm: single digits, then bytes, nothing in front", () => {
    expect(tokenizerOf({})).toMatchObject({
      normalizer: null,
      pre_tokenizer: { type: "Sequence", pretokenizers: [DIGITS, BYTES] },
      post_processor: null,
      decoder: BYTES,
      added_tokens: [
        { id: 0, content: "<|end|>", ...added },
        { id: 1, content: "<|start|>", ...added },
      ],
      model: {
        type: "BPE",
        vocab: { "<|end|>": 0, "<|start|>": 1, a: 2, b: 3, Ġ: 4, ab: 5 },
        merges: [["a", "b"]],
      },
    });
  });

  test("gpt-2 is taken when the file names none", () => {
    expect(tokenizerOf({ "tokenizer.ggml.pre": undefined })).toMatchObject({ pre_tokenizer: BYTES });
  });

  test("llama-bpe: its own split, whole words first, BOS in front unless the file says no", () => {
    const pre = { "tokenizer.ggml.pre": { text: "llama-bpe" } };
    const withBos = tokenizerOf({ ...pre, "tokenizer.ggml.add_bos_token": undefined });
    expect(withBos).toMatchObject({
      pre_tokenizer: {
        pretokenizers: [
          { type: "Split", behavior: "Isolated", invert: false },
          { ...BYTES, use_regex: false },
        ],
      },
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<|start|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        special_tokens: { "<|start|>": { id: "<|start|>", ids: [1], tokens: ["<|start|>"] } },
      },
      model: { ignore_merges: true },
    });
    expect(tokenizerOf(pre)).toMatchObject({ post_processor: null });
  });

  test("llama: merges out of the scores, byte fallback, one space in front", () => {
    const over: Over = {
      "tokenizer.ggml.model": { text: "llama" },
      "tokenizer.ggml.pre": undefined,
      "tokenizer.ggml.add_bos_token": undefined,
      "tokenizer.ggml.tokens": { texts: ["<unk>", "<s>", "a", "ab", "b", "abb"] },
      "tokenizer.ggml.token_type": { i32s: [2, 3, 1, 1, 1, 4] },
      "tokenizer.ggml.scores": { f32s: [0, 0, -3, -1, -2, -0.5] },
      "tokenizer.ggml.unknown_token_id": { u32: 0 },
    };
    expect(tokenizerOf(over)).toMatchObject({
      normalizer: { normalizers: [{ type: "Prepend", prepend: "▁" }, { type: "Replace" }] },
      pre_tokenizer: null,
      post_processor: { type: "TemplateProcessing" },
      decoder: {
        decoders: [
          { type: "Replace" },
          { type: "ByteFallback" },
          { type: "Fuse" },
          { type: "Strip", start: 1 },
        ],
      },
      // A user-defined token is matched whole but printed; "abb" (-0.5) goes before "ab" (-1).
      added_tokens: [
        { content: "<unk>", special: true },
        { content: "<s>", special: true },
        { content: "abb", special: false },
      ],
      model: {
        unk_token: "<unk>",
        fuse_unk: true,
        byte_fallback: true,
        merges: [
          ["ab", "b"],
          ["a", "b"],
        ],
      },
    });
  });

  test("the configuration names the special tokens and keeps the template", () => {
    convert({}, tinyTensors(), (dir) => {
      expect(json(dir, "tokenizer_config.json")).toEqual({
        bos_token: "<|start|>",
        eos_token: "<|end|>",
        pad_token: "<|end|>",
        chat_template: "{{ messages[0].content }}",
        clean_up_tokenization_spaces: false,
        model_max_length: 64,
        tokenizer_class: "PreTrainedTokenizerFast",
      });
    });
  });
});
