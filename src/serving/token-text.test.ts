import { describe, expect, test } from "bun:test";
import { BYTE_FALLBACK, BYTE_LEVEL, type Files, withFolder } from "../text/testing.ts";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { createTokenText } from "./token-text.ts";

const withTokenizer = <T>(files: Files, use: (tokenizer: Tokenizer) => T): T =>
  withFolder(files, (dir) => use(loadTokenizer(dir)));

describe.each([
  ["byte-level", BYTE_LEVEL],
  ["SentencePiece", BYTE_FALLBACK],
])("%s", (kind, files) => {
  test("texts and bytes of a text's tokens put together are that text, spaces included", () => {
    withTokenizer(files, (tokenizer) => {
      const ids = tokenizer.encodePlain("the the a");
      expect(ids.length).toBeGreaterThan(1);
      const { text, bytes } = createTokenText(tokenizer);
      // its first space is the tokenizer's own, and no part of the text
      const front = kind === "SentencePiece" ? " " : "";
      expect(ids.map(text).join("")).toBe(`${front}the the a`);
      const joined = Uint8Array.from(ids.flatMap((id) => bytes(id)!));
      expect(new TextDecoder().decode(joined)).toBe(`${front}the the a`);
    });
  });

  test("a byte that is no character is told as a byte", () => {
    withTokenizer(files, (tokenizer) => {
      const id = tokenizer.encodePlain("\u{1F600}").at(-4)!;
      const { text, bytes } = createTokenText(tokenizer);
      expect({ text: text(id), bytes: bytes(id) }).toEqual({ text: "bytes:\\xf0", bytes: [0xf0] });
    });
  });
});

test("words with and without their space differ", () => {
  withTokenizer(BYTE_FALLBACK, (tokenizer) => {
    const { text } = createTokenText(tokenizer);
    expect(text(tokenizer.idOf("\u2581the")!)).toBe(" the");
    expect(text(tokenizer.idOf("\u2581")!)).toBe(" ");
  });
});
