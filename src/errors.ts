/**
 * Something outside the program is wrong: a file, a flag, a request. The message is one paragraph written for
 * the person who sees it: file, field, value, what was expected, and the next step. Commands print the message
 * alone and exit with 1; any other error is our own bug and keeps its stack trace.
 */
export class InputError extends Error {
  override readonly name = "InputError";
}

/** Collects every mismatch of one input so that the user sees all of them at once (`throwIfAny`). */
export class Problems {
  private readonly found: string[] = [];

  add(problem: string): void {
    this.found.push(problem);
  }

  /** @throws InputError naming `subject` and every problem; does nothing when there is none. */
  throwIfAny(subject: string, nextStep = ""): void {
    if (this.found.length === 0) return;
    const shown = this.found.slice(0, 8);
    const more = this.found.length - shown.length;
    const list = shown.join("; ") + (more > 0 ? `; and ${more} more` : "");
    throw new InputError(`${subject}: ${list}.${nextStep ? ` ${nextStep}` : ""}`);
  }
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
