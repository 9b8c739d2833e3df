/** Worker of cell-lock.ts: a thread of its own, because a step of a large model keeps the main one busy for minutes. */
import { utimesSync } from "node:fs";

export interface HeartbeatRequest {
  /** File whose time is the sign of life. */
  readonly path: string;
  /** Milliseconds. */
  readonly every: number;
}

addEventListener("message", ({ data }: MessageEvent<HeartbeatRequest>) => {
  setInterval(() => {
    try {
      const now = new Date();
      utimesSync(data.path, now, now);
    } catch {
      // Gone: another process has taken over, which the owner sees by itself.
    }
  }, data.every);
});
