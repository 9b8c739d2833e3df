/** ZIP archives put together by hand, valid or not. */
import { crc32, deflateRawSync } from "node:zlib";
import { concat, u32 } from "./testing-gguf.ts";

const u16 = (value: number): Uint8Array => Uint8Array.of(value & 255, value >> 8);

export interface ZipPart {
  readonly name: string;
  readonly data: Uint8Array;
  readonly method: number;
  /** Length that the headers claim, where it is not the true one. */
  readonly bytes?: number;
}

/** An archive with an extra field in each local header and a comment at its end. */
export function zip(parts: readonly ZipPart[], over: { directoryStart?: number } = {}): Uint8Array {
  const locals: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const { name, data, method, bytes } of parts) {
    const packed = method === 8 ? deflateRawSync(data) : data;
    const label = new TextEncoder().encode(name);
    const sizes = [u32(crc32(data)), u32(packed.length), u32(bytes ?? data.length)];
    const local = concat([
      u32(0x04034b50),
      u16(20),
      u16(0),
      u16(method),
      u32(0),
      ...sizes,
      u16(label.length),
      u16(5),
      label,
      new Uint8Array(5),
      packed,
    ]);
    const entry = [
      u32(0x02014b50),
      u16(20),
      u16(20),
      u16(0),
      u16(method),
      u32(0),
      ...sizes,
      u16(label.length),
    ];
    directory.push(concat([...entry, u16(0), u16(0), u16(0), u16(0), u32(0), u32(at), label]));
    locals.push(local);
    at += local.length;
  }
  const list = concat(directory);
  const count = u16(parts.length);
  const end = [
    u32(0x06054b50),
    u16(0),
    u16(0),
    count,
    count,
    u32(list.length),
    u32(over.directoryStart ?? at),
    u16(3),
  ];
  return concat([...locals, list, ...end, Uint8Array.of(1, 2, 3)]);
}
