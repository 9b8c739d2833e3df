/** GGUF files put together by hand, valid or not, and a tiny LLaMA in one. */
import { bytesOf } from "./half.ts";

/** A metadata value with the type it is written as. */
export type Typed =
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly bool: boolean | number }
  | { readonly text: string }
  | { readonly u64: bigint }
  | { readonly texts: readonly string[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] }
  | { readonly raw: Uint8Array };

export interface TensorPart {
  readonly name: string;
  /** Innermost first, as the file states them. */
  readonly sizes: readonly (number | bigint)[];
  readonly type: number;
  readonly bytes: Uint8Array;
  /** Instead of the place behind the tensor before. */
  readonly offset?: number;
}

export interface GgufParts {
  readonly magic?: string;
  readonly version?: number;
  readonly tensorCount?: bigint;
  readonly metadataCount?: bigint;
  readonly metadata?: readonly (readonly [string, Typed])[];
  readonly tensors?: readonly TensorPart[];
  readonly alignment?: number;
}

export function u32(value: number): Uint8Array {
  return bytesOf(Uint32Array.of(value));
}

export function u64(value: number | bigint): Uint8Array {
  return bytesOf(BigUint64Array.of(BigInt(value)));
}

export function text(value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  return concat([u64(bytes.length), bytes]);
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function typed(value: Typed): Uint8Array {
  if ("u32" in value) return concat([u32(4), u32(value.u32)]);
  if ("f32" in value) return concat([u32(6), bytesOf(Float32Array.of(value.f32))]);
  if ("bool" in value) return concat([u32(7), Uint8Array.of(Number(value.bool))]);
  if ("text" in value) return concat([u32(8), text(value.text)]);
  if ("u64" in value) return concat([u32(10), u64(value.u64)]);
  if ("texts" in value) return concat([u32(9), u32(8), u64(value.texts.length), ...value.texts.map(text)]);
  if ("i32s" in value)
    return concat([u32(9), u32(5), u64(value.i32s.length), bytesOf(Int32Array.from(value.i32s))]);
  if ("f32s" in value)
    return concat([u32(9), u32(6), u64(value.f32s.length), bytesOf(Float32Array.from(value.f32s))]);
  return value.raw;
}

export function ggufBytes(parts: GgufParts): Uint8Array {
  const { metadata = [], tensors = [], alignment = 32 } = parts;
  const pad = (size: number): number => Math.ceil(size / alignment) * alignment;
  let next = 0;
  const placed = tensors.map((tensor) => {
    const offset = tensor.offset ?? next;
    next = pad(offset + tensor.bytes.length);
    return { ...tensor, offset };
  });
  const head = concat([
    new TextEncoder().encode(parts.magic ?? "GGUF"),
    u32(parts.version ?? 3),
    u64(parts.tensorCount ?? tensors.length),
    u64(parts.metadataCount ?? metadata.length),
    ...metadata.flatMap(([key, value]) => [text(key), typed(value)]),
    ...placed.flatMap(({ name, sizes, type, offset }) => [
      text(name),
      u32(sizes.length),
      ...sizes.map(u64),
      u32(type),
      u64(offset),
    ]),
  ]);
  const dataStart = pad(head.length);
  const end = Math.max(0, ...placed.map(({ offset, bytes }) => offset + bytes.length));
  const file = new Uint8Array(dataStart + end);
  file.set(head);
  for (const { offset, bytes } of placed) file.set(bytes, dataStart + offset);
  return file;
}

export function f32Tensor(name: string, sizes: readonly number[], values: ArrayLike<number>): TensorPart {
  return { name, sizes, type: 0, bytes: bytesOf(Float32Array.from(values)) };
}

/** Sizes of `tinyLlama`. */
export const TINY = { hidden: 8, heads: 2, kvHeads: 1, headSize: 4, ffn: 6, layers: 1, vocab: 6 } as const;

const TINY_TOKENS = ["<|end|>", "<|start|>", "a", "b", "Ġ", "ab"];

export const TINY_METADATA: readonly (readonly [string, Typed])[] = [
  ["general.architecture", { text: "llama" }],
  ["general.name", { text: "Tiny" }],
  ["llama.block_count", { u32: TINY.layers }],
  ["llama.context_length", { u32: 64 }],
  ["llama.embedding_length", { u32: TINY.hidden }],
  ["llama.feed_forward_length", { u32: TINY.ffn }],
  ["llama.attention.head_count", { u32: TINY.heads }],
  ["llama.attention.head_count_kv", { u32: TINY.kvHeads }],
  ["llama.rope.freq_base", { f32: 100000 }],
  ["llama.attention.layer_norm_rms_epsilon", { f32: 1e-5 }],
  ["llama.rope.dimension_count", { u32: TINY.headSize }],
  ["tokenizer.ggml.model", { text: "gpt2" }],
  ["tokenizer.ggml.pre", { text: "smollm" }],
  ["tokenizer.ggml.tokens", { texts: TINY_TOKENS }],
  ["tokenizer.ggml.token_type", { i32s: [3, 3, 1, 1, 1, 1] }],
  ["tokenizer.ggml.merges", { texts: ["a b"] }],
  ["tokenizer.ggml.bos_token_id", { u32: 1 }],
  ["tokenizer.ggml.eos_token_id", { u32: 0 }],
  ["tokenizer.ggml.padding_token_id", { u32: 0 }],
  ["tokenizer.ggml.add_bos_token", { bool: false }],
  ["tokenizer.chat_template", { text: "{{ messages[0].content }}" }],
];

/** Every element is the tensor's number plus its position / 1024, which bf16 does not hold exactly. */
export function tinyTensors(): TensorPart[] {
  const { hidden, heads, kvHeads, headSize, ffn, vocab } = TINY;
  const sizes: [string, number[]][] = [
    ["token_embd.weight", [hidden, vocab]],
    ["blk.0.attn_norm.weight", [hidden]],
    ["blk.0.attn_q.weight", [hidden, heads * headSize]],
    ["blk.0.attn_k.weight", [hidden, kvHeads * headSize]],
    ["blk.0.attn_v.weight", [hidden, kvHeads * headSize]],
    ["blk.0.attn_output.weight", [heads * headSize, hidden]],
    ["blk.0.ffn_norm.weight", [hidden]],
    ["blk.0.ffn_gate.weight", [hidden, ffn]],
    ["blk.0.ffn_up.weight", [hidden, ffn]],
    ["blk.0.ffn_down.weight", [ffn, hidden]],
    ["output_norm.weight", [hidden]],
  ];
  return sizes.map(([name, shape], n) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return f32Tensor(
      name,
      shape,
      Float32Array.from({ length: count }, (_, i) => n + i / 1024),
    );
  });
}

/** Metadata with some entries changed, added or (undefined) left out. */
export function tinyMetadata(over: Readonly<Record<string, Typed | undefined>> = {}): [string, Typed][] {
  const all = { ...Object.fromEntries(TINY_METADATA), ...over };
  return Object.entries(all).flatMap(([key, value]): [string, Typed][] => (value ? [[key, value]] : []));
}
