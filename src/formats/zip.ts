/** ZIP archives (a Python wheel and a torch file are such): the central directory, and one entry unpacked piece by piece. */
import { createReadStream, createWriteStream, renameSync, rmSync } from "node:fs";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { crc32, createInflateRaw } from "node:zlib";
import { InputError, messageOf } from "../errors.ts";
import { readExactly, temporaryName, withFile } from "./files.ts";

/** The end record, and the longest comment behind it. */
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 65_535;
const MAX_DIRECTORY_BYTES = 64 << 20;
/** Method numbers: as it is, and deflate. */
export const STORED = 0;
const DEFLATED = 8;

export interface ZipEntry {
  readonly name: string;
  readonly method: number;
  /** Bytes of the packed data, absolute. */
  readonly start: number;
  readonly end: number;
  /** Of the unpacked data. */
  readonly crc32: number;
  readonly bytes: number;
}

/** Unpacks the only entry whose name ends with `suffix` to `target`. @throws InputError when there is none, or it is damaged */
export async function extractFromZip(path: string, suffix: string, target: string): Promise<void> {
  const entry = withFile(path, (fd, bytes) => findEntry(path, fd, bytes, suffix));
  const temporary = temporaryName(target);
  try {
    if (entry.method !== STORED && entry.method !== DEFLATED) {
      throw new InputError(`${path}: ${entry.name} is packed by method ${entry.method}, expected 0 or 8.`);
    }
    const packed = createReadStream(path, { start: entry.start, end: entry.end - 1 });
    const out = createWriteStream(temporary, { flags: "wx" });
    const check = checking(entry);
    await (entry.method === STORED
      ? pipeline(packed, check, out)
      : pipeline(packed, createInflateRaw(), check, out));
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { force: true });
    if (error instanceof InputError) throw error;
    throw new InputError(
      `${path}: ${entry.name} cannot be unpacked (${messageOf(error)}); download the archive again.`,
    );
  }
}

/** Passes everything on and fails at the end when length or CRC-32 are not those of the entry. */
function checking(entry: ZipEntry): Transform {
  let sum = 0;
  let bytes = 0;
  return new Transform({
    transform(chunk: Uint8Array, _, done) {
      sum = crc32(chunk, sum);
      bytes += chunk.length;
      // A few packed bytes can hold any number of zeros: no more is written than the directory says.
      if (bytes > entry.bytes) done(new Error(`more than ${entry.bytes} bytes, which its directory says`));
      else done(null, chunk);
    },
    flush(done) {
      const right = sum === entry.crc32 && bytes === entry.bytes;
      done(
        right
          ? null
          : new Error(`${bytes} bytes with CRC-32 ${sum}, expected ${entry.bytes} with ${entry.crc32}`),
      );
    },
  });
}

function findEntry(path: string, fd: number, bytes: number, suffix: string): ZipEntry {
  const found = entriesOf(path, fd, bytes, (name) => name.endsWith(suffix));
  const [entry] = found;
  if (entry && found.length === 1) return entry;
  throw new InputError(
    `${path}: ${found.length} entries end with "${suffix}", expected one; is this the right archive?`,
  );
}

/** Every entry of the archive, in the order of its directory. @throws InputError when it is none, or damaged */
export function listZip(path: string): ZipEntry[] {
  return withFile(path, (fd, bytes) => entriesOf(path, fd, bytes, () => true));
}

function entriesOf(path: string, fd: number, bytes: number, wanted: (name: string) => boolean): ZipEntry[] {
  const directory = readDirectory(path, fd, bytes);
  const view = new DataView(directory.buffer);
  const found: ZipEntry[] = [];
  for (let at = 0; at + 46 <= directory.length && view.getUint32(at, true) === 0x02014b50; ) {
    const nameBytes = view.getUint16(at + 28, true);
    const name = new TextDecoder().decode(directory.subarray(at + 46, at + 46 + nameBytes));
    if (wanted(name)) {
      const start = dataStart(path, fd, bytes, view.getUint32(at + 42, true));
      const end = start + view.getUint32(at + 20, true);
      if (end > bytes) throw damaged(path);
      const bytesAndSum = { crc32: view.getUint32(at + 16, true), bytes: view.getUint32(at + 24, true) };
      found.push({ name, method: view.getUint16(at + 10, true), start, end, ...bytesAndSum });
    }
    at += 46 + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return found;
}

function readDirectory(path: string, fd: number, bytes: number): Uint8Array<ArrayBuffer> {
  const tail = new Uint8Array(Math.min(bytes, END_BYTES + MAX_COMMENT_BYTES));
  readExactly(fd, tail, bytes - tail.length, path);
  const view = new DataView(tail.buffer);
  for (let at = tail.length - END_BYTES; at >= 0; at--) {
    if (view.getUint32(at, true) !== 0x06054b50) continue;
    const size = view.getUint32(at + 12, true);
    const start = view.getUint32(at + 16, true);
    if (size > MAX_DIRECTORY_BYTES || start + size > bytes) throw damaged(path);
    const directory = new Uint8Array(size);
    readExactly(fd, directory, start, path);
    return directory;
  }
  throw new InputError(`${path}: no end record, expected a ZIP archive; download it again.`);
}

/** The local header repeats the name and may have an extra field of another length. */
function dataStart(path: string, fd: number, bytes: number, header: number): number {
  if (header + 30 > bytes) throw damaged(path);
  const local = new Uint8Array(30);
  readExactly(fd, local, header, path);
  const view = new DataView(local.buffer);
  if (view.getUint32(0, true) !== 0x04034b50) throw damaged(path);
  return header + 30 + view.getUint16(26, true) + view.getUint16(28, true);
}

function damaged(path: string): InputError {
  return new InputError(`${path}: an entry points outside the archive; it is damaged, download it again.`);
}
