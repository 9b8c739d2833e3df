/** What JSON.parse does not do for us: types for its result, and noticing doubled keys. */

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An own property; a key such as "constructor" does not find what every object inherits. */
export function property(object: JsonObject, key: string): Json | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/**
 * The first key that stands twice in the same object; JSON.parse would silently keep the last. `text` must have passed
 * JSON.parse, so that strings, brackets and colons are all there is to look at.
 */
export function findDuplicateKey(text: string): string | null {
  const open: (Set<string> | null)[] = [];
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === "{") open.push(new Set());
    else if (character === "[") open.push(null);
    else if (character === "}" || character === "]") open.pop();
    else if (character === '"') {
      const end = endOfString(text, at);
      if (isColonNext(text, end)) {
        const literal = text.slice(at, end);
        const key: string = literal.includes("\\") ? JSON.parse(literal) : literal.slice(1, -1);
        const seen = open.at(-1);
        if (seen?.has(key)) return key;
        seen?.add(key);
      }
      at = end - 1;
    }
  }
  return null;
}

function isColonNext(text: string, at: number): boolean {
  while (/\s/.test(text[at] ?? "")) at++;
  return text[at] === ":";
}

/** Behind the quote that closes the string at `start`. A regular expression gives up on strings of megabytes, silently. */
function endOfString(text: string, start: number): number {
  for (let quote = text.indexOf('"', start + 1); ; quote = text.indexOf('"', quote + 1)) {
    let backslashes = 0;
    while (text[quote - 1 - backslashes] === "\\") backslashes++;
    if (backslashes % 2 === 0) return quote + 1;
  }
}
