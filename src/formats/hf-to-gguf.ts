/** A LLaMA's Hugging Face folder as one GGUF file, as llama.cpp wants it: names, permuted rows of q and k, metadata. */
import { basename, resolve } from "node:path";
import { InputError, Problems } from "../errors.ts";
import { type ExportType, fitsType, quantize } from "./gguf-quantize.ts";
import { llamaTensors, type NamedTensor, rowOfHf } from "./gguf-tensors.ts";
import { type GgufMetadata, type GgufTensorToWrite, writeGguf } from "./gguf-write.ts";
import { isFloatDtype, widen } from "./half.ts";
import { type LlamaConfig, readLlamaConfig } from "./hf-config.ts";
import { ggufTokenizerOf } from "./hf-to-gguf-tokenizer.ts";
import { ROPE_FACTORS, ropeFactors } from "./llama3-rope.ts";
import { openModelTensors, readTensorBytes, type TensorEntry } from "./safetensors.ts";

/** Elements in f32 at one time. */
const CHUNK_ELEMENTS = 1 << 20;
/** `general.file_type`: the type most tensors have. */
const FILE_TYPES: Readonly<Record<ExportType, number>> = { F32: 0, F16: 1, Q8_0: 7, BF16: 32 };

export interface GgufExport {
  readonly type: ExportType;
  /** Called before each tensor is written. */
  readonly onTensor?: (done: number, of: number) => void;
  readonly onNote?: (text: string) => void;
}

/** Writes `path`; norms stay F32. @throws InputError naming everything of the folder that does not fit */
export function exportGguf(dir: string, path: string, options: GgufExport): void {
  const config = readLlamaConfig(dir);
  const metadata = {
    ...modelMetadata(config, basename(resolve(dir)), options.type),
    ...ggufTokenizerOf(dir, config, options.onNote),
  };
  const tensors = tensorsOf(dir, config, options);
  let done = 0;
  writeGguf(
    path,
    metadata,
    tensors.map((tensor) => ({
      ...tensor,
      bytes: () => {
        options.onTensor?.(done++, tensors.length);
        return tensor.bytes();
      },
    })),
  );
}

function modelMetadata(config: LlamaConfig, name: string, type: ExportType): Record<string, GgufMetadata> {
  const { ropeScaling } = config;
  const u32 = (value: number): GgufMetadata => ({ u32: value });
  return {
    "general.architecture": { text: "llama" },
    "general.type": { text: "model" },
    "general.name": { text: name },
    "general.file_type": u32(FILE_TYPES[type]),
    ...(type === "Q8_0" ? { "general.quantization_version": u32(2) } : {}),
    "llama.block_count": u32(config.layers),
    "llama.context_length": u32(config.maxPositions),
    "llama.embedding_length": u32(config.hiddenSize),
    "llama.feed_forward_length": u32(config.intermediateSize),
    "llama.attention.head_count": u32(config.heads),
    "llama.attention.head_count_kv": u32(config.kvHeads),
    "llama.attention.key_length": u32(config.headSize),
    "llama.attention.value_length": u32(config.headSize),
    "llama.attention.layer_norm_rms_epsilon": { f32: config.rmsNormEps },
    "llama.rope.freq_base": { f32: config.ropeTheta },
    "llama.rope.dimension_count": u32(config.headSize),
    "llama.vocab_size": u32(config.vocabSize),
    // LLaMA 3.1's scaling is a tensor instead
    ...(ropeScaling?.type === "linear"
      ? {
          "llama.rope.scaling.type": { text: "linear" },
          "llama.rope.scaling.factor": { f32: ropeScaling.factor },
        }
      : {}),
  };
}

function tensorsOf(dir: string, config: LlamaConfig, options: GgufExport): GgufTensorToWrite[] {
  const stored = openModelTensors(dir);
  const problems = new Problems();
  const cut: string[] = [];
  const tensors = llamaTensors(config).flatMap((named): GgufTensorToWrite[] => {
    const entry = stored.get(named.name);
    if (!entry || entry.shape.join() !== named.shape.join() || !isFloatDtype(entry.dtype)) {
      const found = entry ? `${entry.dtype} [${entry.shape.join(", ")}]` : "missing";
      problems.add(`tensor ${named.name} is ${found}, expected F32, F16 or BF16 [${named.shape.join(", ")}]`);
      return [];
    }
    const matrix = named.shape.length > 1;
    const fits = fitsType(options.type, named.shape.at(-1)!);
    if (matrix && !fits) cut.push(named.gguf);
    const type = !matrix ? "F32" : fits ? options.type : "F16";
    return [{ name: named.gguf, shape: named.shape, type, bytes: () => converted(entry, named, type) }];
  });
  problems.throwIfAny(dir, "Only plain LLaMA models can be exported.");
  if (cut.length > 0)
    options.onNote?.(
      `${cut.length} tensors (${cut[0]}, …) have rows that are no whole Q8_0 blocks; they are F16.`,
    );
  const factors = ropeFactors(config);
  if (factors === null) return tensors;
  const bytes = (): Uint8Array => quantize("F32", factors);
  return [...tensors, { name: ROPE_FACTORS, shape: [factors.length], type: "F32", bytes }];
}

/** The tensor's bytes in another type, some rows at a time, rows of q and k in GGUF's order. */
function converted(entry: TensorEntry, { shape, heads }: NamedTensor, type: ExportType): Uint8Array {
  if (!isFloatDtype(entry.dtype)) throw new InputError(`${entry.name} is ${entry.dtype}.`);
  const source = readTensorBytes(entry);
  if (entry.dtype === type && heads === 0) return source;
  const width = shape.at(-1)!;
  const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const rowBytes = source.length / rows;
  const perChunk = Math.max(1, Math.floor(CHUNK_ELEMENTS / width));
  let out: Uint8Array | null = null;
  for (let first = 0; first < rows; first += perChunk) {
    const count = Math.min(perChunk, rows - first);
    const gathered = new Uint8Array(count * rowBytes);
    for (let i = 0; i < count; i++) {
      const from = heads === 0 ? first + i : rowOfHf(first + i, rows / heads);
      gathered.set(source.subarray(from * rowBytes, (from + 1) * rowBytes), i * rowBytes);
    }
    const chunk = quantize(type, widen(entry.dtype, gathered));
    out ??= new Uint8Array((chunk.length / count) * rows);
    out.set(chunk, (chunk.length / count) * first);
  }
  return out!;
}
