/**
 * One process a cell, on one machine or on several that share a file system. Owners are files in the cell's work folder,
 * owner.1, owner.2 and so on, each created with O_EXCL: the highest number owns the cell. An owner refreshes the time of
 * its file; who has seen that time stand still for long enough takes the next number. An owner that was frozen and wakes up
 * then finds a number above its own, and stops. Nothing is renamed and no clocks are compared.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import { systemCode, writeProblem } from "../src/formats/files.ts";
import { formatSeconds } from "../src/reporting/progress.ts";
import { type CellPlace, makeFolder } from "./cell-file.ts";
import type { HeartbeatRequest } from "./cell-heartbeat.ts";

export interface LockOptions {
  /** Milliseconds: between two signs of life, without one until an owner is taken for dead, between two looks. */
  readonly beat: number;
  readonly dead: number;
  readonly poll: number;
  /** Asked between two looks. */
  readonly shouldStop?: () => boolean;
  readonly onNote?: (text: string) => void;
}

const defaults: LockOptions = { beat: 5_000, dead: 120_000, poll: 250 };

export interface CellLock {
  /** @throws InputError when the cell has been taken over by another process. */
  check(): void;
  release(): void;
}

/** Who an owner's file says it is. */
interface Owner {
  readonly pid: number;
  readonly host: string;
  /** As squeue shows it; null outside Slurm. */
  readonly job: string | null;
  readonly since: string;
  /** Tells two owners apart that have all the rest in common. */
  readonly token: string;
}

type Place = Pick<CellPlace, "name" | "work">;

/**
 * Owns the cell until `release`; null when it was asked to stop. Waits for a sign of life of the owner that is there, if any.
 * @throws InputError when it is alive
 */
export async function lockCell(place: Place, options: Partial<LockOptions> = {}): Promise<CellLock | null> {
  const chosen = { ...defaults, ...options };
  makeFolder(place.work);
  while (!chosen.shouldStop?.()) {
    const top = topNumber(place.work);
    if (top === 0 || (await hasDied(place, top, chosen))) {
      const lock = claim(place, top + 1, chosen);
      if (lock) return lock;
    }
    // Somebody was faster, or the owner has just finished.
    await Bun.sleep(chosen.poll);
  }
  return null;
}

/** Who works on a cell, or did when it died, and when it last gave a sign of life; null where nobody does. */
export function ownerOf({ work }: Pick<CellPlace, "work">): { who: string; seen: Date } | null {
  const top = topNumber(work);
  const seen = top === 0 ? null : look(ownerPath(work, top));
  return seen && { who: described(seen.text), seen: new Date(seen.time) };
}

const ownerPath = (work: string, number: number): string => join(work, `owner.${number}`);

function topNumber(work: string): number {
  return Math.max(0, ...numbersIn(work));
}

function numbersIn(work: string): number[] {
  if (!existsSync(work)) return [];
  return readdirSync(work).flatMap((name) => Number(/^owner\.(\d+)$/.exec(name)?.[1] ?? []));
}

interface Seen {
  readonly text: string;
  readonly time: number;
}

/** Opened for every look: network file systems show the present state of a file to who opens it. */
function look(path: string): Seen | null {
  try {
    const fd = openSync(path, "r");
    try {
      return { time: fstatSync(fd).mtimeMs, text: readFileSync(fd, "utf8") };
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (["ENOENT", "ESTALE"].includes(systemCode(error) ?? "")) return null;
    throw error;
  }
}

/** Whether the owner with this number is dead; false also when it has gone, or nobody wants to know any more. @throws InputError when it is alive */
async function hasDied({ name, work }: Place, number: number, options: LockOptions): Promise<boolean> {
  const path = ownerPath(work, number);
  const first = look(path);
  if (!first) return false;
  if (diedHere(first.text)) return true;
  options.onNote?.(
    `${name}: ${described(first.text)} was at work on this cell; looking for a sign of life for up to ` +
      `${formatSeconds(options.dead / 1000)}`,
  );
  const start = performance.now();
  while (performance.now() - start < options.dead) {
    await Bun.sleep(options.poll);
    const now = look(path);
    if (!now || options.shouldStop?.()) return false;
    if (diedHere(now.text)) return true;
    if (now.time === first.time) continue;
    throw new InputError(
      `${name}: ${described(now.text)} is at work on this cell; two processes would write into one training folder ` +
        `(${work}). Wait for it, or stop it: then this command goes on from its checkpoint.`,
    );
  }
  return true;
}

function ownerIn(text: string): Owner | null {
  try {
    return JSON.parse(text) as Owner;
  } catch {
    // Between creating and writing the file, or killed there.
    return null;
  }
}

function described(text: string): string {
  const owner = ownerIn(text);
  if (!owner) return "a process that has not written its name";
  const { pid, host, job, since } = owner;
  return `process ${pid} on ${host} (${job === null ? "" : `Slurm job ${job}, `}since ${since})`;
}

/** Only of this machine's processes anything is known at once. */
function diedHere(text: string): boolean {
  const owner = ownerIn(text);
  if (owner?.host !== hostname()) return false;
  try {
    process.kill(owner.pid, 0);
    return false;
  } catch (error) {
    return systemCode(error) === "ESRCH";
  }
}

/** The lock with this number; null when another process made it first. */
function claim({ name, work }: Place, number: number, { beat }: LockOptions): CellLock | null {
  const path = ownerPath(work, number);
  const text = JSON.stringify(thisProcess());
  try {
    writeFileSync(path, text, { flag: "wx" });
  } catch (error) {
    if (systemCode(error) === "EEXIST") return null;
    // A full disk leaves an empty file, which everybody would wait for.
    rmSync(path, { force: true });
    throw writeProblem(path, error);
  }
  const heartbeat = new Worker(new URL("./cell-heartbeat.ts", import.meta.url), { ref: false, smol: true });
  heartbeat.postMessage({ path, every: beat } satisfies HeartbeatRequest);
  const isMine = (): boolean => look(path)?.text === text && !existsSync(ownerPath(work, number + 1));
  return {
    check() {
      if (isMine()) return;
      throw new InputError(
        `${name}: ${ownerOf({ work })?.who ?? "another process"} has taken this cell over, because this process gave no sign ` +
          "of life for long; it stops here, and the other one goes on.",
      );
    },
    release() {
      heartbeat.terminate();
      // After a takeover the files are the new owner's. Own number last: while it stands, nobody begins at 1.
      if (!isMine()) return;
      const numbers = numbersIn(work).toSorted((a, b) => a - b);
      for (const own of numbers) rmSync(ownerPath(work, own), { force: true });
    },
  };
}

function thisProcess(): Owner {
  const { SLURM_ARRAY_JOB_ID: array, SLURM_ARRAY_TASK_ID: task, SLURM_JOB_ID: job } = process.env;
  return {
    pid: process.pid,
    host: hostname(),
    job: array && task ? `${array}_${task}` : (job ?? null),
    since: new Date().toISOString(),
    token: crypto.randomUUID(),
  };
}
