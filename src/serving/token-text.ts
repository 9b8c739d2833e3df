/** Single tokens as clients want to see them in log-probability reports: text, and the bytes behind it. */
import type { Tokenizer } from "../text/tokenizer.ts";

export interface TokenText {
  /** Text of the token inside a text, its leading space included; bytes that are no whole character as `bytes:\xe6…`, as OpenAI's legacy route writes. */
  text(id: number): string;
  /** UTF-8 bytes, or null for tokens that have none. */
  bytes(id: number): number[] | null;
}

const BYTE_TOKEN = /^<0x([0-9A-F]{2})>$/;

export function createTokenText(tokenizer: Tokenizer): TokenText {
  const byteOf = byteLevel();
  const before = wordIn(tokenizer);
  const skipped = tokenizer.decode(before).length;
  const decoded = (id: number): string => tokenizer.decode([...before, id]).slice(skipped);
  const bytes = (id: number): number[] | null => {
    const spelling = tokenizer.token(id);
    if (spelling === null) return null;
    const text = decoded(id);
    if (!text.includes("\uFFFD")) return [...new TextEncoder().encode(text)];
    const byte = BYTE_TOKEN.exec(spelling);
    if (byte) return [Number.parseInt(byte[1]!, 16)];
    const all = [...spelling].map((character) => byteOf.get(character));
    return all.some((b) => b === undefined) ? [...new TextEncoder().encode(text)] : (all as number[]);
  };
  return {
    bytes,
    text(id) {
      const text = decoded(id);
      if (!text.includes("\uFFFD")) return text;
      const hex = (bytes(id) ?? []).map((b) => `\\x${b.toString(16).padStart(2, "0")}`);
      return `bytes:${hex.join("")}`;
    },
  };
}

/** A token of plain letters to stand in front: SentencePiece's decoders drop the first space of a text. */
function wordIn(tokenizer: Tokenizer): number[] {
  for (let id = 0; id < tokenizer.vocabSize; id++) {
    if (!tokenizer.isSpecial(id) && /^[A-Za-z]+$/.test(tokenizer.decode([id]))) return [id];
  }
  return [];
}

/** The printable stand-ins of the 256 bytes in byte-level vocabularies (GPT-2's table). */
function byteLevel(): ReadonlyMap<string, number> {
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    table.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return table;
}
