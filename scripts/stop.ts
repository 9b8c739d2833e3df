/** Ctrl-C and SIGTERM for commands that save what they have done. */

export interface StopState {
  readonly signal: "SIGINT" | "SIGTERM" | null;
}

/**
 * The first signal asks for a stop between two steps or tasks; a second Ctrl-C ends the process. A second SIGTERM does not:
 * batch systems send one to the script and one to each of its processes, and SIGKILL when they mean it.
 */
export function stopOnSignals(): StopState {
  const state: { signal: StopState["signal"] } = { signal: null };
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (state.signal && name === "SIGINT") process.exit(exitCodeOf("SIGINT"));
      if (state.signal) return;
      state.signal = name;
      process.stderr.write(
        `\n${name}: stopping after this step or test set, which is saved; Ctrl-C (once more) to stop at once\n`,
      );
    });
  }
  return state;
}

/** Of a process that a signal has ended: 128 and its number. */
export function exitCodeOf(signal: NonNullable<StopState["signal"]>): number {
  return signal === "SIGTERM" ? 143 : 130;
}
