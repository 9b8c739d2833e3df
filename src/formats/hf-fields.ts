/** Typed access to the fields of a foreign JSON object; everything wrong is collected under the field's name. */
import type { Problems } from "../errors.ts";
import { isObject, type Json, type JsonObject, property } from "./json.ts";

export interface IntegerRange {
  readonly min: number;
  readonly max: number;
  /** Value of an absent or null field; without it the field is required. */
  readonly otherwise?: number;
}

/** Getters give a harmless value after a problem, so that reading goes on and finds the others. */
export interface FieldReader {
  /** Present and not null. */
  has(name: string): boolean;
  json(name: string): Json | undefined;
  integer(name: string, range: IntegerRange): number;
  /** Finite and above zero. */
  positive(name: string, otherwise?: number): number;
  boolean(name: string, otherwise: boolean): boolean;
  /** "" when absent or null. */
  text(name: string): string;
  /** Fields of an inner object; null when absent or null. */
  object(name: string): FieldReader | null;
  /** A field that, when present, must have one of these values. */
  expect(name: string, values: readonly Json[]): void;
  problem(text: string): void;
}

/** `prefix` names the way to an inner object ("rope_scaling."). */
export function fieldReader(json: JsonObject, problems: Problems, prefix = ""): FieldReader {
  const value = (name: string): Json | undefined => property(json, name) ?? undefined;
  const wrong = (name: string, expected: string): void => {
    const found = value(name) === undefined ? "missing" : JSON.stringify(value(name)).slice(0, 80);
    problems.add(`${prefix}${name} is ${found}, expected ${expected}`);
  };
  return {
    has: (name) => value(name) !== undefined,
    json: value,
    integer(name, { min, max, otherwise }) {
      const found = value(name) ?? otherwise;
      if (typeof found === "number" && Number.isInteger(found) && found >= min && found <= max) return found;
      wrong(name, `an integer from ${min} to ${max}`);
      return Math.max(min, 1);
    },
    positive(name, otherwise) {
      const found = value(name) ?? otherwise;
      if (typeof found === "number" && Number.isFinite(found) && found > 0) return found;
      wrong(name, "a positive number");
      return 1;
    },
    boolean(name, otherwise) {
      const found = value(name) ?? otherwise;
      if (typeof found === "boolean") return found;
      wrong(name, "true or false");
      return otherwise;
    },
    text(name) {
      const found = value(name) ?? "";
      if (typeof found === "string") return found;
      wrong(name, "a string");
      return "";
    },
    object(name) {
      const found = value(name);
      if (found === undefined) return null;
      if (isObject(found)) return fieldReader(found, problems, `${prefix}${name}.`);
      wrong(name, "an object");
      return null;
    },
    expect(name, values) {
      const found = value(name);
      if (found === undefined || values.some((v) => v === found)) return;
      wrong(name, values.map((v) => JSON.stringify(v)).join(" or "));
    },
    problem: (text) => problems.add(text),
  };
}
