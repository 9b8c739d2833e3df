/**
 * One file over HTTP: resumed by Range from `<target>.incomplete`, checked by size and hash, then renamed. A target that
 * is already there and right is left alone.
 */
import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { InputError, messageOf } from "../errors.ts";
import { readExactly, systemCode, withFile, writeFully, writeProblem } from "./files.ts";

/** What the finished file must be; a git blob hash is SHA-1 over "blob <bytes>\0" and the bytes. */
export interface ExpectedFile {
  readonly bytes?: number | undefined;
  readonly sha256?: string | undefined;
  readonly gitBlob?: string | undefined;
}

export interface DownloadOptions {
  readonly expected?: ExpectedFile;
  /** Sent to the first server only, not to another one that it redirects to. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes on disk so far, and of how many (null: the server did not say). */
  readonly onProgress?: (done: number, of: number | null) => void;
  /** Failures in a row without a new byte before giving up. */
  readonly attempts?: number;
  /** Before the first retry; doubles each time. */
  readonly retryDelayMs?: number;
  /** Silence after which a connection counts as dead. */
  readonly idleMs?: number;
}

const MAX_REDIRECTS = 5;
const CHECK_BYTES = 8 << 20;
const REDIRECTS = [301, 302, 303, 307, 308];

/** A failure that another attempt may cure. */
class Transient extends Error {}

/** @throws InputError naming address, status or hash, what was expected and the next step */
export async function downloadFile(
  url: string,
  target: string,
  options: DownloadOptions = {},
): Promise<void> {
  const { expected = {}, attempts = 4, retryDelayMs = 500 } = options;
  if (existsSync(target) && differenceFrom(target, expected) === null) return;
  const partial = `${target}.incomplete`;
  makeFolder(dirname(target));
  let failures = 0;
  while (!isComplete(partial, expected)) {
    const before = sizeOf(partial);
    try {
      if (await fetchRest(url, partial, options)) break;
    } catch (error) {
      if (!(error instanceof Transient)) throw error;
      failures = sizeOf(partial) > before ? 1 : failures + 1;
      if (failures >= attempts) throw unreachable(url, partial, error);
      await Bun.sleep(retryDelayMs * 2 ** (failures - 1));
    }
  }
  const wrong = differenceFrom(partial, expected);
  if (wrong !== null) {
    rmSync(partial, { force: true });
    throw new InputError(
      `${url}: what was downloaded ${wrong}. It was thrown away; try again, and if that fails too the file has changed on the server.`,
    );
  }
  renameSync(partial, target);
}

function makeFolder(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true });
  } catch (error) {
    throw writeProblem(dir, error);
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function isComplete(partial: string, { bytes }: ExpectedFile): boolean {
  return bytes !== undefined && existsSync(partial) && sizeOf(partial) === bytes;
}

/** How the file differs from what is expected ("has 3 bytes, expected 4"); null when it does not. */
export function differenceFrom(path: string, expected: ExpectedFile): string | null {
  return withFile(path, (fd, bytes) => {
    if (expected.bytes !== undefined && bytes !== expected.bytes)
      return `has ${bytes} bytes, expected ${expected.bytes}`;
    const kinds = [
      { name: "SHA-256", hex: expected.sha256, hash: new Bun.CryptoHasher("sha256") },
      {
        name: "git blob hash",
        hex: expected.gitBlob,
        hash: new Bun.CryptoHasher("sha1").update(`blob ${bytes}\0`),
      },
    ].filter(({ hex }) => hex !== undefined);
    if (kinds.length === 0) return null;
    for (let at = 0; at < bytes; at += CHECK_BYTES) {
      const chunk = new Uint8Array(Math.min(CHECK_BYTES, bytes - at));
      readExactly(fd, chunk, at, path);
      for (const { hash } of kinds) hash.update(chunk);
    }
    for (const { name, hex, hash } of kinds) {
      const found = hash.digest("hex");
      if (found !== hex) return `has the ${name} ${found}, expected ${hex}`;
    }
    return null;
  });
}

/** Appends what is missing. @returns whether the server gave everything to its end */
async function fetchRest(url: string, partial: string, options: DownloadOptions): Promise<boolean> {
  const { expected = {}, headers = {}, idleMs = 30_000 } = options;
  if (expected.bytes !== undefined && sizeOf(partial) > expected.bytes) rmSync(partial);
  const have = sizeOf(partial);
  const idle = new AbortController();
  let timer = setTimeout(() => idle.abort(), idleMs);
  try {
    const range: Record<string, string> = have > 0 ? { range: `bytes=${have}-` } : {};
    const response = await request(url, { ...headers, ...range, "accept-encoding": "identity" }, idle.signal);
    if (response.status === 416) {
      rmSync(partial, { force: true });
      throw new Transient("the server has fewer bytes than were already here");
    }
    refuse(url, response);
    const start = startOf(response);
    if (start !== 0 && start !== have)
      throw new Transient(`the server sent bytes from ${start}, not from ${have}`);
    const length = response.headers.get("content-length");
    const total = length === null ? (expected.bytes ?? null) : start + Number(length);
    let done = start;
    const fd = openSync(partial, start > 0 ? "a" : "w");
    try {
      for await (const chunk of response.body ?? []) {
        clearTimeout(timer);
        timer = setTimeout(() => idle.abort(), idleMs);
        writeFully(fd, chunk);
        done += chunk.length;
        options.onProgress?.(done, total);
      }
    } finally {
      closeSync(fd);
    }
    if (total !== null && done < total)
      throw new Transient(`the connection ended after ${done} of ${total} bytes`);
    return true;
  } catch (error) {
    if (error instanceof InputError || error instanceof Transient) throw error;
    if (isDiskError(error)) throw writeProblem(partial, error);
    throw new Transient(idle.signal.aborted ? `no byte came for ${idleMs / 1000} s` : messageOf(error));
  } finally {
    clearTimeout(timer);
  }
}

/** The network's own errors carry names such as ECONNRESET; those of the disk name the system call. */
function isDiskError(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT", "EACCES", "EROFS", "ENOENT", "ENOTDIR", "EIO"].includes(
    systemCode(error) ?? "",
  );
}

/** First byte of the body: 0 unless the server took the Range. */
function startOf(response: Response): number {
  if (response.status !== 206) return 0;
  const [, start] = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "") ?? [];
  return start === undefined ? -1 : Number(start);
}

/** Follows redirects itself, so that an access token never reaches another server. */
async function request(url: string, headers: Record<string, string>, signal: AbortSignal): Promise<Response> {
  let at = new URL(url);
  let sent = headers;
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const response = await fetch(at, { headers: sent, redirect: "manual", signal });
    const location = response.headers.get("location");
    if (!REDIRECTS.includes(response.status) || location === null) return response;
    await response.body?.cancel();
    const next = new URL(location, at);
    if (next.origin !== at.origin) {
      sent = Object.fromEntries(
        Object.entries(sent).filter(([name]) => name.toLowerCase() !== "authorization"),
      );
    }
    at = next;
  }
  throw new InputError(`${url}: more than ${MAX_REDIRECTS} redirects, expected the file; check the address.`);
}

/** Turns a status that is no success into an error: final for 4xx, worth another attempt for the rest. */
function refuse(url: string, response: Response): void {
  const { status } = response;
  if (status === 200 || status === 206) return;
  if (status === 429 || status >= 500) throw new Transient(`status ${status}`);
  throw new InputError(`${url}: status ${status}, expected 200. ${statusAdvice(status)}`);
}

export function statusAdvice(status: number): string {
  if (status === 401 || status === 403) {
    return "Access needs a token, or the model's licence accepted on its page: set HF_TOKEN to a token that may read it.";
  }
  if (status === 404) return "There is no such file or repository: check the name and the revision.";
  return "Check the address (HF_ENDPOINT names another server).";
}

function unreachable(url: string, partial: string, error: Error): InputError {
  const kept =
    sizeOf(partial) > 0
      ? ` The ${sizeOf(partial)} bytes so far are kept; the same command goes on from there.`
      : "";
  return new InputError(
    `${url}: the server cannot be reached or breaks off (${error.message}). Check the network, or set HF_ENDPOINT (data sets: GITHUB_RAW) to a mirror.${kept}`,
  );
}
