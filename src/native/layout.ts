/** What a tensor is: an address, a type and a shape. `tensor.ts` re-exports this; use that outside `src/native`. */
import { type Device, requireCount } from "./device.ts";

/** "f32" is the library's real: 8 bytes in the double build of the reference, which tests use. */
export type Dtype = "f32" | "bf16" | "i32";

export interface Tensor {
  readonly address: number;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/** Above every address a process can have: tensors of a planning arena start here, and no op accepts them. */
export const PLANNED_ADDRESS = 2 ** 52;
const HIGHEST_ADDRESS = 2 ** 48;

/** "f32 [3,4]", for messages. */
export function describeTensor(tensor: Tensor): string {
  return `${tensor.dtype} [${tensor.shape.join(",")}]`;
}

/** Bytes of one element of `dtype` on this device. */
export function elementBytes(device: Device, dtype: Dtype): number {
  return dtype === "f32" ? device.realBytes : dtype === "bf16" ? 2 : 4;
}

/** Number of elements a shape holds; checks every dimension. */
export function sizeOfShape(shape: readonly number[]): number {
  let size = 1;
  for (const dimension of shape) size *= requireCount(`A dimension of [${shape.join(",")}]`, dimension);
  return requireCount(`The size of [${shape.join(",")}]`, size);
}

/** Number of elements. */
export function sizeOf(tensor: Tensor): number {
  let size = 1;
  for (let i = 0; i < tensor.shape.length; i++) size *= tensor.shape[i]!;
  return size;
}

/** Bytes the tensor covers. */
export function bytesOf(device: Device, tensor: Tensor): number {
  return sizeOf(tensor) * elementBytes(device, tensor.dtype);
}

/** Address for a native call. @throws TypeError for a planned tensor and for anything that is no address */
export function addressOf(tensor: Tensor): number {
  const { address } = tensor;
  if (Number.isInteger(address) && address > 0 && address < HIGHEST_ADDRESS) return address;
  const why = address >= PLANNED_ADDRESS ? "comes from a planning arena and has no memory" : "has no address";
  throw new TypeError(`The tensor ${describeTensor(tensor)} ${why} (${address}).`);
}
