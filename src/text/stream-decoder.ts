/** Text of a token stream, piece by piece: what was given out never has to be taken back. */
import type { Tokenizer } from "./tokenizer.ts";

export interface StreamDecoder {
  /** The text that this token makes certain; "" while a character is incomplete. */
  push(id: number): string;
  /** What is still held back, incomplete characters as U+FFFD. */
  end(): string;
}

export interface StreamOptions {
  readonly skipSpecialTokens?: boolean;
  /** Ids before the stream: some decoders drop a text's first space, which is none in the middle of a text. */
  readonly after?: readonly number[];
}

type Decoding = Pick<Tokenizer, "decode">;

/** Ids decoded again with each new one; beyond that the window starts anew at a token that stands by itself. */
const WINDOW = 32;
/** How far back a standing-alone token is looked for. */
const SEARCH = 24;
/** Behind bytes that are no whole character yet; the next token decides. */
const INCOMPLETE = /\uFFFD+$/;

/** All pieces together are `decode` of all ids behind `after`. */
export function createStreamDecoder(tokenizer: Decoding, options: StreamOptions = {}): StreamDecoder {
  const { skipSpecialTokens = false, after = [] } = options;
  const decode = (ids: readonly number[]): string => tokenizer.decode(ids, { skipSpecialTokens });
  let window = after.slice(startOf(after, decode));
  let emitted = decode(window).replace(INCOMPLETE, "").length;
  const emit = (text: string): string => {
    const piece = text.slice(emitted);
    emitted = Math.max(emitted, text.length);
    return piece;
  };
  return {
    push(id) {
      window.push(id);
      const text = decode(window);
      const certain = text.replace(INCOMPLETE, "");
      const piece = emit(certain);
      if (window.length > WINDOW && certain.length === text.length) {
        window = window.slice(startOf(window, decode));
        emitted = decode(window).length;
      }
      return piece;
    },
    end() {
      const piece = emit(decode(window));
      window = [];
      emitted = 0;
      return piece;
    },
  };
}

/** Index of the last token that has text of its own and whole characters only; 0 when there is none near the end. */
function startOf(ids: readonly number[], decode: (ids: readonly number[]) => string): number {
  for (let i = ids.length - 1; i > Math.max(0, ids.length - SEARCH); i--) {
    const alone = decode([ids[i]!]);
    if (alone !== "" && !alone.includes("\uFFFD")) return i;
  }
  return 0;
}
