/**
 * A 4-bit matrix in bitsandbytes' safetensors layout. Beside the codes NAME (U8 [⌈n/2⌉,1], two codes a byte) stand
 *     NAME.absmax                          F32 [blocks], or U8 [blocks] under double quantization with
 *     NAME.nested_absmax, .nested_quant_map   F32 [⌈blocks/256⌉] and F32 [256]
 *     NAME.quant_map                       F32 [16], the code book
 *     NAME.quant_state.bitsandbytes__nf4   U8, a JSON text: shape, dtype, block sizes, offset
 * and, of a merged SBoRA adapter, what replaces columns (or rows) of the dequantized matrix:
 *     NAME.sbora_columns, .sbora_values    I32 [r], BF16 [out,r]      NAME.sbora_rows, .sbora_values   I32 [r], BF16 [r,in]
 */
import { InputError, messageOf, Problems } from "../errors.ts";
import type { FloatDtype } from "./half.ts";
import { type FieldReader, fieldReader } from "./hf-fields.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import {
  DYNAMIC_MAP_SIZE,
  NESTED_BLOCK,
  NF4_BLOCK,
  NF4_CODES,
  nf4Blocks,
  nf4Bytes,
  unnestScales,
} from "./nf4-scales.ts";
import { readTensorAsF32, readTensorBytes, type TensorEntry } from "./safetensors.ts";

export const STATE = ".quant_state.bitsandbytes__nf4";
const OTHER_STATE = ".quant_state.bitsandbytes__fp4";
const MAX_STATE_BYTES = 4096;
const MAX_SIDE = 2 ** 31 - 1;

const DTYPES: Readonly<Record<string, FloatDtype>> = { float32: "F32", float16: "F16", bfloat16: "BF16" };
/** Columns (or rows) of the dequantized matrix that a merge replaced. */
export interface Nf4Lines {
  readonly kind: "columns" | "rows";
  /** [r], distinct. */
  readonly indices: Int32Array;
  /** bf16 bits: [out,r] of columns, [r,in] of rows. */
  readonly values: Uint16Array;
}

/** Where a 4-bit matrix lies; everything but the values of scales and indices has been checked. */
export interface Nf4Entry {
  readonly name: string;
  readonly out: number;
  readonly in: number;
  /** The type bitsandbytes dequantizes to. */
  readonly dtype: FloatDtype;
  readonly codes: TensorEntry;
  readonly absmax: TensorEntry;
  readonly nested: {
    readonly absmax: TensorEntry;
    readonly map: TensorEntry;
    readonly offset: number;
  } | null;
  readonly replaced: {
    readonly kind: Nf4Lines["kind"];
    readonly indices: TensorEntry;
    readonly values: TensorEntry;
  } | null;
}

/** Names of what a merge put beside the codes. */
export function isNf4Line(name: string): boolean {
  return /\.weight\.sbora_(columns|rows|values)$/.test(name);
}

/** Names of the tensors that belong to `name` and are no weights of their own. */
export function isNf4Part(name: string): boolean {
  return /\.weight\.(absmax|nested_absmax|quant_map|nested_quant_map|quant_state\.bitsandbytes__\w+|sbora_(columns|rows|values))$/.test(
    name,
  );
}

/**
 * The 4-bit matrix `name` of a file or folder; null when it is an ordinary tensor, or none.
 * @throws InputError naming everything about it that is not bitsandbytes' NF4 with blocks of 64 and 256
 */
export function findNf4(tensors: ReadonlyMap<string, TensorEntry>, name: string): Nf4Entry | null {
  const codes = tensors.get(name);
  if (!codes) return null;
  if (tensors.has(name + OTHER_STATE)) {
    throw new InputError(
      `${codes.file}: tensor ${name} is quantized to FP4; expected NF4. Quantize the original model again with quant type nf4 (here: --quantize nf4).`,
    );
  }
  const state = tensors.get(name + STATE);
  if (!state) {
    if (codes.dtype !== "U8") return null;
    throw new InputError(
      `${codes.file}: tensor ${name} is U8 without ${name}${STATE}; expected a 4-bit matrix of bitsandbytes, or F32, F16, BF16. Was the folder saved by an old transformers? Save it again with a current one.`,
    );
  }
  const problems = new Problems();
  const found = checkParts(tensors, name, codes, readState(state), problems);
  problems.throwIfAny(
    `${codes.file}: tensor ${name}`,
    "Only bitsandbytes' NF4 with blocks of 64 (scales: 256) can be read; quantize the original model again.",
  );
  return found;
}

function readState(entry: TensorEntry): JsonObject {
  const where = `${entry.file}: tensor ${entry.name}`;
  const bytes = entry.end - entry.start;
  if (entry.dtype !== "U8" || bytes > MAX_STATE_BYTES) {
    throw new InputError(
      `${where} is ${entry.dtype} with ${bytes} bytes; expected a JSON text as U8, at most ${MAX_STATE_BYTES} bytes.`,
    );
  }
  let json: Json;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(readTensorBytes(entry)));
  } catch (error) {
    throw new InputError(`${where} is no JSON text (${messageOf(error)}); the file is damaged.`);
  }
  if (!isObject(json)) throw new InputError(`${where} is no JSON object; the file is damaged.`);
  return json;
}

/** A part's place, if it is there with this type and this many values. */
type Part = (suffix: string, dtype: TensorEntry["dtype"], shape: readonly number[]) => TensorEntry | null;

function checkParts(
  tensors: ReadonlyMap<string, TensorEntry>,
  name: string,
  codes: TensorEntry,
  state: JsonObject,
  problems: Problems,
): Nf4Entry | null {
  const fields = fieldReader(state, problems, "quant_state.");
  required(fields, "quant_type", "nf4");
  required(fields, "blocksize", NF4_BLOCK);
  const dtype = DTYPES[fields.text("dtype")];
  if (!dtype)
    fields.problem(
      `quant_state.dtype is "${fields.text("dtype")}", expected ${Object.keys(DTYPES).join(", ")}`,
    );
  const shape = shapeOf(fields);
  if (!shape || !dtype) return null;
  const [out, width] = shape;
  const part: Part = (suffix, type, size) => {
    const entry = tensors.get(name + suffix);
    const expected = `${type} [${size.join(", ")}]`;
    if (!entry) problems.add(`${suffix} is missing, expected ${expected}`);
    else if (entry.dtype !== type || entry.shape.join() !== size.join())
      problems.add(
        `${suffix || "the codes"} are ${entry.dtype} [${entry.shape.join(", ")}], expected ${expected} for a matrix [${out}, ${width}]`,
      );
    else return entry;
    return null;
  };
  const blocks = nf4Blocks(out * width);
  part("", "U8", [nf4Bytes(out * width), 1]);
  const book = part(".quant_map", "F32", [NF4_CODES.length]);
  if (book && readTensorAsF32(book).some((value, i) => value !== NF4_CODES[i]))
    problems.add(".quant_map is another code book, expected NF4's");
  const isNested = tensors.has(`${name}.nested_absmax`);
  const absmax = part(".absmax", isNested ? "U8" : "F32", [blocks]);
  const nested = isNested ? nestedParts(part, blocks, fields) : null;
  const replaced = replacedParts(tensors, name, part, out, width, problems);
  return absmax && { name, out, in: width, dtype, codes, absmax, nested, replaced };
}

function required(fields: FieldReader, name: string, value: string | number): void {
  if (fields.has(name)) fields.expect(name, [value]);
  else fields.problem(`quant_state.${name} is missing, expected ${JSON.stringify(value)}`);
}

function shapeOf(fields: FieldReader): [number, number] | null {
  const shape = fields.json("shape");
  const good = (n: Json | undefined): n is number =>
    typeof n === "number" && Number.isInteger(n) && n >= 1 && n <= MAX_SIDE;
  if (
    Array.isArray(shape) &&
    shape.length === 2 &&
    good(shape[0]) &&
    good(shape[1]) &&
    shape[0] * shape[1] <= Number.MAX_SAFE_INTEGER
  )
    return [shape[0], shape[1]];
  fields.problem(`quant_state.shape is ${JSON.stringify(shape ?? null)}, expected two sizes [out, in]`);
  return null;
}

function nestedParts(part: Part, blocks: number, fields: FieldReader): Nf4Entry["nested"] {
  required(fields, "nested_blocksize", NESTED_BLOCK);
  required(fields, "nested_dtype", "float32");
  const offset = fields.json("nested_offset");
  const absmax = part(".nested_absmax", "F32", [Math.ceil(blocks / NESTED_BLOCK)]);
  const map = part(".nested_quant_map", "F32", [DYNAMIC_MAP_SIZE]);
  if (typeof offset === "number" && Number.isFinite(offset)) return absmax && map && { absmax, map, offset };
  fields.problem(`quant_state.nested_offset is ${JSON.stringify(offset ?? null)}, expected a number`);
  return null;
}

function replacedParts(
  tensors: ReadonlyMap<string, TensorEntry>,
  name: string,
  part: Part,
  out: number,
  width: number,
  problems: Problems,
): Nf4Entry["replaced"] {
  const kinds = (["columns", "rows"] as const).filter((kind) => tensors.has(`${name}.sbora_${kind}`));
  if (kinds.length === 2) problems.add(".sbora_columns and .sbora_rows are both there, expected one of them");
  const kind = kinds[0];
  if (!kind) {
    if (tensors.has(`${name}.sbora_values`))
      problems.add(".sbora_values has neither .sbora_columns nor .sbora_rows");
    return null;
  }
  const r = tensors.get(`${name}.sbora_${kind}`)!.shape[0] ?? 0;
  const indices = part(`.sbora_${kind}`, "I32", [r]);
  const values = part(".sbora_values", "BF16", kind === "columns" ? [out, r] : [r, width]);
  return indices && values && { kind, indices, values };
}

/** Scales as f32, double quantization undone. @throws InputError when one is not finite */
export function readNf4Scales(entry: Nf4Entry): Float32Array<ArrayBuffer> {
  const { absmax, nested } = entry;
  const scales = nested
    ? unnestScales({
        codes: readTensorBytes(absmax),
        absmax: readTensorAsF32(nested.absmax),
        map: readTensorAsF32(nested.map),
        offset: Math.fround(nested.offset),
      })
    : (readTensorAsF32(absmax) as Float32Array<ArrayBuffer>);
  const bad = scales.findIndex((scale) => !Number.isFinite(scale));
  if (bad < 0) return scales;
  throw new InputError(
    `${absmax.file}: tensor ${entry.name}: the scale of block ${bad} is ${scales[bad]}; expected finite numbers.`,
  );
}

/** What a merge replaced; null without. @throws InputError when an index is out of range or stands twice */
export function readNf4Lines(entry: Nf4Entry): Nf4Lines | null {
  if (!entry.replaced) return null;
  const { kind, indices, values } = entry.replaced;
  const found = new Int32Array(readTensorBytes(indices).buffer);
  const limit = kind === "columns" ? entry.in : entry.out;
  const seen = new Set<number>();
  found.forEach((index, i) => {
    if (index < 0 || index >= limit || seen.has(index)) {
      throw new InputError(
        `${indices.file}: tensor ${indices.name}: entry ${i} is ${index}; expected different ${kind} from 0 to ${limit - 1}.`,
      );
    }
    seen.add(index);
  });
  return { kind, indices: found, values: new Uint16Array(readTensorBytes(values).buffer) };
}
