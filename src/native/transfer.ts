/** Values between JavaScript and device memory. `tensor.ts` re-exports these; use that. */
import { check, type Device } from "./device.ts";
import { addressOf, bytesOf, describeTensor, sizeOf, type Tensor } from "./layout.ts";

type Host = Uint8Array | Uint16Array | Int32Array | Float32Array | Float64Array;

function send(device: Device, tensor: Tensor, host: Host): void {
  if (host.byteLength !== bytesOf(device, tensor)) {
    throw new TypeError(
      `write: ${host.byteLength} bytes do not fill ${describeTensor(tensor)} (${bytesOf(device, tensor)} bytes).`,
    );
  }
  if (host.byteLength === 0) return;
  const { symbols, context } = device;
  check(symbols, symbols.sb_write(context, addressOf(tensor), host, host.byteLength));
}

function receive<H extends Host>(device: Device, tensor: Tensor, host: H): H {
  if (host.byteLength === 0) return host;
  const { symbols, context } = device;
  check(symbols, symbols.sb_read(context, addressOf(tensor), host, host.byteLength));
  return host;
}

function requireDtype(what: string, tensor: Tensor, real: boolean): void {
  if ((tensor.dtype !== "i32") === real) return;
  throw new TypeError(
    `${what}: the tensor is ${describeTensor(tensor)}; expected ${real ? "f32 or bf16" : "i32"}.`,
  );
}

function requireLength(what: string, tensor: Tensor, length: number): void {
  if (length === sizeOf(tensor)) return;
  throw new TypeError(
    `${what}: ${length} values for ${describeTensor(tensor)} (${sizeOf(tensor)} elements).`,
  );
}

/** float32 bits rounded to bf16, to nearest even; NaN stays NaN. */
export function toBf16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const rounded = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    const nan = (word & 0x7fffffff) > 0x7f800000;
    rounded[i] = nan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return rounded;
}

/** bf16 bits as float32, exactly. */
export function fromBf16(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16;
  return new Float32Array(words.buffer);
}

/** Writes numbers into an f32 or bf16 tensor, rounded to its type. */
export function writeF32(
  device: Device,
  tensor: Tensor,
  values: Float32Array | Float64Array | readonly number[],
): void {
  requireDtype("writeF32", tensor, true);
  requireLength("writeF32", tensor, values.length);
  if (tensor.dtype === "f32" && device.realBytes === 8) {
    send(device, tensor, values instanceof Float64Array ? values : Float64Array.from(values));
    return;
  }
  const single = values instanceof Float32Array ? values : Float32Array.from(values);
  send(device, tensor, tensor.dtype === "bf16" ? toBf16(single) : single);
}

function readReal(device: Device, tensor: Tensor): Float32Array | Float64Array {
  requireDtype("readF32", tensor, true);
  const size = sizeOf(tensor);
  if (tensor.dtype === "bf16") return fromBf16(receive(device, tensor, new Uint16Array(size)));
  return receive(device, tensor, device.realBytes === 8 ? new Float64Array(size) : new Float32Array(size));
}

/** The tensor's values (f32, bf16) as float32; waits for the ops before. */
export function readF32(device: Device, tensor: Tensor): Float32Array {
  const values = readReal(device, tensor);
  return values instanceof Float32Array ? values : Float32Array.from(values);
}

/** The tensor's values (f32, bf16) as float64, without loss; waits for the ops before. */
export function readF64(device: Device, tensor: Tensor): Float64Array {
  const values = readReal(device, tensor);
  return values instanceof Float64Array ? values : Float64Array.from(values);
}

/** Writes whole numbers into an i32 tensor. */
export function writeI32(device: Device, tensor: Tensor, values: Int32Array | readonly number[]): void {
  requireDtype("writeI32", tensor, false);
  requireLength("writeI32", tensor, values.length);
  if (!(values instanceof Int32Array)) {
    for (const value of values) {
      if ((value | 0) !== value) throw new TypeError(`writeI32: ${value} is no int32.`);
    }
  }
  send(device, tensor, values instanceof Int32Array ? values : Int32Array.from(values));
}

/** Values of an i32 tensor; waits for the ops before. */
export function readI32(device: Device, tensor: Tensor): Int32Array {
  requireDtype("readI32", tensor, false);
  return receive(device, tensor, new Int32Array(sizeOf(tensor)));
}

/** Writes a tensor's raw bytes (checkpoints): exactly as many as it has. */
export function writeBytes(device: Device, tensor: Tensor, bytes: Uint8Array): void {
  send(device, tensor, bytes);
}

/** A tensor's raw bytes, in `into` where that is given and as long; waits for the ops before. */
export function readBytes(device: Device, tensor: Tensor, into?: Uint8Array): Uint8Array {
  const bytes = bytesOf(device, tensor);
  if (into && into.byteLength !== bytes)
    throw new TypeError(
      `readBytes: ${into.byteLength} bytes for ${describeTensor(tensor)} (${bytes} bytes).`,
    );
  return receive(device, tensor, into ?? new Uint8Array(bytes));
}
