/** Takes a merge back from the saved originals, and proves by the fingerprint that the base is there again, bit by bit. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { InputError, Problems } from "../errors.ts";
import { readJsonObject, writeTextFile } from "../formats/files.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { isFloatDtype, narrow } from "../formats/half.ts";
import { fieldReader } from "../formats/hf-fields.ts";
import { copyCompanions, copyConfig } from "../formats/model-folder.ts";
import { isNf4Line } from "../formats/nf4.ts";
import {
  openModelTensors,
  readSafetensorsHeader,
  readTensorBytes,
  type SafetensorsDtype,
  type SafetensorsFile,
  type TensorEntry,
  type TensorToWrite,
} from "../formats/safetensors.ts";
import { writeModelTensors } from "../formats/safetensors-model-write.ts";
import { readAsF32 } from "./matrix.ts";
import { intoNewFolder, RECORD_FILE, requireNewFolder, shardsOf } from "./merge.ts";
import { originalsPath, scatter } from "./originals.ts";

export interface UnmergeOptions {
  /** A folder of mergeModel with `keepOriginals`. */
  readonly modelDir: string;
  readonly out: string;
  readonly onTensor?: (done: number, of: number) => void;
}

/** @returns the base's fingerprint, which is that of `out` too. @throws InputError otherwise; `out` does not exist then */
export async function unmergeModel(options: UnmergeOptions): Promise<string> {
  const { modelDir, out, onTensor } = options;
  requireNewFolder(out);
  const path = originalsPath(modelDir);
  if (!existsSync(path)) {
    const tensors = openModelTensors(modelDir);
    if ([...tensors.keys()].some(isNf4Line)) return withoutLines(tensors, options);
    throw new InputError(
      `${modelDir}: there is no originals.safetensors in it, so the base cannot be restored; merge with --keep-originals next time, ` +
        `and take the base itself for now.`,
    );
  }
  const originals = readSafetensorsHeader(path);
  const tensors = openModelTensors(modelDir);
  const { base, dtypes, config } = metadataOf(originals);
  requireKnown(originals, tensors);
  return intoNewFolder(out, async (dir) => {
    let done = 0;
    const restored = [...tensors.values()].map((entry): TensorToWrite => {
      const dtype = (dtypes[entry.name] ?? entry.dtype) as SafetensorsDtype;
      const bytes = (): Uint8Array => {
        onTensor?.(done++, tensors.size);
        return originalBytes(entry, dtype, originals);
      };
      return { name: entry.name, dtype, shape: entry.shape, bytes };
    });
    writeModelTensors(dir, restored, { groups: shardsOf(tensors.values()) });
    copyCompanions(modelDir, dir);
    writeTextFile(join(dir, "config.json"), config);
    const fingerprint = fingerprintModel(dir);
    if (fingerprint === base) return base;
    throw new InputError(
      `${modelDir}: what was restored has the fingerprint ${fingerprint.slice(0, 16)}, the base had ${base.slice(0, 16)}; the folder ` +
        `was changed after the merge. Nothing was kept.`,
    );
  });
}

/** A 4-bit merge left the codes alone: without the lines beside them the folder is its base. */
async function withoutLines(
  tensors: ReadonlyMap<string, TensorEntry>,
  { modelDir, out, onTensor }: UnmergeOptions,
): Promise<string> {
  const kept = [...tensors.values()].filter(({ name }) => !isNf4Line(name));
  return intoNewFolder(out, async (dir) => {
    const restored = kept.map(({ name, dtype, shape }, i): TensorToWrite => {
      const bytes = (): Uint8Array => {
        onTensor?.(i, kept.length);
        return readTensorBytes(tensors.get(name)!);
      };
      return { name, dtype, shape, bytes };
    });
    writeModelTensors(dir, restored, { groups: shardsOf(kept) });
    copyCompanions(modelDir, dir);
    copyConfig(modelDir, dir, undefined);
    const fingerprint = fingerprintModel(dir);
    const record = join(modelDir, RECORD_FILE);
    const base = existsSync(record)
      ? fieldReader(readJsonObject(record), new Problems()).object("base")
      : null;
    // What --quantize made of the base has no fingerprint to hold it against.
    if (!base || base.has("quantize") || base.text("fingerprint") === fingerprint) return fingerprint;
    throw new InputError(
      `${modelDir}: without its replaced lines it has the fingerprint ${fingerprint.slice(0, 16)}, the base had ${base.text("fingerprint").slice(0, 16)}; ` +
        `the base was merged into before, or the folder was changed after the merge. Nothing was kept.`,
    );
  });
}

interface OriginalsMetadata {
  readonly base: string;
  /** Types of the base's tensors, where the merge changed them. */
  readonly dtypes: Readonly<Record<string, string>>;
  /** The base's config.json. */
  readonly config: string;
}

function metadataOf({ path, metadata }: SafetensorsFile): OriginalsMetadata {
  const problems = new Problems();
  const version = metadata.get("schemaVersion");
  if (version !== "1") problems.add(`schemaVersion is ${version}, expected 1`);
  const base = metadata.get("base") ?? "";
  if (!/^[0-9a-f]{64}$/.test(base)) problems.add("base is no fingerprint");
  const config = metadata.get("config") ?? "";
  if (config === "") problems.add("config is missing");
  let dtypes: Record<string, string> = {};
  try {
    dtypes = JSON.parse(metadata.get("dtypes") ?? "{}") as Record<string, string>;
  } catch {
    problems.add("dtypes is not valid JSON");
  }
  problems.throwIfAny(path, "Expected the file that merge --keep-originals wrote.");
  return { base, dtypes, config };
}

function requireKnown(originals: SafetensorsFile, tensors: ReadonlyMap<string, TensorEntry>): void {
  const problems = new Problems();
  for (const name of originals.tensors.keys()) {
    if (!tensors.has(name.replace(/\.(columns|rows|values)$/, "")))
      problems.add(`tensor ${name} belongs to none of the model`);
  }
  problems.throwIfAny(originals.path);
}

/** The tensor as the base had it. */
function originalBytes(entry: TensorEntry, dtype: SafetensorsDtype, originals: SafetensorsFile): Uint8Array {
  const whole = originals.tensors.get(entry.name);
  if (whole) return readTensorBytes(whole);
  const bytes =
    dtype !== entry.dtype && isFloatDtype(dtype) ? narrow(dtype, readAsF32(entry)) : readTensorBytes(entry);
  for (const kind of ["columns", "rows"] as const) {
    const lines = originals.tensors.get(`${entry.name}.${kind}`);
    const values = originals.tensors.get(`${entry.name}.values`);
    if (!lines || !values) continue;
    const index = new Int32Array(readTensorBytes(lines).buffer);
    const [out, width] = entry.shape as [number, number];
    const limit = kind === "columns" ? width : out;
    const size = kind === "columns" ? [out, index.length] : [index.length, width];
    if (
      index.some((i) => i < 0 || i >= limit) ||
      values.shape.join() !== size.join() ||
      values.dtype !== dtype
    )
      throw new InputError(`${originals.path}: ${lines.name} and ${values.name} do not fit ${entry.name}.`);
    scatter(bytes, readTensorBytes(values), { kind, index }, [out, width]);
  }
  return bytes;
}
