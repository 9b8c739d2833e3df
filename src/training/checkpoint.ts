/**
 * What resume needs, in one safetensors file that is replaced atomically: parameters, both moments, the best factors so
 * far and the step. Random streams and the data cursor are functions of the recipe and the step, so a resumed run gives
 * the bytes of an uninterrupted one.
 */
import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { InputError } from "../errors.ts";
import { readSafetensorsHeader, readTensorBytes, writeSafetensors } from "../formats/safetensors.ts";
import type { Device } from "../native/device.ts";
import { readBytes, type Tensor, writeBytes } from "../native/tensor.ts";

export interface CheckpointTensors {
  readonly parameters: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
}

export interface CheckpointState {
  /** Finished optimizer steps. */
  readonly step: number;
  readonly recipeHash: string;
  readonly bestLoss: number | null;
  readonly bestStep: number;
  /** Parameters at the best validation loss, f32 bytes; null before the first validation. */
  readonly best: Uint8Array | null;
}

const NAMES = ["parameters", "m", "v"] as const;

/**
 * Writes to a temporary name, syncs and renames: a killed process leaves the old checkpoint or the new one. `staging`,
 * as long as one tensor, is overwritten: for `full` that is the size of the model, and three of them would be seen.
 */
export function saveCheckpoint(
  path: string,
  device: Device,
  tensors: CheckpointTensors,
  state: CheckpointState,
  staging: Uint8Array,
): void {
  mkdirSync(dirname(path), { recursive: true });
  const shape = [...tensors.parameters.shape];
  const entries = NAMES.map((name) => ({
    name,
    dtype: "F32" as const,
    shape,
    bytes: () => readBytes(device, tensors[name], staging),
  }));
  const best = state.best ? [{ name: "best", dtype: "F32" as const, shape, bytes: state.best }] : [];
  const { step, recipeHash, bestLoss, bestStep } = state;
  writeSafetensors(path, [...entries, ...best], {
    state: JSON.stringify({ step, recipeHash, bestLoss, bestStep }),
  });
}

/**
 * Reads the checkpoint into the tensors; null when there is none.
 * @throws InputError when it belongs to another recipe or does not fit.
 */
export function loadCheckpoint(
  path: string,
  device: Device,
  tensors: CheckpointTensors,
  recipeHash: string,
): CheckpointState | null {
  if (!existsSync(path)) return null;
  const file = readSafetensorsHeader(path);
  const text = file.metadata.get("state");
  if (!text)
    throw new InputError(`${path}: no training state in its metadata; it is not a checkpoint of sbora`);
  const saved = JSON.parse(text) as Omit<CheckpointState, "best">;
  if (saved.recipeHash !== recipeHash) {
    throw new InputError(
      `${path}: this checkpoint belongs to another recipe (${saved.recipeHash.slice(0, 12)}, this run is ` +
        `${recipeHash.slice(0, 12)}). Resume with the flags it was started with, or choose another --out.`,
    );
  }
  const elements = tensors.parameters.shape[0]!;
  for (const name of NAMES) {
    const entry = file.tensors.get(name);
    if (entry?.shape[0] !== elements) {
      throw new InputError(
        `${path}: tensor ${name} has ${entry?.shape[0] ?? "no"} elements, expected ${elements}`,
      );
    }
    writeBytes(device, tensors[name], readTensorBytes(entry));
  }
  const best = file.tensors.get("best");
  return { ...saved, best: best ? readTensorBytes(best) : null };
}
