/**
 * A lock file that lets one of several processes build: created with O_EXCL, it holds the owner's pid and host, and its
 * time is refreshed while the owner lives. The lock only saves work: a result is written under a temporary name and
 * renamed, so two builders at once would still leave a good file.
 */
import { readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";

const REFRESH_MS = 2_000;
/** Without a refresh for this long the owner is taken for dead (it may be on another machine, or its pid reused). */
const STALE_MS = 60_000;
const POLL_MS = 50;

export interface Lock {
  release(): void;
}

const identity = () => `${process.pid} ${hostname()} ${crypto.randomUUID()}`;

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** The lock's text when its owner is dead, null when it is alive or the lock is gone. */
function staleText(path: string): string | null {
  try {
    const text = readFileSync(path, "utf8");
    const age = Date.now() - statSync(path).mtimeMs;
    const [pid, host] = text.split(" ");
    // An empty file: its owner is between creating and writing it, or died there.
    if (text === "") return age > REFRESH_MS ? text : null;
    if (age > STALE_MS) return text;
    return host === hostname() && !alive(Number(pid)) ? text : null;
  } catch {
    return null;
  }
}

function create(path: string): Lock | null {
  const mine = identity();
  try {
    writeFileSync(path, mine, { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return null;
    throw error;
  }
  const refresh = setInterval(() => {
    try {
      utimesSync(path, new Date(), new Date());
    } catch {
      // Taken over or cache removed; the rename at the end decides.
    }
  }, REFRESH_MS);
  refresh.unref();
  return {
    release() {
      clearInterval(refresh);
      try {
        if (readFileSync(path, "utf8") === mine) rmSync(path, { force: true });
      } catch {
        // Already gone.
      }
    },
  };
}

/** Moves a dead owner's lock away. The rename is atomic: of several that see it dead, one moves it. */
function takeOver(path: string, seen: string): void {
  const aside = `${path}.${process.pid}.${crypto.randomUUID()}`;
  try {
    renameSync(path, aside);
  } catch {
    return;
  }
  try {
    // Somebody was faster and this is the new owner's lock: put it back (at worst two build at once).
    if (readFileSync(aside, "utf8") !== seen) renameSync(aside, path);
    else rmSync(aside, { force: true });
  } catch {
    // Nothing to put back.
  }
}

/**
 * Waits until `done()` or until this process holds the lock at `path`.
 * @returns the lock, or null when `done()` came first.
 */
export async function acquire(path: string, done: () => boolean): Promise<Lock | null> {
  for (;;) {
    if (done()) return null;
    const lock = create(path);
    if (lock !== null) {
      if (!done()) return lock;
      lock.release();
      return null;
    }
    const stale = staleText(path);
    if (stale !== null) takeOver(path, stale);
    else await Bun.sleep(POLL_MS);
  }
}
