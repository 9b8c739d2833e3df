/** NF4 matrices: quantizing as bitsandbytes does, and weights held as codes and scales. */
import { typeCode } from "./check.ts";
import { check, type Device, NativeError, requireCount } from "./device.ts";
import {
  CODES,
  handleOf,
  hostMemory,
  type Weight,
  type WeightData,
  type WeightDtype,
  type WeightSource,
} from "./weight.ts";

export interface Nf4Data {
  /** [⌈out·in/2⌉]: two codes a byte, the first in the high half. */
  readonly codes: Uint8Array<ArrayBuffer>;
  /** f32 [⌈out·in/64⌉], one a block. */
  readonly absmax: Float32Array<ArrayBuffer>;
}

export interface Nf4Source {
  readonly name: string;
  /** As in `Nf4Data`, or an address inside a mapping. */
  readonly codes: WeightData;
  readonly absmax: Float32Array;
  /** Type the values are rounded to: what bitsandbytes dequantizes to. */
  readonly dtype: WeightDtype;
  readonly out: number;
  readonly in: number;
  readonly compute: Weight["compute"];
}

const BYTES = { f32: 4, f16: 2, bf16: 2 } as const;
const handleOut = new BigInt64Array(1);

/** Codes and scales of host data [out,in]. @throws NativeError naming the weight, row and column of a NaN or infinity */
export function quantizeNf4(device: Device, source: Omit<WeightSource, "compute">): Nf4Data {
  const { name, data, dtype, out, in: width } = source;
  const count = sizeOf(name, out, width);
  const memory = hostMemory(name, data, `${dtype} [${out},${width}]`, count * BYTES[dtype]);
  const codes = new Uint8Array(Math.ceil(count / 2));
  const absmax = new Float32Array(Math.ceil(count / 64));
  const { symbols, context } = device;
  const status = symbols.sb_nf4_quantize(context, memory, CODES[dtype], out, width, codes, absmax);
  if (status !== 0) throw new NativeError(`${name}: ${symbols.sb_last_error()}`);
  return { codes, absmax };
}

/** A weight of codes and scales, the caller's to free. @throws NativeError for a scale that is not finite */
export function createNf4Weight(device: Device, source: Nf4Source): Weight {
  const { name, codes, absmax, dtype, out, in: width, compute } = source;
  const count = sizeOf(name, out, width);
  const memory = hostMemory(name, codes, `codes of [${out},${width}]`, Math.ceil(count / 2));
  const scales = hostMemory(name, absmax, `scales of [${out},${width}]`, Math.ceil(count / 64) * 4);
  const { symbols, context } = device;
  const status = symbols.sb_weight_create_nf4(
    context,
    memory,
    scales,
    out,
    width,
    CODES[dtype],
    typeCode(name, compute),
    handleOut,
  );
  if (status !== 0) throw new NativeError(`${name}: ${symbols.sb_last_error()}`);
  return { handle: Number(handleOut[0]), out, in: width, dtype: "nf4", compute, name };
}

function sizeOf(name: string, out: number, width: number): number {
  return requireCount(`${name}: out`, out) * requireCount(`${name}: in`, width);
}

/** Takes out what was written into an NF4 weight: it is its codes again. */
export function dropReplaced(device: Device, weight: Weight): void {
  check(device.symbols, device.symbols.sb_weight_drop_replaced(device.context, handleOf(weight)));
}
