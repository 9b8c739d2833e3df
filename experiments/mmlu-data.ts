/** What Table 5 reads: the sets it trains on, MMLU, and both of the tiny world. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { flanFiles, flanQuotas, readFlan } from "../src/data/flan.ts";
import { type MmluSet, type MmluSplit, mmluPlaces, readMmlu } from "../src/data/mmlu.ts";
import { type InstructionRecord, readInstructionRecords } from "../src/data/records.ts";
import { InputError } from "../src/errors.ts";
import { fileHash, filesHash } from "../src/reporting/manifest.ts";
import { type MmluEvaluation, type MmluPreset, SAMPLE_SEED, type TrainingSet } from "./recipes/table5.ts";
import { writeTinyMmlu } from "./tiny/mmlu.ts";

/** A set that is there. */
export interface OpenedSet {
  readonly set: TrainingSet;
  /** File or folder, for messages. */
  readonly path: string;
  readonly records: readonly InstructionRecord[];
  /** SHA-256 of its file, or over those of its files. */
  readonly hash: string;
  /** What is to be said about what was drawn of it; null: nothing. */
  readonly remark: string | null;
}

/** @throws InputError saying what the folder must hold */
export function mmluFolder(preset: MmluPreset, data: string | null, out: string): string {
  if (data !== null) {
    if (existsSync(data)) return resolve(data);
    throw new InputError(
      `--data is ${data}: there is no such folder; expected one with ${layoutOf(preset, "DIR")}.`,
    );
  }
  if (preset.name !== "tiny") {
    throw new InputError(
      `--data is missing: the preset ${preset.name} needs a folder with ${layoutOf(preset, "DIR")}. ` +
        "bun run scripts/download.ts fetches alpaca and mmlu.",
    );
  }
  const root = join(out, ".work", "data");
  writeTinyMmlu(root);
  return root;
}

function layoutOf({ sets }: MmluPreset, root: string): string {
  return `${sets.map(({ places }) => places[0]).join(" or ")}, and MMLU as ${mmluPlaces(root)}`;
}

/** The sets that are there, in the preset's order. @throws InputError where none is, or one is damaged */
export function openSets(root: string, sets: readonly TrainingSet[]): OpenedSet[] {
  const found = sets.flatMap((set) => {
    const path = set.places.map((place) => join(root, place)).find((place) => existsSync(place));
    return path ? [openSet(set, path)] : [];
  });
  if (found.length > 0) return found;
  const places = sets.flatMap(({ places: own }) => own).join(", ");
  throw new InputError(`${root}: there is nothing to train on; expected one of ${places} in it.`);
}

function openSet(set: TrainingSet, path: string): OpenedSet {
  const { sample } = set;
  const { lengths } = set.training;
  if (sample === null) {
    return { set, path, records: readInstructionRecords(path), hash: fileHash(path), remark: null };
  }
  const files = flanFiles(path);
  const total = Object.values(flanQuotas).reduce((sum, rows) => sum + rows, 0);
  const quotas = Object.fromEntries(
    Object.entries(flanQuotas).map(([kind, rows]) => [kind, Math.round((rows * sample) / total)]),
  );
  const { records, short, read } = readFlan(files, { characters: lengths, quotas, seed: SAMPLE_SEED });
  const missing = Object.entries(short).map(([kind, rows]) => `${kind} ${rows} of ${quotas[kind]}`);
  const remark =
    missing.length > 0
      ? `${set.name}: ${records.length} of ${read} rows were drawn; kinds with too few rows of at most ` +
        `${lengths.source} and ${lengths.target} characters gave all they have: ${missing.join(", ")}.`
      : null;
  return { set, path, records, hash: filesHash(files), remark };
}

export interface OpenedMmlu {
  readonly splits: ReadonlyMap<MmluSplit, MmluSet>;
  readonly hashes: Readonly<Record<MmluSplit, string | null>>;
}

/** Questions of the splits that are there, at most `limit` a subject. @throws InputError where none is */
export function openMmlu(root: string, evaluation: MmluEvaluation): OpenedMmlu {
  const { shots, subjects } = evaluation;
  const splits = new Map<MmluSplit, MmluSet>();
  const hashes: Record<MmluSplit, string | null> = { val: null, test: null };
  for (const split of evaluation.splits) {
    const set = readMmlu(root, split, { shots, ...(subjects ? { subjects } : {}) });
    if (!set) continue;
    hashes[split] = filesHash(set.files);
    splits.set(split, {
      ...set,
      subjects: set.subjects.map((subject) => limited(subject, evaluation.limit)),
    });
  }
  if (splits.size > 0) return { splits, hashes };
  throw new InputError(
    `${root}: MMLU's ${evaluation.splits.join(" and ")} are not there; expected ${mmluPlaces(root)}.`,
  );
}

function limited(subject: MmluSet["subjects"][number], limit: number | null): MmluSet["subjects"][number] {
  return limit === null ? subject : { ...subject, questions: subject.questions.slice(0, limit) };
}
