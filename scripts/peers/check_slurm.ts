/**
 * Job arrays (experiments/run-array.sbatch, experiments/cell.ts) in real Slurm, on a cluster of two nodes that this command
 * starts and ends (slurm-cluster.ts). The cells of a tiny Table 3 are requeued, killed, asked for twice at once, near their
 * time limit, on a node that loses its power, cancelled, and frozen, each in the middle of its training; every one has to
 * be, but for `timing`, the bytes that one process makes of it without Slurm. Seven minutes and more; exits with 1 when a check fails.
 *
 *     apt-get install --no-install-recommends slurmctld slurmd slurm-client
 *     bun run scripts/peers/check_slurm.ts
 *
 * Where something fails, the folder with all logs is kept and named.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CellPlace, cellPlace } from "../../experiments/cell-file.ts";
import {
  eachStepOnce,
  isSaved,
  ownersOf,
  parentOf,
  processesOf,
  sameBytes,
  textOf,
  threadsOf,
  trainedSteps,
} from "./slurm-cells.ts";
import { type Cluster, missing, startCluster, until } from "./slurm-cluster.ts";

const NODES = ["node1", "node2"];
/** Enough that a process which nobody can stop outlives a requeue. */
const STEPS = 400;
const CELLS = ["table3", "--methods", "lora,oa,sbora-fa,sbora-fb", "--steps", `${STEPS}`, "--limit", "4"];
/** By their number in the array, from 1. */
const NAMES = ["base-r0", "lora-r8", "oa-r8", "sbora-fa-r8", "sbora-fb-r8"].map((name) => `tiny-${name}-s42`);

const checkout = join(import.meta.dir, "../..");
const root = mkdtempSync(join(tmpdir(), "sbora-slurm-"));
const out = join(root, "array");
const reference = join(root, "alone");
const logs = join(root, "logs");
const began = performance.now();
let failures = 0;

function say(text: string): void {
  console.log(`${`${Math.round((performance.now() - began) / 1000)}`.padStart(4)} s  ${text}`);
}

function check(what: string, holds: boolean): void {
  if (!holds) failures++;
  say(`${holds ? "ok" : "NO"}  ${what}`);
}

/** A script of experiments/ on the tiny table; what it printed. @throws Error when it fails */
async function experiment(script: string, flags: readonly string[]): Promise<string> {
  const command = [process.execPath, "run", join("experiments", script), ...flags];
  const child = Bun.spawn(command, { cwd: checkout, stdout: "pipe", stderr: "pipe" });
  process.on("exit", () => child.kill());
  const [stdout, stderr] = await Promise.all([child.stdout, child.stderr].map((s) => new Response(s).text()));
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
  return stdout!;
}

const placeOf = (index: number): CellPlace => cellPlace(out, NAMES[index - 1]!);
const logOf = (task: string): string => textOf(join(logs, `${task}.log`));

/** The array's id. */
function submit({ slurm }: Cluster, array: string, ...flags: string[]): string {
  const size = ["--cpus-per-task=1", "--mem=1G", `--output=${logs}/%A_%a.log`, `--chdir=${checkout}`];
  const script = [join(checkout, "experiments/run-array.sbatch"), ...CELLS, "--out", out];
  return slurm("sbatch", "--parsable", `--array=${array}`, ...flags, ...size, ...script);
}

function untilTrained(index: number, steps: number): Promise<void> {
  const place = placeOf(index);
  return until(`cell ${index} has trained ${steps} steps`, () => trainedSteps(place).length >= steps, 120);
}

/** The steps of a task that was asked to stop and has just ended. */
function savedBy(what: string, task: string, index: number): string[] {
  const place = placeOf(index);
  const steps = trainedSteps(place);
  const said = logOf(task).includes("stopped; the same command goes on from here");
  const [saved, unlocked] = [isSaved(place), ownersOf(place).length === 0];
  check(
    `${what}: it stopped after step ${steps.length}, saved, and gave its lock back`,
    said && saved && unlocked,
  );
  return steps;
}

function checkGoesOn(what: string, index: number, saved: readonly string[]): void {
  const now = trainedSteps(placeOf(index));
  const kept = now.length > saved.length && saved.every((line, i) => now[i] === line);
  check(`${what}: it goes on after step ${saved.length}`, kept);
}

/** Whether a task ended because `owner` is at work on its cell. */
function isRefused({ jobField }: Cluster, task: string, owner: string): boolean {
  const said = new RegExp(`Slurm job ${owner}, since .* is at work on this cell`).test(logOf(task));
  return said && jobField(task, "ExitCode") === "1:0";
}

async function requeuedKilledAndLeftBehind(cluster: Cluster, array: string): Promise<void> {
  const { slurm, jobField, untilJob } = cluster;
  const [task, place] = [`${array}_2`, placeOf(2)];
  for (const index of [1, 2]) slurm("scontrol", "release", `${array}_${index}`);
  await untilTrained(2, 30);
  slurm("scontrol", "requeue", task);
  await untilJob(task, "JobState", "PENDING");
  const saved = savedBy("scontrol requeue", task, 2);

  await untilTrained(2, saved.length + 10);
  for (const pid of processesOf(out, 2)) process.kill(pid, "SIGKILL");
  await untilJob(task, "JobState", "FAILED");
  check("SIGKILL, as when memory runs out: the job ends with 137", jobField(task, "ExitCode") === "137:0");
  const lost = trainedSteps(place).slice(saved.length);
  const locked = ownersOf(place).length === 1;
  check(`SIGKILL: ${lost.length} steps are lost, and the lock is left behind`, lost.length > 0 && locked);
  slurm("scontrol", "requeue", task);
  await until("what was lost is trained anew", () => {
    const steps = trainedSteps(place);
    return steps.length > saved.length + 10 && steps[saved.length] !== lost[0];
  });
  checkGoesOn("requeued after SIGKILL", 2, saved);

  // Where Slurm tracks processes by their parents, one that lost its parent escapes it.
  slurm("scancel", "--batch", "--signal=KILL", task);
  await untilJob(task, "JobState", "FAILED");
  slurm("scontrol", "requeue", task);
  await untilJob(task, "Restarts", "3");
  await untilJob(task, "JobState", "FAILED");
  const alive = processesOf(out, 2).length === 1;
  check(
    "batch script killed: its cell is still at work, a requeued one is refused",
    alive && isRefused(cluster, task, task),
  );
  await until("the cell is finished", () => existsSync(place.json) && processesOf(out, 2).length === 0, 180);
  slurm("scontrol", "requeue", task);
  await untilJob(task, "JobState", "COMPLETED");
  check("requeued once more: the cell was finished already", logOf(task).includes("was finished already"));
  checkGoesOn("after all of this", 2, saved);
}

async function twiceNearItsLimitAndOnADeadNode(cluster: Cluster, array: string): Promise<void> {
  const { slurm, jobField, untilJob, cutPower, startNode } = cluster;
  const twins = [`${array}_3`, `${submit(cluster, "3", "--hold")}_3`];
  const hasFailed = (task: string): boolean => jobField(task, "JobState") === "FAILED";
  for (const task of twins) slurm("scontrol", "release", task);
  await until("one of the two is refused", () => twins.some(hasFailed), 60);
  const [refused, task] = (hasFailed(twins[0]!) ? twins : twins.toReversed()) as [string, string];
  const [there, here] = [refused, task].map((one) => jobField(one, "BatchHost"));
  const named = isRefused(cluster, refused, task);
  check(
    `twice at once: ${refused} on ${there} is refused and names ${task} on ${here}`,
    named && there !== here,
  );

  await untilTrained(3, 30);
  // As Slurm does near the limit. scancel sends a signal again and again when the job requeues itself meanwhile.
  for (const pid of processesOf(out, 3)) process.kill(parentOf(pid), "SIGUSR1");
  await untilJob(task, "JobState", "PENDING");
  const saved = savedBy("near the time limit", task, 3);

  await untilTrained(3, saved.length + 10);
  const dead = jobField(task, "BatchHost");
  cutPower(dead);
  say(`${dead} is without power; Slurm has to notice, then the lock has to grow old (2 minutes)`);
  await untilJob(task, "Restarts", "2", 120);
  await untilJob(task, "JobState", "COMPLETED", 400);
  const alive = jobField(task, "BatchHost");
  const waited = new RegExp(`on ${dead} \\(.*looking for a sign of life`).test(logOf(task));
  check(`dead node: ${alive} waited for a sign of life of ${dead}`, alive !== dead && waited);
  checkGoesOn("after the dead node", 3, saved);
  await startNode(dead);
}

async function frozenAndTakenOver(cluster: Cluster, array: string): Promise<void> {
  const { slurm, untilJob } = cluster;
  const [task, place] = [`${array}_4`, placeOf(4)];
  slurm("scontrol", "release", task);
  await untilTrained(4, 30);
  slurm("scontrol", "suspend", task);
  await untilJob(task, "JobState", "SUSPENDED");
  const frozen = trainedSteps(place);
  const next = `${submit(cluster, "4")}_4`;
  say(`${task} is frozen; ${next} waits for the lock to grow old (2 minutes)`);
  await until("the cell is taken over", () => ownersOf(place).length === 2, 240);
  // Nothing was saved: the new owner begins at step 1.
  await until("the new owner trains", () => {
    const steps = trainedSteps(place);
    return steps.length > 30 && steps[0] !== frozen[0];
  });
  slurm("scontrol", "resume", task);
  await untilJob(task, "JobState", "FAILED");
  const stopped = new RegExp(`Slurm job ${next}, since .* has taken this cell over.*\\n$`).test(logOf(task));
  check(`frozen: when ${task} wakes up in the middle of a step it finds ${next} at work, and stops`, stopped);
  await untilJob(next, "JobState", "COMPLETED", 180);
}

async function cancelledAndSubmittedAgain(cluster: Cluster, array: string): Promise<void> {
  const { slurm, jobField, untilJob } = cluster;
  const task = `${array}_5`;
  slurm("scontrol", "release", task);
  await untilTrained(5, 30);
  slurm("scancel", task);
  await until("its process has ended", () => processesOf(out, 5).length === 0);
  const saved = savedBy("scancel", task, 5);
  const again = submit(cluster, `1-${NAMES.length}`);
  for (const i of NAMES.keys()) await untilJob(`${again}_${i + 1}`, "JobState", "COMPLETED", 180);
  const state = `${jobField(task, "JobState")} ${jobField(task, "Restarts")}`;
  check("scancel: it was not put back into the queue", state === "CANCELLED 0");
  const known = [1, 2, 3, 4].every((index) => logOf(`${again}_${index}`).includes("was finished already"));
  check("submitted again: finished cells end at once", known);
  checkGoesOn("submitted again", 5, saved);
}

async function besideOneProcess(): Promise<void> {
  for (const [i, name] of NAMES.entries()) {
    const ours = placeOf(i + 1);
    check(`${name}: the bytes of the one made without Slurm`, sameBytes(ours, cellPlace(reference, name)));
    check(`${name}: one thread on one CPU`, threadsOf(ours) === 1);
    if (i > 0) check(`${name}: every step stands there once`, eachStepOnce(ours, STEPS));
  }
  const files = readdirSync(out, { recursive: true, encoding: "utf8" });
  const cells = files.filter((name) => /^tiny-[^/]*\.json$/.test(name));
  check("every cell is there, and no other", cells.length === NAMES.length);
  const left = files.filter((name) => /\/owner\.\d+$|\.tmp$/.test(name));
  check(`no lock and no temporary file is left${left.map((name) => ` ${name}`)}`, left.length === 0);
  const list = await experiment("cell.ts", [...CELLS, "--out", out, "--list"]);
  check("cell.ts --list: all are finished", list.includes("5 of 5 finished"));
  const table = await experiment("table3.ts", [...CELLS.slice(1), "--out", out, "--collect"]);
  check(
    "table3.ts --collect: the table of all cells",
    table.includes("\n5 cells in ") && !table.includes("Not finished"),
  );
}

async function main(): Promise<void> {
  mkdirSync(logs);
  say(`everything is written below ${root}`);
  const cluster = await startCluster(root, NODES);
  say(
    `${cluster.slurm("sbatch", "--version")}: ${cluster.slurm("sinfo", "-h", "-o", "%D nodes of %c CPU, %T")}`,
  );
  const withoutSlurm = experiment("table3.ts", [...CELLS.slice(1), "--out", reference]);
  const array = submit(cluster, `1-${NAMES.length}`, "--hold");
  say("cell 2 is requeued, killed, and left behind by its batch script");
  await requeuedKilledAndLeftBehind(cluster, array);
  say("cell 3 is asked for twice at once, comes near its time limit, and its node loses its power");
  await twiceNearItsLimitAndOnADeadNode(cluster, array);
  say("cell 4 is frozen, taken over, and wakes up");
  await frozenAndTakenOver(cluster, array);
  say("cell 5 is cancelled, then the whole array is submitted once more");
  await cancelledAndSubmittedAgain(cluster, array);
  say("all of them beside those of one process without Slurm");
  await withoutSlurm;
  await besideOneProcess();
}

const absent = missing();
if (absent !== null) {
  console.error(absent);
  process.exit(1);
}
// Jobs find Bun by it (run-array.sbatch).
process.env.BUN = process.execPath;
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
await main().catch((error) => check(`${error instanceof Error ? error.message : error}`, false));
if (failures === 0) rmSync(root, { recursive: true });
say(failures === 0 ? "everything holds" : `${failures} checks failed; all files are in ${root}`);
process.exit(failures === 0 ? 0 : 1);
