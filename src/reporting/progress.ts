/** One progress line: redrawn on a terminal, a plain line every few seconds elsewhere. Always on stderr. */
export interface Progress {
  /** `done` out of the total, and what to say beside it. */
  update(done: number, note?: string): void;
  /** Ends the line; with a text, replaces it. */
  end(text?: string): void;
}

const PLAIN_EVERY_MS = 10_000;
const REDRAW_EVERY_MS = 100;

export function startProgress(label: string, total: number, unit = "steps", from = 0): Progress {
  const terminal = process.stderr.isTTY === true;
  const start = performance.now();
  let last = start;
  let drawn = false;
  return {
    update(done, note = "") {
      const now = performance.now();
      if (done < total && now - last < (terminal ? REDRAW_EVERY_MS : PLAIN_EVERY_MS)) return;
      if (done >= total && !terminal && now - start < PLAIN_EVERY_MS) return;
      last = now;
      const seconds = (now - start) / 1000;
      const rate = (done - from) / Math.max(seconds, 1e-9);
      const eta = rate > 0 ? formatSeconds((total - done) / rate) : "?";
      const text = `${label} ${done}/${total} ${unit}${note ? `, ${note}` : ""}, ${rate.toFixed(rate < 10 ? 2 : 0)}/s, ${eta} left`;
      process.stderr.write(terminal ? `\r\x1b[2K${text}` : `${text}\n`);
      drawn = terminal;
    },
    end(text) {
      if (drawn) process.stderr.write("\r\x1b[2K");
      if (text) process.stderr.write(`${text}\n`);
    },
  };
}

/** 75 -> "1 min 15 s". */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
