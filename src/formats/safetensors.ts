/** safetensors files: headers, tensors by range, whole model folders, and writing. No tensor is read unless asked for. */
import { InputError } from "../errors.ts";
import { readExactly, withFile } from "./files.ts";
import { bf16ToF32, f16ToF32 } from "./half.ts";
import type { TensorEntry } from "./safetensors-header.ts";

export {
  readSafetensorsHeader,
  type SafetensorsDtype,
  type SafetensorsFile,
  type TensorEntry,
} from "./safetensors-header.ts";
export { openModelTensors } from "./safetensors-model.ts";
export { type TensorToWrite, writeSafetensors } from "./safetensors-write.ts";

/** One array cannot be longer in JavaScript; larger tensors must be mapped. */
const MAX_READ_BYTES = 2 ** 32;

/** The tensor's bytes in a buffer of their own (offset 0, so that any typed array can look at it). */
export function readTensorBytes(entry: TensorEntry): Uint8Array<ArrayBuffer> {
  const length = entry.end - entry.start;
  if (length > MAX_READ_BYTES) {
    throw new InputError(
      `${entry.file}: tensor ${entry.name} has ${length} bytes, at most ${MAX_READ_BYTES} can be read.`,
    );
  }
  const bytes = new Uint8Array(length);
  withFile(entry.file, (fd) => readExactly(fd, bytes, entry.start, entry.file));
  return bytes;
}

/** The tensor's values, row-major. @throws InputError unless it is F32, F16, BF16 or F64 */
export function readTensorAsF32(entry: TensorEntry): Float32Array {
  if (!["F32", "F16", "BF16", "F64"].includes(entry.dtype)) {
    throw new InputError(
      `${entry.file}: tensor ${entry.name} is ${entry.dtype}; expected F32, F16, BF16 or F64.`,
    );
  }
  const { buffer } = readTensorBytes(entry);
  switch (entry.dtype) {
    case "F16":
      return f16ToF32(new Uint16Array(buffer));
    case "BF16":
      return bf16ToF32(new Uint16Array(buffer));
    case "F64":
      return new Float32Array(new Float64Array(buffer));
    default:
      return new Float32Array(buffer);
  }
}
