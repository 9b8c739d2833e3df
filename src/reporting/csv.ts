/** Comma-separated values (RFC 4180) for spreadsheets and data frames: one header line, `\n` between lines. */

export type CsvValue = string | number | null;

/** Numbers stand as JavaScript prints them, in full; null is an empty field. */
export function csvText(header: readonly string[], rows: readonly (readonly CsvValue[])[]): string {
  return [header, ...rows].map((row) => `${row.map(field).join(",")}\n`).join("");
}

function field(value: CsvValue): string {
  const text = value === null ? "" : `${value}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
