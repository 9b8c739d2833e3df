/** What Figure 2 shows: one merged matrix a method as a picture, and what was changed of all of them as numbers. */
import { InputError } from "../src/errors.ts";
import type { TensorEntry } from "../src/formats/safetensors.ts";
import { csvText } from "../src/reporting/csv.ts";
import { heatmapChart } from "../src/reporting/heatmap.ts";
import type { Manifest } from "../src/reporting/manifest.ts";
import { right, type Section } from "../src/reporting/table.ts";
import { type Claim, claimsSection, counted } from "./claims.ts";
import { methodTitle } from "./parameters.ts";
import { type Region, regionOf, relative } from "./regional.ts";
import type { MergedModel } from "./regional-study.ts";

export interface RegionalReport {
  readonly modelName: string;
  /** The matrix of the picture. */
  readonly matrix: string;
  /** The base's tensors. */
  readonly base: ReadonlyMap<string, TensorEntry>;
  /** Matrices that adapters sit on. */
  readonly adapted: readonly string[];
  readonly merged: readonly MergedModel[];
}

/** One merged model: the matrix of the picture, and all adapted matrices together. */
export interface Regional {
  readonly model: MergedModel;
  readonly region: Region;
  readonly all: { readonly elements: number; readonly changed: number };
  /** Changed elements of matrices that no adapter sits on. */
  readonly elsewhere: number;
  /** The largest number of changed columns (SBoRA-FA) or rows (SBoRA-FB) of any adapted matrix. */
  readonly mostColumns: number;
  readonly mostRows: number;
}

export function regionalOf(report: RegionalReport): Regional[] {
  return report.merged.map((model) => regionalOfOne(report, model));
}

/** Matrix by matrix: only that of the picture is kept. */
function regionalOfOne({ matrix, base, adapted }: RegionalReport, model: MergedModel): Regional {
  const all = { elements: 0, changed: 0 };
  const own = new Set(adapted);
  let [elsewhere, mostColumns, mostRows] = [0, 0, 0];
  let shown: Region | null = null;
  for (const [name, before] of base) {
    const after = model.tensors.get(name);
    if (!after)
      throw new InputError(`${model.dir}: there is no tensor ${name}; expected a merge of this base.`);
    if (before.shape.length !== 2) continue;
    const region = regionOf(before, after);
    if (name === matrix) shown = region;
    if (!own.has(name)) {
      elsewhere += region.changed;
      continue;
    }
    all.elements += region.rows * region.columns;
    all.changed += region.changed;
    mostColumns = Math.max(mostColumns, region.changedColumns.length);
    mostRows = Math.max(mostRows, region.changedRows.length);
  }
  if (!shown) throw new InputError(`the base has no matrix ${matrix}.`);
  return { model, region: shown, all, elsewhere, mostColumns, mostRows };
}

function titleOf({ method, rank, name }: MergedModel): string {
  return method === null ? name : `${methodTitle(method)}${rank === null ? "" : `, r = ${rank}`}`;
}

export function regionalPicture({ modelName, matrix }: RegionalReport, found: readonly Regional[]): string {
  return heatmapChart({
    title: `Figure 2: what merging changed of ${matrix}, ${modelName}`,
    columns: "inputs (columns) →",
    rows: "← outputs (rows)",
    panels: found.map(({ model, region }) => ({
      title: titleOf(model),
      caption: `${region.changedColumns.length} of ${region.columns} columns, ${region.changedRows.length} of ${region.rows} rows`,
      rows: region.rows,
      columns: region.columns,
      values: relative(region.magnitude),
    })),
    note: "Read from the files of base and merged model: blank where the bits are equal, stronger where the change is larger.",
  });
}

export function regionalSections(report: RegionalReport, found: readonly Regional[]): Section[] {
  const percent = (part: number, whole: number): string => `${((100 * part) / whole).toFixed(2)} %`;
  const claims = found.flatMap(claimsOf);
  return [
    {
      title: `Figure 2: the merged ${report.matrix} of ${report.modelName} beside the base's, from the files`,
      table: {
        columns: [
          { title: "model" },
          right("columns changed"),
          right("rows changed"),
          right("elements changed"),
          right("of all adapted matrices"),
        ],
        rows: found.map(({ model, region, all }) => [
          titleOf(model),
          `${region.changedColumns.length} of ${region.columns}`,
          `${region.changedRows.length} of ${region.rows}`,
          percent(region.changed, region.rows * region.columns),
          percent(all.changed, all.elements),
        ]),
      },
      paragraphs: [
        "Updates that rounding to the stored type took back count as not changed: the bits are equal.",
      ],
    },
    ...(claims.length > 0 ? [claimsSection("The paper's claim: a regional update", claims, [])] : []),
  ];
}

function claimsOf({ model, all, elsewhere, mostColumns, mostRows }: Regional): Claim[] {
  const { method, rank } = model;
  if (rank === null || (method !== "sbora-fa" && method !== "sbora-fb")) return [];
  const [most, lines] = method === "sbora-fa" ? [mostColumns, "columns"] : [mostRows, "rows"];
  return [
    {
      claim: `${titleOf(model)}: at most ${rank} ${lines} of every adapted matrix change, and no other weight`,
      verdict: counted(most <= rank && all.changed > 0 && elsewhere === 0),
      here: `at most ${most} ${lines}; ${elsewhere} elements elsewhere`,
      paper: `${rank} ${lines}`,
    },
  ];
}

/** One line a changed column or row of the picture's matrix. */
export function regionalCsv(found: readonly Regional[]): string {
  const rows = found.flatMap(({ model, region }) => [
    ...region.changedColumns.map((at) => [model.name, model.method, "column", at]),
    ...region.changedRows.map((at) => [model.name, model.method, "row", at]),
  ]);
  return csvText(["model", "method", "line", "index"], rows);
}

/** `manifest`: how the merged models, or the reading of them, came about. */
export function regionalJson(
  report: RegionalReport,
  found: readonly Regional[],
  manifest: Manifest | null = null,
): string {
  const models = found.map(({ model, region, all, elsewhere }) => ({
    model: model.name,
    method: model.method,
    rank: model.rank,
    changedColumns: region.changedColumns,
    changedRows: region.changedRows,
    changed: region.changed,
    elements: region.rows * region.columns,
    all,
    elsewhere,
  }));
  const { modelName, matrix } = report;
  const json = { model: modelName, matrix, merged: models, claims: found.flatMap(claimsOf) };
  return `${JSON.stringify(manifest ? { manifest, ...json } : json, null, 2)}\n`;
}
