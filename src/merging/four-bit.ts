/**
 * Merging where the base's block linears are 4-bit, in its folder or by --quantize. SBoRA stays 4-bit and exact: codes and
 * scales are copied as they are, and the changed columns (or rows) stand beside them in bf16 (settled 6). Other methods,
 * and --dtype, give a model without codes: the dequantized base plus ΔW.
 */
import { join } from "node:path";
import { InputError } from "../errors.ts";
import { readJsonObject, writeTextFile } from "../formats/files.ts";
import { type FloatDtype, isFloatDtype, narrow } from "../formats/half.ts";
import { hfConfigText } from "../formats/hf-config.ts";
import { copyConfig } from "../formats/model-folder.ts";
import { findNf4, isNf4Line, isNf4Part, type Nf4Entry, readNf4Lines } from "../formats/nf4.ts";
import { type NestedScales, nestScales, unnestScales } from "../formats/nf4-scales.ts";
import { dequantizeNf4, readNf4Values } from "../formats/nf4-values.ts";
import { nf4Config, nf4LineTensors, nf4Tensors } from "../formats/nf4-write.ts";
import { readTensorBytes, type TensorEntry, type TensorToWrite } from "../formats/safetensors.ts";
import { isQuantized, type Quantization } from "../model/nf4.ts";
import type { Arena } from "../native/arena.ts";
import type { Device } from "../native/device.ts";
import { quantizeNf4 } from "../native/nf4.ts";
import { type MergedMatrix, mergeValues, readAsF32 } from "./matrix.ts";
import { gatherLines } from "./originals.ts";
import type { Base, LoadedSource, Part } from "./sources.ts";
import { type Touched, type TouchedLines, touchedBy, union } from "./touched.ts";

/** A block linear whose values are those of 4-bit codes. */
export interface FourBitMatrix {
  readonly name: string;
  readonly out: number;
  readonly in: number;
  /** [out,in] f32: what the codes stand for, lines of an earlier merge in place. */
  values(): Float32Array<ArrayBuffer>;
  /** Codes and scales, without lines. */
  tensors(): TensorToWrite[];
  /** Columns or rows that an earlier merge replaced. */
  readonly lines: TouchedLines | null;
}

export interface FourBit {
  readonly matrices: ReadonlyMap<string, FourBitMatrix>;
  /** Whether the result is 4-bit, too; else the type its matrices are written in. */
  readonly written: "nf4" | FloatDtype;
  readonly quantize: Quantization | null;
}

/** Null when no weight of the base is, or is to be, 4-bit. @throws InputError for what cannot be merged so */
export function fourBitOf(
  device: Device,
  base: Base,
  sources: readonly LoadedSource[],
  parts: ReadonlyMap<string, readonly Part[]>,
  dtype: FloatDtype | undefined,
): FourBit | null {
  const quantize = base.quantize ?? null;
  const matrices = new Map<string, FourBitMatrix>();
  for (const [name, entry] of base.tensors) {
    if (!isQuantized(name)) continue;
    const stored = findNf4(base.tensors, name);
    if (stored) matrices.set(name, storedMatrix(base, stored));
    else if (quantize) matrices.set(name, quantizedMatrix(device, entry, quantize));
  }
  if (matrices.size === 0) return null;
  const lines = sources.every(({ options }) => options.method.name.startsWith("sbora-"));
  if (dtype || !lines) return { matrices, written: dtype ?? "BF16", quantize };
  for (const [name, own] of parts) {
    const matrix = matrices.get(name);
    if (matrix && linesOf(matrix, own) === null) {
      throw new InputError(
        `${name}: columns (SBoRA-FA) and rows (SBoRA-FB) of one 4-bit matrix cannot both be replaced; merge them into 16 bits with --dtype bf16.`,
      );
    }
  }
  return { matrices, written: "nf4", quantize };
}

/** What stands beside the codes after the merge; null when columns and rows would meet. */
function linesOf(matrix: FourBitMatrix, own: readonly Part[]): TouchedLines | null {
  const all: Touched[] = own.map(touchedBy);
  if (matrix.lines) all.push(matrix.lines);
  const touched = union(all);
  return touched.kind === "all" ? null : touched;
}

function storedMatrix(base: Base, entry: Nf4Entry): FourBitMatrix {
  const { name, out, in: width } = entry;
  const own = [...base.tensors.values()].filter(
    (tensor) => tensor.name === name || (tensor.name.startsWith(`${name}.`) && !isNf4Line(tensor.name)),
  );
  const lines = readNf4Lines(entry);
  return {
    ...{ name, out, in: width },
    values: () => readNf4Values(entry),
    tensors: () => own.map(copied),
    lines: lines && { kind: lines.kind, index: lines.indices.slice().sort() },
  };
}

function copied(entry: TensorEntry): TensorToWrite {
  const { name, dtype, shape } = entry;
  return { name, dtype, shape, bytes: () => readTensorBytes(entry) };
}

/** Quantized again whenever it is asked for: that takes less than to hold a model's codes. */
function quantizedMatrix(device: Device, entry: TensorEntry, quantize: Quantization): FourBitMatrix {
  const { name, file } = entry;
  const [out, width] = entry.shape as [number, number];
  const make = (): { codes: Uint8Array; scales: Float32Array | NestedScales; plain: Float32Array } => {
    const source = {
      name: `${file}: tensor ${name}`,
      data: readAsF32(entry),
      dtype: "f32",
      out,
      in: width,
    } as const;
    const { codes, absmax } = quantizeNf4(device, source);
    const scales = quantize === "nf4-double" ? nestScales(absmax) : absmax;
    return { codes, scales, plain: scales instanceof Float32Array ? scales : unnestScales(scales) };
  };
  return {
    ...{ name, out, in: width },
    values() {
      const { codes, plain } = make();
      return dequantizeNf4(codes, plain, out * width, "F32");
    },
    // F32: dequantized without another rounding, as --quantize has it while training
    tensors: () => nf4Tensors({ name, out, in: width, dtype: "F32", ...make(), codes: () => make().codes }),
    lines: null,
  };
}

export interface FourBitWriting {
  readonly device: Device;
  readonly scratch: Arena;
  /** Called once for each adapted matrix. */
  readonly onMerged: (matrix: FourBitMatrix, own: readonly Part[], merged: MergedMatrix) => void;
}

/** What the merged model holds in place of a tensor of the base; null: the tensor itself, in the usual way. */
export function fourBitTensors(
  { matrices, written }: FourBit,
  name: string,
  own: readonly Part[] | undefined,
  { device, scratch, onMerged }: FourBitWriting,
): TensorToWrite[] | null {
  const matrix = matrices.get(name);
  if (!matrix) return isNf4Part(name) ? [] : null;
  const { out, in: width } = matrix;
  const merge = (dtype: FloatDtype): Uint8Array => {
    if (!own) return narrow(dtype, matrix.values());
    const merged = mergeValues(device, name, matrix.values(), [out, width], own, dtype, scratch);
    onMerged(matrix, own, merged);
    return merged.bytes;
  };
  if (written !== "nf4") return [{ name, dtype: written, shape: [out, width], bytes: () => merge(written) }];
  const lines = linesOf(matrix, own ?? []);
  if (!lines || lines.index.length === 0) return matrix.tensors();
  const values = (): Uint8Array => gatherLines(merge("BF16"), lines, [out, width]);
  return [...matrix.tensors(), ...nf4LineTensors(matrix, lines.kind, lines.index, values)];
}

/** config.json of the merged model. */
export function writeFourBitConfig({ written, quantize }: FourBit, base: Base, to: string): void {
  const { dir: from } = base;
  if (written === "nf4" && !quantize) {
    copyConfig(from, to, undefined);
    return;
  }
  copyConfig(from, to, written === "nf4" ? undefined : written);
  const { quantization_config: _, ...config } = readJsonObject(join(to, "config.json"));
  const narrow16 = [...base.tensors.values()].some(({ dtype }) => isFloatDtype(dtype) && dtype !== "F32");
  const now =
    written === "nf4"
      ? { ...config, quantization_config: nf4Config(quantize === "nf4-double", narrow16 ? "bf16" : "f32") }
      : config;
  writeTextFile(join(to, "config.json"), hfConfigText(now));
}

/** [out,in] of the merged folder as f32, in whichever form it was written. */
export function writtenValues(
  { written }: FourBit,
  name: string,
  after: ReadonlyMap<string, TensorEntry>,
): Float32Array | null {
  const entry = after.get(name);
  if (!entry) return null;
  if (written !== "nf4") return readAsF32(entry);
  const packed = findNf4(after, name);
  return packed && readNf4Values(packed);
}
