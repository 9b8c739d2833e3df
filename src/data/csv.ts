/** Reading comma-separated values by RFC 4180, strictly: whatever is no field of it is an error with its line. */
import { InputError } from "../errors.ts";

export interface CsvRow {
  /** In the file, counted from 1: where the row begins. */
  readonly line: number;
  readonly fields: readonly string[];
}

/**
 * All rows of a file; quoted fields may hold commas, line breaks and doubled quotes. A line break at the end makes no row.
 * @throws InputError naming file and line of a stray quote
 */
export function parseCsv(text: string, path: string): CsvRow[] {
  const rows: CsvRow[] = [];
  let at = text.startsWith("\uFEFF") ? 1 : 0;
  let line = 1;
  while (at < text.length) {
    const first = line;
    const fields: string[] = [];
    for (;;) {
      const field = text[at] === '"' ? quotedField(text, at, path, line) : plainField(text, at, path, line);
      fields.push(field.value);
      at = field.end;
      line += field.breaks;
      if (text[at] !== ",") break;
      at++;
    }
    rows.push({ line: first, fields });
    if (text[at] === "\r") at++;
    at++;
    line++;
  }
  return rows;
}

interface Field {
  readonly value: string;
  /** Where the comma, the line break or the end of the text stands. */
  readonly end: number;
  /** Line breaks inside. */
  readonly breaks: number;
}

function plainField(text: string, start: number, path: string, line: number): Field {
  let end = start;
  while (end < text.length && text[end] !== "," && !isLineBreak(text, end)) {
    if (text[end] === '"') {
      throw new InputError(
        `${path} line ${line}: a quote stands inside the field ${shown(text.slice(start, end + 1))}, which does not begin with one; ` +
          'expected a field with quotes as "…", its own quotes doubled.',
      );
    }
    end++;
  }
  return { value: text.slice(start, end), end, breaks: 0 };
}

function quotedField(text: string, start: number, path: string, line: number): Field {
  let end = text.indexOf('"', start + 1);
  // A doubled quote is one of the field's own.
  while (end >= 0 && text[end + 1] === '"') end = text.indexOf('"', end + 2);
  if (end < 0) {
    throw new InputError(
      `${path} line ${line}: the quoted field that begins with ${shown(text.slice(start))} never ends; expected a closing quote.`,
    );
  }
  const inside = text.slice(start + 1, end);
  const after = end + 1;
  if (after < text.length && text[after] !== "," && !isLineBreak(text, after)) {
    const breaks = inside.split("\n").length - 1;
    throw new InputError(
      `${path} line ${line + breaks}: ${shown(text.slice(after))} stands behind a closing quote; expected a comma or the end of the line.`,
    );
  }
  return { value: inside.replaceAll('""', '"'), end: after, breaks: inside.split("\n").length - 1 };
}

function isLineBreak(text: string, at: number): boolean {
  return text[at] === "\n" || (text[at] === "\r" && text[at + 1] === "\n");
}

const MAX_SHOWN = 30;

function shown(text: string): string {
  return JSON.stringify(text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text);
}
