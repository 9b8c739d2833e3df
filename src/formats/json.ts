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
  const tokens = /"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g;
  const open: (Set<string> | null)[] = [];
  for (let match = tokens.exec(text); match !== null; match = tokens.exec(text)) {
    const token = match[0];
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(null);
    else if (token === "}" || token === "]") open.pop();
    else if (match[1] !== undefined) {
      const literal = token.slice(0, token.lastIndexOf('"') + 1);
      const key: string = literal.includes("\\") ? JSON.parse(literal) : literal.slice(1, -1);
      const seen = open.at(-1);
      if (seen?.has(key)) return key;
      seen?.add(key);
    }
  }
  return null;
}
