/** Temporary folders and hand-made files for the tests of this folder. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../errors.ts";

export type Content = string | Uint8Array | object;

/** Runs `use` in a folder with these files: texts and bytes as they are, all else as JSON. */
export function withFiles<T>(files: Readonly<Record<string, Content>>, use: (dir: string) => T): T {
  const dir = mkdtempSync(join(tmpdir(), "sbora-formats-"));
  const remove = (): void => rmSync(dir, { recursive: true, force: true });
  try {
    for (const [name, content] of Object.entries(files))
      writeFileSync(join(dir, name), bytesOfContent(content));
    const result = use(dir);
    if (result instanceof Promise) return result.finally(remove) as T;
    remove();
    return result;
  } catch (error) {
    remove();
    throw error;
  }
}

function bytesOfContent(content: Content): string | Uint8Array {
  return typeof content === "string" || content instanceof Uint8Array ? content : JSON.stringify(content);
}

/** The message of the InputError that `run` throws; anything else fails the test. */
export function inputErrorOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
  throw new Error("expected an InputError, nothing was thrown");
}

/** Files that a failed write left behind. */
export function leftovers(dir: string): string[] {
  return readdirSync(dir).filter((name) => name.endsWith(".tmp"));
}

/** A safetensors file put together by hand: any header text, any data, a length of one's own. */
export function safetensorsBytes(
  header: string | object,
  data: Uint8Array | number,
  length: bigint | null = null,
): Uint8Array {
  const json = typeof header === "string" ? header : JSON.stringify(header);
  const text = new TextEncoder().encode(json);
  const body = typeof data === "number" ? new Uint8Array(data) : data;
  const bytes = new Uint8Array(8 + text.length + body.length);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(body, 8 + text.length);
  return bytes;
}

/** Reproducible bytes. */
export function someBytes(count: number, seed: number): Uint8Array {
  let state = seed >>> 0;
  return Uint8Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}
