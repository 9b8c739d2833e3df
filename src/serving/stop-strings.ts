/** Cuts an answer at the first stop string, also where it is spread over several tokens: what could be its start is held back. */

export interface StopFilter {
  /** The text that is certain now. Nothing more comes once `stopped`. */
  push(text: string): string;
  /** What was held back, when the answer ends by itself. */
  end(): string;
  readonly stopped: boolean;
}

export function createStopFilter(stops: readonly string[]): StopFilter {
  let held = "";
  let stopped = false;
  return {
    get stopped() {
      return stopped;
    },
    push(text) {
      if (stopped) return "";
      held += text;
      const found = stops.map((stop) => held.indexOf(stop)).filter((at) => at >= 0);
      if (found.length > 0) {
        stopped = true;
        const certain = held.slice(0, Math.min(...found));
        held = "";
        return certain;
      }
      const keep = Math.max(0, ...stops.map((stop) => overlap(held, stop)));
      const certain = held.slice(0, held.length - keep);
      held = held.slice(held.length - keep);
      return certain;
    },
    end() {
      const rest = held;
      held = "";
      return rest;
    },
  };
}

/** Length of the longest end of `text` that `stop` begins with. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
