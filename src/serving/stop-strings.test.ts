import { describe, expect, test } from "bun:test";
import { createStopFilter } from "./stop-strings.ts";

function filtered(stops: string[], pieces: string[]): { shown: string[]; stopped: boolean } {
  const filter = createStopFilter(stops);
  const shown = pieces.map((piece) => filter.push(piece));
  if (!filter.stopped) shown.push(filter.end());
  return { shown, stopped: filter.stopped };
}

describe("stop strings", () => {
  test("are found over any cut into pieces, and nothing of them is shown", () => {
    const text = "one two</end>three";
    for (let a = 0; a <= text.length; a++) {
      for (let b = a; b <= text.length; b++) {
        const { shown, stopped } = filtered(["</end>"], [text.slice(0, a), text.slice(a, b), text.slice(b)]);
        expect({ a, b, text: shown.join(""), stopped }).toEqual({ a, b, text: "one two", stopped: true });
      }
    }
  });

  test("hold back only what may become one", () => {
    expect(filtered(["\n\n"], ["a\n", "b", "\n"])).toEqual({ shown: ["a", "\nb", "", "\n"], stopped: false });
    expect(filtered(["abc"], ["xab", "ab", "c"])).toEqual({ shown: ["x", "ab", ""], stopped: true });
  });

  test("the first in the text wins, and without any all is shown at once", () => {
    expect(filtered(["b", "ab"], ["xab"])).toEqual({ shown: ["x"], stopped: true });
    expect(filtered([], ["x", "y"])).toEqual({ shown: ["x", "y", ""], stopped: false });
  });
});
