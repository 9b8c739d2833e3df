/**
 * A bump allocator over one block of device memory: sized from a plan before the first step, released by scope. Memory
 * is handed out again as it is, not zeroed.
 */
import { check, type Device } from "./device.ts";
import { type Dtype, elementBytes, PLANNED_ADDRESS, sizeOfShape, type Tensor } from "./layout.ts";
import { allocate } from "./tensor.ts";

const ALIGNMENT = 64;

export interface Arena {
  readonly device: Device;
  /** Infinity for a planning arena. */
  readonly capacity: number;
  /** For this file only. */
  readonly state: { base: number; used: number; peak: number };
}

/** An arena with `bytes` of device memory. */
export function createArena(device: Device, bytes: number): Arena {
  return { device, capacity: bytes, state: { base: allocate(device, bytes), used: 0, peak: 0 } };
}

/**
 * An arena that only counts: running the same allocations on it gives the plan's peak. Its tensors have shapes and no
 * memory (offsets are 0-based above `PLANNED_ADDRESS`); every op refuses them.
 */
export function planningArena(device: Device): Arena {
  return { device, capacity: Infinity, state: { base: PLANNED_ADDRESS, used: 0, peak: 0 } };
}

/** A tensor from the arena, 64-byte aligned, not zeroed. @throws Error when the arena is full, with both numbers */
export function arenaTensor(arena: Arena, dtype: Dtype, shape: readonly number[]): Tensor {
  const { state, capacity } = arena;
  const bytes = sizeOfShape(shape) * elementBytes(arena.device, dtype);
  const end = state.used + Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
  if (end > capacity) {
    throw new Error(
      `The arena is full: ${dtype} [${shape.join(",")}] needs ${bytes} bytes beyond the ${state.used} in use, ` +
        `${end} in all, and it holds ${capacity}.`,
    );
  }
  if (state.base === 0) throw new Error("The arena has been freed.");
  const tensor: Tensor = { address: state.base + state.used, dtype, shape: [...shape] };
  state.used = end;
  if (end > state.peak) state.peak = end;
  return tensor;
}

/** Where the arena stands now, for `release`. */
export function mark(arena: Arena): number {
  return arena.state.used;
}

/** Gives back everything allocated since `mark` returned `position`. */
export function release(arena: Arena, position: number): void {
  if (!(Number.isInteger(position) && position >= 0 && position <= arena.state.used)) {
    throw new Error(`release: ${position} is no mark of an arena that stands at ${arena.state.used}.`);
  }
  arena.state.used = position;
}

/** The most bytes that were in use at once; a capacity of this many is enough. */
export function peakBytes(arena: Arena): number {
  return arena.state.peak;
}

/** Frees the block; its tensors are invalid from here on. Nothing to do for a planning arena. */
export function freeArena(arena: Arena): void {
  const { state, device } = arena;
  if (state.base !== 0 && arena.capacity !== Infinity) {
    check(device.symbols, device.symbols.sb_free(device.context, state.base));
  }
  state.base = 0;
}

/** An arena of `bytes` for as long as `use` runs. */
export function withArena<T>(device: Device, bytes: number, use: (arena: Arena) => T): T {
  const arena = createArena(device, bytes);
  try {
    return use(arena);
  } finally {
    freeArena(arena);
  }
}
