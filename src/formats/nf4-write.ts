/** Writing 4-bit matrices in bitsandbytes' layout, and what config.json says about them (`nf4.ts` reads both). */
import { bytesOf, type FloatDtype } from "./half.ts";
import type { JsonObject } from "./json.ts";
import { type Nf4Lines, STATE } from "./nf4.ts";
import { NESTED_BLOCK, type NestedScales, NF4_BLOCK, NF4_CODES, nf4Blocks, nf4Bytes } from "./nf4-scales.ts";
import type { TensorToWrite } from "./safetensors.ts";

const DTYPE_NAMES: Readonly<Record<FloatDtype, string>> = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
};

export interface Nf4ToWrite {
  readonly name: string;
  readonly out: number;
  readonly in: number;
  /** The type it is dequantized to: the original's. */
  readonly dtype: FloatDtype;
  /** Two codes a byte; a function is called when their turn comes. */
  readonly codes: Uint8Array | (() => Uint8Array);
  /** One f32 a block, or double quantized. */
  readonly scales: Float32Array | NestedScales;
  readonly replaced?: Nf4Lines | null;
}

/** The matrix's tensors, under bitsandbytes' names. */
export function nf4Tensors(matrix: Nf4ToWrite): TensorToWrite[] {
  const { name, out, in: width, scales, codes, replaced } = matrix;
  const nested = scales instanceof Float32Array ? null : scales;
  const blocks = nf4Blocks(out * width);
  const u8 = (suffix: string, shape: number[], bytes: TensorToWrite["bytes"]): TensorToWrite => {
    return { name: name + suffix, dtype: "U8", shape, bytes };
  };
  const f32 = (suffix: string, values: Float32Array): TensorToWrite => {
    return { name: name + suffix, dtype: "F32", shape: [values.length], bytes: bytesOf(values) };
  };
  const state = new TextEncoder().encode(stateText(matrix, nested));
  return [
    u8("", [nf4Bytes(out * width), 1], codes),
    ...(scales instanceof Float32Array
      ? [f32(".absmax", scales)]
      : [
          u8(".absmax", [blocks], scales.codes),
          f32(".nested_absmax", scales.absmax),
          f32(".nested_quant_map", scales.map),
        ]),
    f32(".quant_map", NF4_CODES),
    u8(STATE, [state.length], state),
    ...(replaced ? nf4LineTensors(matrix, replaced.kind, replaced.indices, bytesOf(replaced.values)) : []),
  ];
}

/** As Python's json.dumps writes it. */
function stateText(matrix: Nf4ToWrite, nested: NestedScales | null): string {
  const fields: [string, string | number][] = [
    ["quant_type", '"nf4"'],
    ["blocksize", NF4_BLOCK],
    ["dtype", `"${DTYPE_NAMES[matrix.dtype]}"`],
    ["shape", `[${matrix.out}, ${matrix.in}]`],
  ];
  if (nested) {
    fields.push(["nested_blocksize", NESTED_BLOCK], ["nested_dtype", '"float32"']);
    fields.push(["nested_offset", pythonFloat(nested.offset)]);
  }
  return `{${fields.map(([key, value]) => `"${key}": ${value}`).join(", ")}}`;
}

/** The shortest text of the number, with the point that makes it a float to Python. */
function pythonFloat(value: number): string {
  const text = String(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** Replaced columns or rows beside a matrix; values: bf16 [out,r] or [r,in]. */
export function nf4LineTensors(
  matrix: Pick<Nf4ToWrite, "name" | "out" | "in">,
  kind: Nf4Lines["kind"],
  indices: Int32Array,
  values: Uint8Array | (() => Uint8Array),
): TensorToWrite[] {
  const r = indices.length;
  const shape = kind === "columns" ? [matrix.out, r] : [r, matrix.in];
  return [
    { name: `${matrix.name}.sbora_${kind}`, dtype: "I32", shape: [r], bytes: bytesOf(indices) },
    { name: `${matrix.name}.sbora_values`, dtype: "BF16", shape, bytes: values },
  ];
}

/** config.json's quantization_config: transformers quantizes every linear but the head. */
export function nf4Config(doubleQuant: boolean, compute: "f32" | "bf16"): JsonObject {
  return {
    _load_in_4bit: true,
    _load_in_8bit: false,
    bnb_4bit_compute_dtype: compute === "bf16" ? "bfloat16" : "float32",
    bnb_4bit_quant_storage: "uint8",
    bnb_4bit_quant_type: "nf4",
    bnb_4bit_use_double_quant: doubleQuant,
    llm_int8_enable_fp32_cpu_offload: false,
    llm_int8_has_fp16_weight: false,
    llm_int8_skip_modules: null,
    llm_int8_threshold: 6,
    load_in_4bit: true,
    load_in_8bit: false,
    quant_method: "bitsandbytes",
  };
}
