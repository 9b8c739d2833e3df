/** The files of a table that lie beside its cells: Markdown, CSV, JSON and a picture, all made from the cells. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { readJsonObject, writeTextFile } from "../src/formats/files.ts";
import { tableJson } from "./table-json.ts";
import { tablePicture } from "./table-picture.ts";
import { csvReport, markdownReport, type ReportInput } from "./table-report.ts";

export const TABLE_FILES = ["table.md", "table.csv", "table.json", "table.svg"] as const;

export function writeTableFiles(out: string, report: ReportInput): void {
  const texts: Readonly<Record<(typeof TABLE_FILES)[number], string>> = {
    "table.md": markdownReport(report),
    "table.csv": csvReport(report),
    "table.json": tableJson(report),
    "table.svg": tablePicture(report),
  };
  for (const name of TABLE_FILES) writeTextFile(join(out, name), texts[name]);
}

/** Begins what --collect says of the cells that were not finished then: by now they may be. */
const OF_THEN = "Not finished";

/** What the run that wrote a table found in its data: it is in no cell, so it is carried over. */
export function readRemarks(out: string): string[] {
  const path = join(out, "table.json");
  if (!existsSync(path)) return [];
  const { remarks } = readJsonObject(path);
  const found = Array.isArray(remarks) ? remarks.filter((remark) => typeof remark === "string") : [];
  return found.filter((remark) => !remark.startsWith(OF_THEN));
}
