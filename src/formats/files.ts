/** Opening, reading and replacing files so that everything the outside can do wrong becomes an InputError. */
import {
  closeSync,
  fstatSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { InputError, messageOf } from "../errors.ts";
import { findDuplicateKey, isObject, type Json, type JsonObject } from "./json.ts";

/** One read call moves less than 2 GiB on Linux; longer ranges are read in parts. */
const MAX_IO_BYTES = 1 << 30;
/** Configuration files are kilobytes, tokenizer.json tens of megabytes. */
const MAX_JSON_BYTES = 256 << 20;

/** Errno name ("ENOSPC") of an error the operating system gave, else null. */
export function systemCode(error: unknown): string | null {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return null;
  return /^E[A-Z0-9]+$/.test(error.code) ? error.code : null;
}

/** What `use` makes of a folder that is gone afterwards. */
export async function withTemporaryFolder<T>(use: (dir: string) => T | Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), "sbora-"));
  try {
    return await use(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Opens a regular file for reading, calls `use` with its descriptor and length in bytes, closes it. */
export function withFile<T>(path: string, use: (fd: number, bytes: number) => T): T {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if (systemCode(error) === "ENOENT") throw new InputError(`${path}: there is no such file.`);
    throw new InputError(`${path}: cannot be opened (${messageOf(error)}).`);
  }
  try {
    const info = fstatSync(fd);
    if (!info.isFile()) throw new InputError(`${path}: this is not a regular file.`);
    return use(fd, info.size);
  } finally {
    closeSync(fd);
  }
}

/** Fills `target` from byte `position` on. @throws InputError when the file ends before or cannot be read. */
export function readExactly(fd: number, target: Uint8Array, position: number, path: string): void {
  let done = 0;
  while (done < target.length) {
    let got: number;
    try {
      got = readSync(fd, target, done, Math.min(target.length - done, MAX_IO_BYTES), position + done);
    } catch (error) {
      throw new InputError(
        `${path}: reading ${target.length} bytes at ${position} failed (${messageOf(error)}).`,
      );
    }
    if (got === 0) {
      const wanted = `${target.length} bytes at ${position}`;
      throw new InputError(
        `${path}: the file ends at byte ${position + done}, expected ${wanted}; it was cut or replaced.`,
      );
    }
    done += got;
  }
}

/** Writes all of `bytes` at the descriptor's position. */
export function writeFully(fd: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done, Math.min(bytes.length - done, MAX_IO_BYTES));
}

/** A name beside `path` that no other call uses; process numbers are no help where machines share the folder. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${crypto.randomUUID().slice(0, 13)}.tmp`);
}

/**
 * Lets `write` fill a temporary file in the same folder, syncs it and puts it in the place of `path`; a mapped older
 * file keeps its contents. Whatever goes wrong, no temporary file stays.
 * @throws InputError when the system refuses (full disk, missing or unwritable folder).
 */
export function replaceFile(path: string, write: (fd: number) => void): void {
  const temporary = temporaryName(path);
  let fd: number | null = null;
  let made = false;
  try {
    fd = openSync(temporary, "wx");
    made = true;
    write(fd);
    fsyncSync(fd);
    const written = fd;
    // Closed even where close reports an error, as network file systems do with a full disk.
    fd = null;
    closeSync(written);
    renameSync(temporary, path);
  } catch (error) {
    if (made) rmSync(temporary, { force: true });
    if (fd !== null) closeQuietly(fd);
    throw writeProblem(path, error);
  }
  syncFolder(dirname(path));
}

/** For the way out of an error, which shall not be hidden by another one. */
function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // it was closed, or the disk has failed
  }
}

/** The InputError for a failed write; an error that is not the system's is given back as it is. */
export function writeProblem(path: string, error: unknown): unknown {
  const code = systemCode(error);
  if (code === null) return error;
  const steps: Record<string, string> = {
    ENOSPC: "The disk is full: free some space or choose another folder.",
    EDQUOT: "The disk quota is used up: free some space or choose another folder.",
    ENOENT: `The folder ${dirname(path)} does not exist.`,
    ENOTDIR: `${dirname(path)} is not a folder.`,
    EACCES: `The folder ${dirname(path)} is not writable.`,
    EROFS: `The folder ${dirname(path)} is on a read-only file system.`,
  };
  return new InputError(
    `${path}: cannot be written (${messageOf(error)}). ${steps[code] ?? "Choose another folder."}`,
  );
}

/** Makes a rename durable; a file system that cannot sync folders loses only that. */
function syncFolder(dir: string): void {
  try {
    const fd = openSync(dir, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch {
    // not supported there
  }
}

export function writeTextFile(path: string, text: string): void {
  replaceFile(path, (fd) => writeFully(fd, new TextEncoder().encode(text)));
}

/** A JSON file whose top level is an object without doubled keys. @throws InputError naming the file. */
export function readJsonObject(path: string): JsonObject {
  const text = withFile(path, (fd, bytes) => {
    if (bytes > MAX_JSON_BYTES) {
      throw new InputError(`${path}: ${bytes} bytes, expected a JSON file of at most ${MAX_JSON_BYTES}.`);
    }
    return readFileSync(fd, "utf8");
  });
  let json: Json;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: not valid JSON (${messageOf(error)}).`);
  }
  if (!isObject(json)) throw new InputError(`${path}: expected a JSON object at the top level.`);
  const doubled = findDuplicateKey(text);
  if (doubled !== null)
    throw new InputError(`${path}: the key ${JSON.stringify(doubled)} stands twice in one object.`);
  return json;
}
