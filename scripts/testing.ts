/** Runs a command of this folder as the user does: as a process. */
import { join } from "node:path";

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export function runScript(
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): Finished {
  const child = Bun.spawnSync([process.execPath, "run", join(import.meta.dir, `${name}.ts`), ...args], {
    env: { ...process.env, NO_COLOR: "1", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  return { code: child.exitCode, stdout: child.stdout.toString(), stderr: child.stderr.toString() };
}
