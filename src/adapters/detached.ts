/** One adapter with tensors of its own, behind no model: for merging matrix by matrix. */
import type { Device } from "../native/device.ts";
import { createTensor, freeTensor } from "../native/tensor.ts";
import type { Adapter, AdapterSite, FactorShape, Factors, Method } from "./adapter.ts";

/** Tensors of zeros, not initialised; it has no gradient. The caller frees it. */
export function createAdapter(device: Device, method: Method, site: AdapterSite): Adapter {
  const make = (shapes: Record<string, FactorShape>): Factors =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, { dtype, shape }]) => [name, createTensor(device, dtype, shape)]),
    );
  return {
    site,
    method,
    trainable: make(method.trainable(site)),
    gradient: {},
    frozen: make(method.frozen(site)),
    derived: make(method.derived(site)),
  };
}

export function freeAdapter(device: Device, { trainable, frozen, derived }: Adapter): void {
  for (const factors of [trainable, frozen, derived]) {
    for (const tensor of Object.values(factors)) freeTensor(device, tensor);
  }
}
