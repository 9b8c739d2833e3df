import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import { type CellLock, type LockOptions, lockCell, ownerOf } from "./cell-lock.ts";

const root = mkdtempSync(join(tmpdir(), "sbora-lock-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const quick = { beat: 20, dead: 400, poll: 10 };
let cells = 0;

function newPlace() {
  const name = `cell-${++cells}`;
  return { name, work: join(root, name) };
}

async function owned(
  place: ReturnType<typeof newPlace>,
  options: Partial<LockOptions> = {},
): Promise<CellLock> {
  const lock = await lockCell(place, { ...quick, ...options });
  if (!lock) throw new Error("nobody asked it to stop");
  return lock;
}

/** Leaves a lock as another process would have it. */
function ownedBy(work: string, number: number, owner: { pid?: number; host?: string }): string {
  const path = join(work, `owner.${number}`);
  const whole = { pid: process.pid, host: hostname(), job: null, since: "then", token: "other", ...owner };
  mkdirSync(work, { recursive: true });
  writeFileSync(path, JSON.stringify(whole));
  return path;
}

/** A pid that was in use and no longer is. */
function deadPid(): number {
  return Bun.spawnSync(["true"]).pid;
}

describe("one process a cell", () => {
  test("a lock is there until it is released; then the folder is as before", async () => {
    const place = newPlace();
    const lock = await owned(place);
    expect(readdirSync(place.work)).toEqual(["owner.1"]);
    expect(ownerOf(place)!.who).toContain(`process ${process.pid} on ${hostname()}`);
    lock.check();
    lock.release();
    expect(readdirSync(place.work)).toEqual([]);
    expect(ownerOf(place)).toBeNull();
  });

  test("of twenty that start at once one works, the others are refused", async () => {
    const place = newPlace();
    const tries = await Promise.allSettled(Array.from({ length: 20 }, () => lockCell(place, quick)));
    const [lock, ...more] = tries.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const refused = tries.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
    expect([more.length, refused.length]).toEqual([0, 19]);
    expect(refused[0]).toBeInstanceOf(InputError);
    expect(refused[0].message).toContain(`${place.name}: process ${process.pid} on ${hostname()}`);
    lock!.check();
    lock!.release();
  });

  test("a dead process of this machine is replaced at once, and its lock goes with the new owner's", async () => {
    const place = newPlace();
    ownedBy(place.work, 1, { pid: deadPid() });
    const start = performance.now();
    const lock = await owned(place, { dead: 60_000 });
    expect(performance.now() - start).toBeLessThan(5_000);
    expect(readdirSync(place.work).sort()).toEqual(["owner.1", "owner.2"]);
    lock.check();
    lock.release();
    expect(readdirSync(place.work)).toEqual([]);
  });

  test("the dead of another machine are waited for, and that is said", async () => {
    const place = newPlace();
    ownedBy(place.work, 3, { host: "node7" });
    const notes: string[] = [];
    const start = performance.now();
    const lock = await owned(place, { onNote: (text) => notes.push(text) });
    expect(performance.now() - start).toBeGreaterThanOrEqual(quick.dead);
    expect(readdirSync(place.work)).toContain("owner.4");
    expect(notes.join()).toContain(`process ${process.pid} on node7`);
    lock.release();
  });

  test("a living one of another machine is not disturbed", async () => {
    const place = newPlace();
    const path = ownedBy(place.work, 1, { host: "node7" });
    const beats = setInterval(() => utimesSync(path, new Date(), new Date()), 50);
    expect(lockCell(place, quick)).rejects.toThrow("node7");
    await Bun.sleep(quick.dead);
    clearInterval(beats);
    expect(readdirSync(place.work)).toEqual(["owner.1"]);
  });

  test("who waits goes on when the owner has finished", async () => {
    const place = newPlace();
    const path = ownedBy(place.work, 1, { host: "node7" });
    const waiting = owned(place, { dead: 60_000 });
    await Bun.sleep(50);
    rmSync(path);
    (await waiting).release();
  });

  test("who is asked to stop while it waits, stops at once and leaves nothing", async () => {
    const place = newPlace();
    ownedBy(place.work, 1, { host: "node7" });
    let asked = 0;
    const start = performance.now();
    expect(await lockCell(place, { ...quick, dead: 60_000, shouldStop: () => ++asked > 3 })).toBeNull();
    expect(performance.now() - start).toBeLessThan(5_000);
    expect(readdirSync(place.work)).toEqual(["owner.1"]);
  });

  test("a process that was frozen finds its cell taken over, stops, and leaves the new owner's lock alone", async () => {
    const place = newPlace();
    const frozen = await owned(place, { beat: 3_600_000 });
    const next = await owned(place);
    expect(frozen.check).toThrow("has taken this cell over");
    frozen.release();
    next.check();
    next.release();
    expect(readdirSync(place.work)).toEqual([]);
    // Released and taken by a third with the first one's number: it is not the first one's again.
    const third = await owned(place);
    expect(frozen.check).toThrow("has taken this cell over");
    frozen.release();
    third.check();
    third.release();
  });

  test("a main thread that is busy still gives signs of life", async () => {
    const place = newPlace();
    const lock = await owned(place);
    const other = Bun.spawn(
      [
        process.execPath,
        "-e",
        `import { lockCell } from ${JSON.stringify(join(import.meta.dir, "cell-lock.ts"))};
         await lockCell(${JSON.stringify(place)}, { dead: 1500, poll: 10 }).catch((error) => console.log(error.message));`,
      ],
      { stdout: "pipe" },
    );
    const until = performance.now() + 2_500;
    while (performance.now() < until);
    expect(await new Response(other.stdout).text()).toContain(`process ${process.pid}`);
    lock.check();
    lock.release();
  }, 20_000);

  test("a folder that cannot be made is an error of the user", async () => {
    const blocked = join(root, "file");
    writeFileSync(blocked, "");
    expect(lockCell({ name: "x", work: join(blocked, "x") }, quick)).rejects.toThrow(InputError);
    expect(existsSync(join(blocked, "x"))).toBe(false);
  });
});
