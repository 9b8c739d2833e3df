/** The tensors of a LLaMA's GGUF file under their Hugging Face names, as bf16. */
import { closeSync, openSync } from "node:fs";
import { Problems } from "../errors.ts";
import { readExactly } from "./files.ts";
import type { GgufFile, GgufTensor } from "./gguf.ts";
import { canDequantize, dequantize } from "./gguf-quants.ts";
import { bytesOf, f32ToBf16 } from "./half.ts";
import type { LlamaConfig } from "./hf-config.ts";
import { ROPE_FACTORS } from "./llama3-rope.ts";
import type { TensorToWrite } from "./safetensors-write.ts";

/** Elements in f32 at one time; a whole embedding would take gigabytes. */
const CHUNK_ELEMENTS = 1 << 22;

/** One tensor of a LLaMA under both its names. */
export interface NamedTensor {
  readonly gguf: string;
  /** Hugging Face's. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Heads whose rows are permuted, 0 for none. */
  readonly heads: number;
}

/** Every tensor to write, each read and converted when its turn comes. @throws InputError naming all mismatches */
export function bf16TensorsOf(file: GgufFile, config: LlamaConfig): TensorToWrite[] {
  const problems = new Problems();
  const expected = llamaTensors(config);
  const known = new Set(expected.map((tensor) => tensor.gguf));
  for (const name of file.tensors.keys()) {
    // The divisors are the configuration's: llamaConfigOf has read them.
    if (known.has(name) || name === ROPE_FACTORS) continue;
    problems.add(`tensor ${name} belongs to no plain LLaMA`);
  }
  const tensors = expected.flatMap(({ gguf, name, shape, heads }): TensorToWrite[] => {
    const tensor = file.tensors.get(gguf);
    if (!tensor) {
      problems.add(`tensor ${gguf} is missing`);
      return [];
    }
    if (tensor.shape.join() !== shape.join())
      problems.add(`tensor ${gguf} is [${tensor.shape.join(", ")}], expected [${shape.join(", ")}]`);
    if (!canDequantize(tensor.type))
      problems.add(`tensor ${gguf} is ${tensor.type.name}, which is not supported`);
    return [{ name, dtype: "BF16", shape, bytes: () => bytesOf(toBf16(file, tensor, heads)) }];
  });
  problems.throwIfAny(file.path, "Take a file quantized to F16, BF16, Q8_0, Q4_0, Q4_1 or a K type.");
  return tensors;
}

/** Every tensor of a LLaMA, in the order of the forward pass. */
export function llamaTensors(config: LlamaConfig): NamedTensor[] {
  const { hiddenSize, intermediateSize, heads, kvHeads, headSize, vocabSize } = config;
  const plain = (gguf: string, name: string, ...shape: number[]): NamedTensor => ({
    gguf,
    name,
    shape,
    heads: 0,
  });
  const layers = Array.from({ length: config.layers }, (_, i): NamedTensor[] => {
    const from = `blk.${i}`;
    const to = `model.layers.${i}`;
    const rotated = (gguf: string, name: string, count: number): NamedTensor => ({
      ...plain(`${from}.${gguf}.weight`, `${to}.self_attn.${name}.weight`, count * headSize, hiddenSize),
      heads: count,
    });
    return [
      plain(`${from}.attn_norm.weight`, `${to}.input_layernorm.weight`, hiddenSize),
      rotated("attn_q", "q_proj", heads),
      rotated("attn_k", "k_proj", kvHeads),
      plain(`${from}.attn_v.weight`, `${to}.self_attn.v_proj.weight`, kvHeads * headSize, hiddenSize),
      plain(`${from}.attn_output.weight`, `${to}.self_attn.o_proj.weight`, hiddenSize, heads * headSize),
      plain(`${from}.ffn_norm.weight`, `${to}.post_attention_layernorm.weight`, hiddenSize),
      plain(`${from}.ffn_gate.weight`, `${to}.mlp.gate_proj.weight`, intermediateSize, hiddenSize),
      plain(`${from}.ffn_up.weight`, `${to}.mlp.up_proj.weight`, intermediateSize, hiddenSize),
      plain(`${from}.ffn_down.weight`, `${to}.mlp.down_proj.weight`, hiddenSize, intermediateSize),
    ];
  });
  const head = config.tiedEmbeddings ? [] : [plain("output.weight", "lm_head.weight", vocabSize, hiddenSize)];
  return [
    plain("token_embd.weight", "model.embed_tokens.weight", vocabSize, hiddenSize),
    ...layers.flat(),
    plain("output_norm.weight", "model.norm.weight", hiddenSize),
    ...head,
  ];
}

/** Dequantized and rounded to nearest even, a few rows at a time; rows of q and k go back to their places. */
function toBf16(file: GgufFile, { type, shape, start, end }: GgufTensor, heads: number): Uint16Array {
  const width = shape.at(-1) ?? 1;
  const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const rowBytes = (end - start) / rows;
  const perChunk = Math.max(1, Math.floor(CHUNK_ELEMENTS / width));
  const bits = new Uint16Array(rows * width);
  const fd = openSync(file.path, "r");
  try {
    for (let row = 0; row < rows; row += perChunk) {
      const count = Math.min(perChunk, rows - row);
      const bytes = new Uint8Array(count * rowBytes);
      readExactly(fd, bytes, start + row * rowBytes, file.path);
      const chunk = f32ToBf16(dequantize(type, bytes));
      for (let i = 0; i < count; i++) {
        const to = heads === 0 ? row + i : rowOfHf(row + i, rows / heads);
        bits.set(chunk.subarray(i * width, (i + 1) * width), to * width);
      }
    }
  } finally {
    closeSync(fd);
  }
  return bits;
}

/**
 * GGUF interleaves the two halves of each head of q and k ([head, half, 2] of rows), so that RoPE turns neighbours;
 * Hugging Face keeps the halves apart ([head, 2, half]).
 */
export function rowOfHf(row: number, headSize: number): number {
  const inHead = row % headSize;
  return row - inHead + (inHead % 2) * (headSize / 2) + (inHead >> 1);
}
