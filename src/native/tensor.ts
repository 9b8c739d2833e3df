/** Device memory with a shape: row-major, dense. The host touches it only through the functions of this file. */
import { check, type Device, requireCount } from "./device.ts";
import {
  addressOf,
  bytesOf,
  type Dtype,
  describeTensor,
  elementBytes,
  sizeOf,
  sizeOfShape,
  type Tensor,
} from "./layout.ts";

export { bytesOf, type Dtype, describeTensor, elementBytes, sizeOf, type Tensor } from "./layout.ts";
export { readBytes, readF32, readF64, readI32, writeBytes, writeF32, writeI32 } from "./transfer.ts";

const out = new BigInt64Array(1);

/** `bytes` of zeroed device memory (`sb_alloc`). */
export function allocate(device: Device, bytes: number): number {
  // An empty tensor still gets an address, so that no op sees NULL for it.
  const size = Math.max(1, requireCount("allocate: bytes", bytes));
  check(device.symbols, device.symbols.sb_alloc(device.context, size, out));
  return Number(out[0]);
}

/** A new tensor of zeros, the caller's to free. */
export function createTensor(device: Device, dtype: Dtype, shape: readonly number[]): Tensor {
  const address = allocate(device, sizeOfShape(shape) * elementBytes(device, dtype));
  return { address, dtype, shape: [...shape] };
}

/** Frees memory of `createTensor`; never a view or an arena's tensor. */
export function freeTensor(device: Device, tensor: Tensor): void {
  check(device.symbols, device.symbols.sb_free(device.context, addressOf(tensor)));
}

/** A window of the same memory: `shape` from element `elementOffset` on. */
export function view(
  device: Device,
  tensor: Tensor,
  elementOffset: number,
  shape: readonly number[],
): Tensor {
  requireCount("view: the offset", elementOffset);
  const end = elementOffset + sizeOfShape(shape);
  if (end > sizeOf(tensor)) {
    throw new TypeError(
      `view: [${shape.join(",")}] at element ${elementOffset} ends at ${end}, beyond ${describeTensor(tensor)} ` +
        `with ${sizeOf(tensor)} elements.`,
    );
  }
  const address = tensor.address + elementOffset * elementBytes(device, tensor.dtype);
  return { address, dtype: tensor.dtype, shape: [...shape] };
}

/** The same memory under another shape of equal size. */
export function reshape(tensor: Tensor, shape: readonly number[]): Tensor {
  if (sizeOfShape(shape) !== sizeOf(tensor)) {
    throw new TypeError(`reshape: ${describeTensor(tensor)} does not hold [${shape.join(",")}].`);
  }
  return { address: tensor.address, dtype: tensor.dtype, shape: [...shape] };
}

/** Fills with zeros. */
export function zero(device: Device, tensor: Tensor): void {
  const { symbols, context } = device;
  check(symbols, symbols.sb_zero(context, addressOf(tensor), bytesOf(device, tensor)));
}

/** Copies `from` to `to`: same dtype, same number of elements, no overlap. */
export function copy(device: Device, to: Tensor, from: Tensor): void {
  if (to.dtype !== from.dtype || sizeOf(to) !== sizeOf(from)) {
    throw new TypeError(`copy: ${describeTensor(from)} does not fit ${describeTensor(to)}.`);
  }
  const { symbols, context } = device;
  check(symbols, symbols.sb_copy(context, addressOf(to), addressOf(from), bytesOf(device, to)));
}
