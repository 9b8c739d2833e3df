/**
 * Files of torch.save: a ZIP archive with `<name>/data.pkl` (a dictionary of tensors, see torch-pickle.ts) and each
 * storage as an uncompressed entry `<name>/data/<key>`. Tensors are given as places in the file, as safetensors' are.
 */
import { crc32 } from "node:zlib";
import { InputError, Problems } from "../errors.ts";
import { readExactly, withFile } from "./files.ts";
import { DTYPE_BITS, type SafetensorsDtype, type TensorEntry } from "./safetensors-header.ts";
import { MAX_PICKLE_BYTES, type PickledTensor, readTensorPickle } from "./torch-pickle.ts";
import { listZip, STORED, type ZipEntry } from "./zip.ts";

const DTYPES: Readonly<Record<string, SafetensorsDtype>> = {
  Float: "F32",
  Half: "F16",
  BFloat16: "BF16",
  Double: "F64",
  Long: "I64",
  Int: "I32",
  Short: "I16",
  Char: "I8",
  Byte: "U8",
  Bool: "BOOL",
};

/** @throws InputError naming the file, the tensor or opcode, and what was expected */
export function readTorchArchive(path: string): Map<string, TensorEntry> {
  const entries = new Map(archiveEntries(path).map((entry) => [entry.name, entry]));
  const pickle = [...entries.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined)
    throw new InputError(`${path}: there is no data.pkl in it, expected a file of torch.save.`);
  const root = pickle.slice(0, -"data.pkl".length);
  const order = entries.get(`${root}byteorder`);
  if (order && new TextDecoder().decode(contentOf(path, order)) !== "little")
    throw new InputError(`${path}: written on a big-endian machine; save the adapter as safetensors.`);
  const problems = new Problems();
  const checked = new Set<string>();
  const tensors = new Map<string, TensorEntry>();
  for (const [name, tensor] of readTensorPickle(path, contentOf(path, entries.get(pickle)!))) {
    const storage = entries.get(`${root}data/${tensor.storage.key}`);
    const place = storage ? placeOf(tensor, storage) : "its storage is missing";
    if (typeof place === "string") {
      problems.add(`tensor ${name}: ${place}`);
      continue;
    }
    if (storage && !checked.has(storage.name)) contentOf(path, storage);
    checked.add(storage!.name);
    tensors.set(name, { ...place, name, file: path, shape: tensor.shape });
  }
  problems.throwIfAny(path, "Save the adapter as safetensors.");
  return tensors;
}

function archiveEntries(path: string): ZipEntry[] {
  const magic = new Uint8Array(2);
  withFile(path, (fd, bytes) => bytes >= 2 && readExactly(fd, magic, 0, path));
  if (magic[0] !== 0x50 || magic[1] !== 0x4b) {
    throw new InputError(
      `${path}: not a ZIP archive, which torch.save writes since 1.6; load it with torch and save it as safetensors.`,
    );
  }
  return listZip(path);
}

/** An entry's bytes, checked against its CRC-32. */
function contentOf(path: string, entry: ZipEntry): Uint8Array {
  const length = entry.end - entry.start;
  if (entry.method !== STORED || length !== entry.bytes)
    throw new InputError(`${path}: ${entry.name} is compressed, expected a file of torch.save.`);
  if (entry.name.endsWith(".pkl") && length > MAX_PICKLE_BYTES)
    throw new InputError(
      `${path}: ${entry.name} has ${length} bytes, at most ${MAX_PICKLE_BYTES} are allowed.`,
    );
  const bytes = new Uint8Array(length);
  withFile(path, (fd) => readExactly(fd, bytes, entry.start, path));
  if (crc32(bytes) === entry.crc32) return bytes;
  throw new InputError(`${path}: ${entry.name} is damaged (its CRC-32 differs); download the file again.`);
}

function placeOf(
  { storage, offset, shape, strides }: PickledTensor,
  { start, end }: ZipEntry,
): Pick<TensorEntry, "dtype" | "start" | "end"> | string {
  const dtype = Object.hasOwn(DTYPES, storage.type) ? DTYPES[storage.type] : undefined;
  if (!dtype) return `it is ${storage.type}, expected one of ${Object.keys(DTYPES).join(", ")}`;
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i]! > 1 && strides[i] !== expected)
      return `strides [${strides.join(", ")}] of shape [${shape.join(", ")}], expected a tensor without gaps`;
    expected *= shape[i]!;
  }
  const width = DTYPE_BITS[dtype] / 8;
  const first = start + offset * width;
  const last = first + expected * width;
  if (!Number.isSafeInteger(last) || last > end)
    return `shape [${shape.join(", ")}] from element ${offset} on, but its storage has ${(end - start) / width}`;
  return { dtype, start: first, end: last };
}
