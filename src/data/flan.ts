/**
 * FLAN v2 as the 4-bit experiments take it (protocol §4.3): rows of `inputs, targets, task_source, template_type`, those
 * of few characters, a fixed number of every kind. Read line by line: the collection is far larger than memory.
 */
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { InputError, messageOf } from "../errors.ts";
import { randomStream } from "../native/philox.ts";
import { streamKey } from "../native/streams.ts";
import type { InstructionRecord } from "./records.ts";

/** Rows of every kind, `<task_source>_<template_type>`: the published mixture of 50,000. */
export const flanQuotas: Readonly<Record<string, number>> = {
  ...kinds("Flan2021", ["zs_opt", "zs_noopt", "fs_opt", "fs_noopt"], 5000),
  ...kinds("P3", ["zs_opt", "zs_noopt", "fs_opt", "fs_noopt"], 4000),
  ...kinds("NIv2", ["zs_opt", "fs_opt"], 5000),
  ...kinds("CoT", ["zs_opt", "fs_opt"], 1250),
  ...kinds("Dialog", ["zs_opt", "fs_opt"], 750),
};

function kinds(source: string, templates: readonly string[], rows: number): Record<string, number> {
  return Object.fromEntries(templates.map((template) => [`${source}_${template}`, rows]));
}

export interface FlanOptions {
  /** Most characters of inputs and of targets: the published code takes its token limits for them. */
  readonly characters: { readonly source: number; readonly target: number };
  /** Rows of every kind; others are left out. */
  readonly quotas: Readonly<Record<string, number>>;
  readonly seed: number;
}

export interface FlanSample {
  readonly records: InstructionRecord[];
  /** Kinds that had fewer rows than their quota, with how many they had. */
  readonly short: Readonly<Record<string, number>>;
  /** Rows that were read. */
  readonly read: number;
}

const LAYOUT = 'lines of {"inputs", "targets", "task_source", "template_type"} objects';

/** JSON Lines files of a folder by name, or the one file. @throws InputError where there is none */
export function flanFiles(path: string): string[] {
  if (!existsSync(path))
    throw new InputError(`${path}: there is no such file or folder; expected ${LAYOUT}.`);
  if (!statSync(path).isDirectory()) return [path];
  const names = readdirSync(path).filter((name) => /\.(jsonl|ndjson)$/.test(name));
  if (names.length > 0) return names.sort().map((name) => join(path, name));
  throw new InputError(`${path}: there is no .jsonl file in this folder; expected ${LAYOUT}.`);
}

/**
 * Draws without replacement: every row gets a random number by its place, and of each kind the smallest numbers win. So
 * the sample needs memory for itself alone.
 * @throws InputError naming file, line, field and what was expected
 */
export function readFlan(files: readonly string[], { characters, quotas, seed }: FlanOptions): FlanSample {
  const drawn = new Map(Object.keys(quotas).map((kind) => [kind, [] as Drawn[]]));
  const random = randomStream(streamKey(seed, "data", "flan"));
  let read = 0;
  for (const file of files) {
    for (const [line, text] of linesOf(file)) {
      const row = rowOf(text, `${file} line ${line}`);
      read++;
      // One number a row, taken or not: the sample does not depend on the limits of other kinds.
      const key = random.word();
      const kept = drawn.get(row.kind);
      if (!kept || row.inputs.length > characters.source || row.targets.length > characters.target) continue;
      kept.push({ key, place: read, inputs: row.inputs, targets: row.targets });
      if (kept.length > 2 * quotas[row.kind]! + 64) keepSmallest(kept, quotas[row.kind]!);
    }
  }
  const short: Record<string, number> = {};
  for (const [kind, kept] of drawn) {
    keepSmallest(kept, quotas[kind]!);
    if (kept.length < quotas[kind]!) short[kind] = kept.length;
  }
  const records = [...drawn.values()]
    .flat()
    .map(({ inputs, targets }) => ({ instruction: inputs, input: "", output: targets, answer: "" }));
  if (records.length > 0) return { records, short, read };
  throw new InputError(
    `${files.join(", ")}: of ${read} rows none has at most ${characters.source} characters of inputs, at most ` +
      `${characters.target} of targets and one of the kinds ${Object.keys(quotas).join(", ")}.`,
  );
}

interface Drawn {
  readonly key: number;
  readonly place: number;
  readonly inputs: string;
  readonly targets: string;
}

function keepSmallest(rows: Drawn[], count: number): void {
  rows.sort((a, b) => a.key - b.key || a.place - b.place);
  rows.length = Math.min(rows.length, count);
}

function rowOf(text: string, where: string): { inputs: string; targets: string; kind: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${where}: not valid JSON (${messageOf(error)}); expected ${LAYOUT}.`);
  }
  const fields = new Map<string, unknown>(typeof value === "object" && value ? Object.entries(value) : []);
  const field = (name: string): string => {
    const found = fields.get(name);
    if (typeof found === "string") return found;
    const shown = JSON.stringify(found)?.slice(0, 60) ?? "missing";
    throw new InputError(`${where}: field "${name}" is ${shown}, expected a string; expected ${LAYOUT}.`);
  };
  const kind = `${field("task_source")}_${field("template_type")}`;
  return { inputs: field("inputs"), targets: field("targets"), kind };
}

const CHUNK_BYTES = 1 << 20;
const MAX_LINE_BYTES = 64 << 20;

/** Lines that are not blank, numbered from 1. */
function* linesOf(path: string): Generator<[number, string]> {
  const fd = openSync(path, "r");
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const chunk = new Uint8Array(CHUNK_BYTES);
  let rest = "";
  let line = 0;
  try {
    for (;;) {
      const bytes = readSync(fd, chunk, 0, chunk.length, null);
      try {
        rest += decoder.decode(chunk.subarray(0, bytes), { stream: bytes > 0 });
      } catch (error) {
        throw new InputError(`${path}: not UTF-8 text behind line ${line} (${messageOf(error)}).`);
      }
      const parts = rest.split("\n");
      rest = bytes > 0 ? parts.pop()! : "";
      if (rest.length > MAX_LINE_BYTES) {
        throw new InputError(
          `${path} line ${line + parts.length + 1}: longer than ${MAX_LINE_BYTES} bytes; expected ${LAYOUT}.`,
        );
      }
      for (const text of parts) {
        line++;
        if (text.trim() !== "") yield [line, text];
      }
      if (bytes === 0) return;
    }
  } finally {
    closeSync(fd);
  }
}
