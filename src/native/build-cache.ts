/** Where compiled libraries lie: which folder, what is in it already, what may go. */
import {
  accessSync,
  constants,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { InputError } from "../errors.ts";
import { fileExists } from "./compiler.ts";

const DAY_MS = 24 * 60 * 60_000;
/** Folders and locks of builders that died. One that was only suspended for a while may still be in use. */
const LEFTOVER_MS = DAY_MS;
/** Libraries of other sources or compilers that nobody opened for so long. */
const UNUSED_MS = 30 * DAY_MS;

function writable(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    accessSync(folder, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Where compiled kernels may lie, the best first. Absolute: the compiler runs in another folder. */
function cacheFolders(): string[] {
  const chosen = process.env.SBORA_CACHE;
  if (chosen) return [resolve(chosen)];
  const home = resolve(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"));
  return [join(home, "sbora"), join(tmpdir(), `sbora-${process.getuid?.() ?? 0}`)];
}

/** Others may write to the temporary folder: what we load from a folder there by ourselves must be ours. */
function trusted(folder: string): boolean {
  if (process.env.SBORA_CACHE || dirname(folder) !== resolve(tmpdir())) return true;
  const stat = lstatSync(folder, { throwIfNoEntry: false });
  return stat?.isDirectory() === true && stat.uid === (process.getuid?.() ?? 0) && (stat.mode & 0o022) === 0;
}

/** $SBORA_CACHE, else $XDG_CACHE_HOME/sbora or ~/.cache/sbora, else a private folder among the temporary files. */
export function cacheFolder(): string {
  const folders = cacheFolders();
  const usable = folders.find((folder) => writable(folder) && trusted(folder));
  if (usable !== undefined) return usable;
  const chosen = process.env.SBORA_CACHE;
  throw new InputError(
    chosen
      ? `SBORA_CACHE is "${chosen}", a folder that cannot be written. Choose another.`
      : `No folder to keep the compiled kernels in: neither ${folders.join(" nor ")} can be used. ` +
          "Set SBORA_CACHE to a folder of yours.",
  );
}

/** A library's time is its last use, to the day (access times are often switched off). */
function markUsed(path: string): void {
  try {
    if (Date.now() - statSync(path).mtimeMs > DAY_MS) utimesSync(path, new Date(), new Date());
  } catch {
    // Read-only: then nobody removes it either.
  }
}

/** Path of a library that somebody has built already, null when there is none; its folder may be read-only. */
export function findCached(file: string): string | null {
  const folder = cacheFolders().find((each) => fileExists(join(each, file)) && trusted(each));
  if (folder === undefined) return null;
  markUsed(join(folder, file));
  return join(folder, file);
}

/** Removes what nobody needs any more, before a library is built at `path`; `name` is its file name up to the key. */
export function removeLeftovers(name: string, path: string): void {
  const library = new RegExp(`^${name}-[0-9a-f]{32}\\.(so|dylib)$`);
  for (const entry of readdirSync(dirname(path))) {
    const most = /\.(build-|lock)/.test(entry) ? LEFTOVER_MS : library.test(entry) ? UNUSED_MS : null;
    const full = join(dirname(path), entry);
    const stat = most === null ? undefined : lstatSync(full, { throwIfNoEntry: false });
    if (stat && Date.now() - stat.mtimeMs > most!) rmSync(full, { recursive: true, force: true });
  }
}
