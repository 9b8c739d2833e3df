/** Writing safetensors: the bytes the reference implementation writes, one tensor in memory at a time. */
import { replaceFile, writeFully } from "./files.ts";
import { DTYPE_BITS, MAX_NAME_LENGTH, type SafetensorsDtype, tensorBits } from "./safetensors-header.ts";

export interface TensorToWrite {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Row-major, little-endian; a function is called once, when its tensor's turn comes, and its result dropped after. */
  readonly bytes: Uint8Array | (() => Uint8Array);
}

/**
 * Writes `path` atomically (temporary file, sync, rename). Tensors are ordered by descending alignment, then name; the
 * header is padded so that the data starts at a multiple of 8.
 * @throws InputError when the disk is full or the folder unwritable; no temporary file stays
 */
export function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = {},
): void {
  const rank = Object.keys(DTYPE_BITS);
  const ordered = [...tensors].sort(
    (a, b) =>
      rank.indexOf(b.dtype) - rank.indexOf(a.dtype) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  const header = headerBytes(path, ordered, metadata);
  replaceFile(path, (fd) => {
    writeFully(fd, header);
    for (const tensor of ordered) {
      const bytes = typeof tensor.bytes === "function" ? tensor.bytes() : tensor.bytes;
      const expected = Number(tensorBits(tensor.dtype, tensor.shape) / 8n);
      if (bytes.length !== expected) {
        throw new Error(
          `${path}: tensor ${tensor.name} was given ${bytes.length} bytes, its shape has ${expected}`,
        );
      }
      writeFully(fd, bytes);
    }
  });
}

/** Length and JSON. The text is put together by hand: an object would move names such as "0" and `__proto__`. */
function headerBytes(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const seen = new Set<string>();
  const fields: string[] = [];
  if (Object.keys(metadata).length > 0) fields.push(`"__metadata__":${JSON.stringify(metadata)}`);
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    const legal =
      name !== "__metadata__" && name.length <= MAX_NAME_LENGTH && name.isWellFormed() && !seen.has(name);
    if (!legal)
      throw new Error(`${path}: ${JSON.stringify(name)} cannot be a tensor's name, or stands twice`);
    seen.add(name);
    const bits = tensorBits(dtype, shape);
    if (bits % 8n !== 0n) throw new Error(`${path}: tensor ${name} does not fill whole bytes`);
    const end = offset + Number(bits / 8n);
    fields.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [offset, end] })}`);
    offset = end;
  }
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, 8);
  return bytes;
}
