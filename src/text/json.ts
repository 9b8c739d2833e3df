/** The JSON files of a tokenizer's folder; whatever is wrong with them becomes an InputError. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { InputError, messageOf } from "../errors.ts";

/** LLaMA-3's tokenizer.json has 9 MB, the largest ones of the Hub some 30 MB. */
const MAX_BYTES = 256 << 20;

export interface TextFile {
  readonly path: string;
  readonly text: string;
}

/** A UTF-8 file, or null when there is none. */
export function readOptionalText(path: string): TextFile | null {
  if (!existsSync(path)) return null;
  try {
    const { size } = statSync(path);
    if (size > MAX_BYTES) {
      throw new InputError(`${path}: ${size} bytes, expected at most ${MAX_BYTES}; is this the right file?`);
    }
    return { path, text: readFileSync(path, "utf8") };
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(
      `${path}: cannot be read (${messageOf(error)}); check the file and its permissions.`,
    );
  }
}

/** The file's top-level object. */
export function parseObject({ path, text }: TextFile): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: not valid JSON (${messageOf(error)}); download the file again.`);
  }
  if (isRecord(value)) return value;
  throw new InputError(
    `${path}: the top level is no object, expected a JSON object; download the file again.`,
  );
}

/** An empty object when there is no such file. */
export function readOptionalObject(path: string): Record<string, unknown> {
  const file = readOptionalText(path);
  return file ? parseObject(file) : {};
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
