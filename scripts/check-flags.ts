/** Refuses mistyped flags. citty lets them pass, and a typing mistake would train something else. */
import type { ArgsDef } from "citty";
import { InputError } from "../src/errors.ts";

/** @throws InputError for a flag that is none, with the one that was probably meant, and for words that belong to no flag */
export function checkFlags(
  raw: readonly string[],
  definition: ArgsDef,
  positionals: readonly string[],
): void {
  const known = Object.keys(definition).filter((name) => definition[name]!.type !== "positional");
  const switches = known.filter((name) => definition[name]!.type === "boolean");
  for (const [i, token] of raw.entries()) {
    if (token === "--") break;
    if (!token.startsWith("--")) {
      const value = definition[raw[i - 1]?.replace(/^--/, "") ?? ""]?.type === "string";
      if (!value && /^-[a-z]{2}/i.test(token))
        throw new InputError(`unknown flag ${token}; flags begin with two dashes: -${token}.`);
      continue;
    }
    const [name, value] = halves(token.slice(2));
    const negated = name.startsWith("no-") && switches.includes(name.slice(3));
    if (known.includes(name) || negated || name === "help") {
      if (negated || switches.includes(name)) checkSwitch(name, value, negated ? [] : ["true", "false"]);
      continue;
    }
    const near = nearest(name, [...known, ...switches.map((flag) => `no-${flag}`)]);
    throw new InputError(
      `unknown flag --${name}${near ? `; did you mean --${near}?` : `; expected one of ${known.map((k) => `--${k}`).join(", ")}.`}`,
    );
  }
  const expected = Object.values(definition).filter(({ type }) => type === "positional").length;
  if (positionals.length > expected) {
    throw new InputError(
      `unexpected "${positionals[expected]}"; values belong behind their flag, see --help.`,
    );
  }
}

/** "rank=8" -> "rank" and "8"; undefined where nothing is given. */
function halves(token: string): [name: string, value: string | undefined] {
  const at = token.indexOf("=");
  return at < 0 ? [token, undefined] : [token.slice(0, at), token.slice(at + 1)];
}

/** citty takes --no-shuffle=1 for nothing at all. `legal`: the values it may have. */
function checkSwitch(name: string, value: string | undefined, legal: readonly string[]): void {
  if (value === undefined || legal.includes(value)) return;
  const expected = legal.length > 0 ? `no value, or ${legal.join(" or ")}` : "no value";
  throw new InputError(`--${name} is "${value}"; expected ${expected}.`);
}

/** Letters that may be wrong for a flag to be the one that was meant. */
const MISTYPED = 2;

/** The flag that was probably meant: one that begins so, or differs by a letter or two. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const longer = known.find((flag) => flag.startsWith(name) || name.startsWith(flag));
  if (longer !== undefined || name.length <= MISTYPED) return longer;
  const [best] = known
    .map((flag) => ({ flag, edits: editsBetween(name, flag) }))
    .toSorted((a, b) => a.edits - b.edits);
  return best && best.edits <= MISTYPED ? best.flag : undefined;
}

/** Letters to insert, delete or replace to make one word of the other (Levenshtein). */
function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++)
      next.push(Math.min(row[j]! + (letter === b[j] ? 0 : 1), row[j + 1]! + 1, next[j]! + 1));
    row = next;
  }
  return row[b.length]!;
}
