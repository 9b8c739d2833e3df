import { describe, expect, test } from "bun:test";
import { createStreamDecoder, type StreamOptions } from "./stream-decoder.ts";
import { BYTE_FALLBACK, BYTE_LEVEL, withFolder } from "./testing.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

const byteLevel = withFolder(BYTE_LEVEL, loadTokenizer);
const byteFallback = withFolder(BYTE_FALLBACK, loadTokenizer);

/** Each token's piece, then what the end gave. */
function pieces(tokenizer: Tokenizer, ids: readonly number[], options: StreamOptions = {}): string[] {
  const stream = createStreamDecoder(tokenizer, options);
  return [...ids.map((id) => stream.push(id)), stream.end()];
}

/** Reproducible ids below `limit`. */
function randomIds(count: number, limit: number, seed: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % limit;
  });
}

describe("createStreamDecoder", () => {
  test("a character comes with its last byte", () => {
    const smile = byteLevel.encode("🙂");
    expect(smile).toHaveLength(4);
    expect(pieces(byteLevel, [...smile, 99])).toEqual(["", "", "", "🙂", "a", ""]);
    const fallback = byteFallback.encodeWithoutBos("🙂").slice(1);
    expect(pieces(byteFallback, [274, ...fallback, 261])).toEqual(["a", "", "", "", "🙂", "b", ""]);
  });

  test("bytes that never become a character come when that is certain", () => {
    const [first, second] = byteLevel.encode("🙂");
    expect(pieces(byteLevel, [first!, second!, 99])).toEqual(["", "", "\uFFFDa", ""]);
    expect(pieces(byteLevel, [99, first!])).toEqual(["a", "", "\uFFFD"]);
  });

  test("the first space of a continuation is kept", () => {
    const the = byteFallback.idOf("▁the")!;
    expect(pieces(byteFallback, [the]).join("")).toBe("the");
    expect(pieces(byteFallback, [the], { after: byteFallback.encode("a b") }).join("")).toBe(" the");
    // A skipped token has no text that could stand before the space.
    const skipping = { skipSpecialTokens: true, after: [...byteFallback.encode("a"), 2] };
    expect(pieces(byteFallback, [the], skipping).join("")).toBe(" the");
  });

  test("special tokens are given out or left out", () => {
    expect(pieces(byteLevel, [99, 0, 100])).toEqual(["a", "<|end|>", "b", ""]);
    expect(pieces(byteLevel, [99, 0, 100], { skipSpecialTokens: true })).toEqual(["a", "", "b", ""]);
  });

  test.each([
    ["byte-level", byteLevel],
    ["byte fallback", byteFallback],
  ])("%s: all pieces together are the decoded whole, over many windows", (_, tokenizer) => {
    for (let seed = 1; seed <= 40; seed++) {
      const ids = randomIds(150, tokenizer.vocabSize, seed);
      for (const skipSpecialTokens of [false, true]) {
        const whole = tokenizer.decode(ids, { skipSpecialTokens });
        expect(pieces(tokenizer, ids, { skipSpecialTokens }).join("")).toBe(whole);
      }
    }
  });

  test("a long prompt costs no more than its end", () => {
    let longest = 0;
    const decode: Tokenizer["decode"] = (ids, options) => {
      longest = Math.max(longest, ids.length);
      return byteLevel.decode(ids, options);
    };
    const after = byteLevel.encode("the a ".repeat(500));
    const stream = createStreamDecoder({ decode }, { after });
    const text = after.map((id) => stream.push(id)).join("");
    expect(text).toBe("the a ".repeat(500));
    expect(longest).toBeLessThan(40);
  });
});
