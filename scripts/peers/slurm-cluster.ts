/**
 * A Slurm cluster for as long as a test takes, on one machine, without systemd, munge or a database. Every node has its own
 * host name and process numbers (`unshare`), so that its processes see no more of each other than those of two machines,
 * and a node can lose its power: all it runs ends at once, with nobody told.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";

/** Debian has the first two in packages of their names, unshare in util-linux, the others in slurm-client. */
const PROGRAMS = ["slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "unshare"];

export type JobField = "JobState" | "Restarts" | "ExitCode" | "BatchHost";

export interface Cluster {
  /** Runs a Slurm command; what it printed. @throws Error with what it said when it fails */
  slurm(...command: string[]): string;
  /** What `scontrol show job` says of a task, which is written as Slurm writes it: 7_2. */
  jobField(task: string, field: JobField): string;
  untilJob(task: string, field: JobField, value: string, seconds?: number): Promise<void>;
  /** Ends a node as a power cut does. */
  cutPower(node: string): void;
  /** Starts a node that was cut off. */
  startNode(node: string): Promise<void>;
}

/** What has to be there before a cluster can be started; null: nothing is missing. */
export function missing(): string | null {
  const absent = PROGRAMS.filter((program) => Bun.which(program) === null);
  if (absent.length > 0) {
    return `${absent.join(", ")} not found: apt-get install --no-install-recommends slurmctld slurmd slurm-client`;
  }
  return process.getuid?.() === 0 ? null : "expected to run as root, in a machine or container to spare";
}

/** Nodes of one CPU each, until this process ends. `dir` gets everything the daemons write. */
export async function startCluster(dir: string, nodes: readonly string[]): Promise<Cluster> {
  const config = join(dir, "slurm.conf");
  const log = (name: string): string => join(dir, `${name}.log`);
  for (const name of ["state", ...nodes]) mkdirSync(join(dir, name), { recursive: true });
  const [port, ...nodePorts] = await freePorts(1 + nodes.length);
  writeFileSync(config, configText(dir, port!, nodes, nodePorts));
  const env = { ...process.env, SLURM_CONF: config };
  const running = new Map<string, Bun.Subprocess>();
  const daemon = (name: string, command: readonly string[]): void => {
    const streams = { stdout: Bun.file(log(`${name}-output`)), stderr: Bun.file(log(`${name}-errors`)) };
    running.set(name, Bun.spawn([...command], { env, stdin: "ignore", ...streams }));
  };
  const slurm = (...command: string[]): string => {
    const { exitCode, stdout, stderr } = Bun.spawnSync(command, { env });
    if (exitCode === 0) return `${stdout}`.trim();
    throw new Error(`${command.join(" ")} ended with ${exitCode}: ${stdout}${stderr}`);
  };
  const jobField = (task: string, field: JobField): string =>
    new RegExp(`\\b${field}=(\\S+)`).exec(slurm("scontrol", "show", "job", "-o", task))?.[1] ?? "";
  const untilJob = (task: string, field: JobField, value: string, seconds = 60): Promise<void> =>
    until(`${field} of ${task} is ${value}`, () => jobField(task, field) === value, seconds);
  const startNode = async (node: string): Promise<void> => {
    const inside = `hostname ${node} && exec slurmd -D -f ${config} -N ${node}`;
    daemon(node, ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", inside]);
    await until(`${node} is ready`, () => /^idle$/.test(slurm("sinfo", "-h", "-n", node, "-o", "%T")));
  };
  const cutPower = (node: string): void => running.get(node)?.kill("SIGKILL");
  // A node's processes end with it; nothing of the cluster is worth saving.
  const stop = (): void => {
    for (const process of running.values()) process.kill("SIGKILL");
  };
  process.on("exit", stop);
  try {
    daemon("slurmctld", ["slurmctld", "-D", "-f", config]);
    await until("slurmctld answers", () => Bun.spawnSync(["scontrol", "ping"], { env }).exitCode === 0);
    for (const node of nodes) await startNode(node);
  } catch (error) {
    stop();
    const tails = ["slurmctld", ...nodes].map((name) => `${name}: ${tail(log(name))}`);
    throw new Error([error instanceof Error ? error.message : error, ...tails].join("\n"));
  }
  return { slurm, jobField, untilJob, cutPower, startNode };
}

/** Waits, looking every tenth of a second. @throws Error naming what did not come */
export async function until(what: string, isSo: () => boolean, seconds = 30): Promise<void> {
  const end = performance.now() + 1000 * seconds;
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`waited ${seconds} s in vain until ${what}`);
    await Bun.sleep(100);
  }
}

/** Times are short: a dead node is noticed within half a minute, a requeued job waits seconds for its turn. */
function configText(dir: string, port: number, nodes: readonly string[], ports: readonly number[]): string {
  const nodeLines = nodes.map((node, i) => {
    return `NodeName=${node} NodeHostname=${node} NodeAddr=127.0.0.1 Port=${ports[i]} CPUs=1 RealMemory=4096`;
  });
  return `ClusterName=sbora
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=20
MinJobAge=3600
StateSaveLocation=${dir}/state
SlurmdSpoolDir=${dir}/%n
SlurmctldPidFile=${dir}/slurmctld.pid
SlurmdPidFile=${dir}/%n.pid
SlurmctldLogFile=${dir}/slurmctld.log
SlurmdLogFile=${dir}/%n.log
${nodeLines.join("\n")}
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
`;
}

/** Ports nobody listens on at this moment. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => new Promise((done) => server.once("listening", done))));
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

function tail(path: string): string {
  try {
    return readFileSync(path, "utf8").trim().split("\n").slice(-5).join("\n    ");
  } catch {
    return "(it wrote nothing)";
  }
}
