/**
 * Models of the Hugging Face Hub: which files a repository has, the ones a LLaMA needs, and fetching them. Honours
 * HF_ENDPOINT, HF_TOKEN (and its file), HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE, and the cache's place.
 */
import {
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { InputError, messageOf, Problems } from "../errors.ts";
import { downloadFile, type ExpectedFile, statusAdvice } from "./download.ts";
import { temporaryName, writeProblem } from "./files.ts";
import { readLlamaConfig } from "./hf-config.ts";
import { isObject, type Json, property } from "./json.ts";
import { openModelTensors } from "./safetensors.ts";

export interface HubSettings {
  readonly endpoint: string;
  readonly token: string | null;
  readonly offline: boolean;
  /** Where huggingface_hub keeps what it has downloaded. */
  readonly cache: string;
}

export interface HubFile {
  readonly name: string;
  readonly expected: ExpectedFile;
}

export interface HubRevision {
  /** Commit of the revision. */
  readonly commit: string;
  readonly files: readonly HubFile[];
}

export type HubProgress = (file: string, done: number, of: number | null) => void;

type Environment = Readonly<Record<string, string | undefined>>;

const LIST_TIMEOUT_MS = 20_000;
const MAX_FILES = 10_000;
const REPOSITORY = /^[A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95}$/;
const COMMIT = /^[0-9a-f]{40}$/;

export function hubSettings(env: Environment = process.env): HubSettings {
  const set = (name: string): string | undefined => env[name]?.trim() || undefined;
  const flag = (name: string): boolean =>
    ["1", "ON", "YES", "TRUE"].includes((set(name) ?? "").toUpperCase());
  const home = set("HF_HOME") ?? join(set("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface");
  const tokenPath = set("HF_TOKEN_PATH") ?? join(home, "token");
  return {
    endpoint: (set("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, ""),
    token: set("HF_TOKEN") ?? (existsSync(tokenPath) ? readFileSync(tokenPath, "utf8").trim() || null : null),
    offline: flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE"),
    cache: set("HF_HUB_CACHE") ?? set("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub"),
  };
}

export function isRepositoryId(text: string): boolean {
  return REPOSITORY.test(text) && !text.includes("..");
}

/**
 * Puts a LLaMA repository's files into `dir`; files that are already there and right are not fetched again.
 * @returns the commit
 * @throws InputError when the Hub or the repository cannot be used
 */
export async function downloadModel(
  repository: string,
  dir: string,
  settings: HubSettings,
  options: { readonly revision?: string; readonly onProgress?: HubProgress } = {},
): Promise<string> {
  const { revision = "main", onProgress } = options;
  if (settings.offline) return copyFromCache(repository, revision, dir, settings);
  const { commit, files } = await listRevision(repository, revision, settings);
  for (const { name, expected } of chooseModelFiles(repository, files)) {
    // The weights come last: a model that we cannot use costs no gigabytes.
    if (name.endsWith(".safetensors")) readLlamaConfig(dir);
    await downloadFile(
      `${settings.endpoint}/${repository}/resolve/${commit}/${encodeURI(name)}`,
      join(dir, name),
      {
        expected,
        headers: authorization(settings),
        onProgress: (done, of) => onProgress?.(name, done, of),
      },
    );
  }
  openModelTensors(dir);
  return commit;
}

function authorization({ token }: HubSettings): Record<string, string> {
  return token === null ? {} : { authorization: `Bearer ${token}` };
}

/** All files of a revision with their sizes and hashes. */
export async function listRevision(
  repository: string,
  revision: string,
  settings: HubSettings,
): Promise<HubRevision> {
  const url = `${settings.endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}?blobs=true`;
  let json: Json;
  try {
    const signal = AbortSignal.timeout(LIST_TIMEOUT_MS);
    const response = await fetch(url, { headers: authorization(settings), signal });
    if (!response.ok)
      throw new InputError(
        `${url}: status ${response.status}, expected 200. ${statusAdvice(response.status)}`,
      );
    json = (await response.json()) as Json;
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new HubUnreachable(
      `${url}: the Hub cannot be reached (${messageOf(error)}). Check the network, set HF_ENDPOINT to a mirror, or give a file with --from.`,
    );
  }
  return parseRevision(url, json);
}

/** No answer at all, so that a caller may try another source. */
export class HubUnreachable extends InputError {}

function parseRevision(url: string, json: Json): HubRevision {
  const commit = isObject(json) ? property(json, "sha") : undefined;
  const siblings = isObject(json) ? property(json, "siblings") : undefined;
  const usable = typeof commit === "string" && COMMIT.test(commit) && Array.isArray(siblings);
  if (!usable || siblings.length > MAX_FILES) {
    throw new InputError(`${url}: the answer lists no files, expected sha and siblings; check HF_ENDPOINT.`);
  }
  return { commit, files: siblings.flatMap(parseFile) };
}

/** Large files carry a SHA-256, the others git's own hash. */
function parseFile(entry: Json): HubFile[] {
  if (!isObject(entry)) return [];
  const text = (value: Json | undefined): string | undefined =>
    typeof value === "string" ? value : undefined;
  const name = text(property(entry, "rfilename"));
  if (name === undefined) return [];
  const size = property(entry, "size");
  const bytes = typeof size === "number" ? size : undefined;
  const lfs = property(entry, "lfs");
  if (isObject(lfs))
    return [
      { name, expected: { bytes, sha256: text(property(lfs, "sha256")) ?? text(property(lfs, "oid")) } },
    ];
  return [{ name, expected: { bytes, gitBlob: text(property(entry, "blobId")) } }];
}

const WANTED = [
  /^config\.json$/,
  /^generation_config\.json$/,
  /^tokenizer\.json$/,
  /^tokenizer_config\.json$/,
  /^special_tokens_map\.json$/,
  /^chat_template\.jinja$/,
  /^model\.safetensors\.index\.json$/,
  /^model(-\d{5}-of-\d{5})?\.safetensors$/,
];

/** The files that we read, weights last. @throws InputError when the repository lacks what a model needs */
export function chooseModelFiles(repository: string, files: readonly HubFile[]): HubFile[] {
  const problems = new Problems();
  const has = (test: RegExp): boolean => files.some((file) => test.test(file.name));
  if (!has(/^config\.json$/)) problems.add("there is no config.json");
  if (!has(/^tokenizer\.json$/)) {
    const only = has(/^tokenizer\.model$/) ? ", only tokenizer.model, which is not supported alone" : "";
    problems.add(`there is no tokenizer.json${only}`);
  }
  if (!has(/^model(-\d{5}-of-\d{5})?\.safetensors$/)) {
    const only = has(/\.gguf$/)
      ? ", but GGUF files: download one and give it with --from"
      : has(/\.bin$/)
        ? ", only PyTorch files"
        : "";
    problems.add(`there is no model.safetensors${only}`);
  }
  problems.throwIfAny(
    repository,
    "Expected a LLaMA's repository in the transformers layout; choose another one.",
  );
  // One whole file and shards of the same weights may lie side by side.
  const whole = has(/^model\.safetensors$/);
  return files
    .filter(({ name }) => WANTED.some((wanted) => wanted.test(name)))
    .filter(({ name }) => !whole || !/-of-|\.index\.json$/.test(name))
    .sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
}

function rank(file: HubFile): number {
  return file.name.endsWith(".safetensors") ? 1 : 0;
}

/** Offline: what huggingface_hub has downloaded earlier. @returns the commit */
function copyFromCache(repository: string, revision: string, dir: string, settings: HubSettings): string {
  const root = join(settings.cache, `models--${repository.replace("/", "--")}`);
  const ref = join(root, "refs", revision);
  const commit = existsSync(ref) ? readFileSync(ref, "utf8").trim() : revision;
  const snapshot = join(root, "snapshots", commit);
  if (!COMMIT.test(commit) || !existsSync(snapshot)) {
    throw new InputError(
      `${repository}: HF_HUB_OFFLINE is set and ${root} holds no revision "${revision}". Unset it to download the model.`,
    );
  }
  const names = readdirSync(snapshot).map((name): HubFile => ({ name, expected: {} }));
  openModelTensors(snapshot);
  try {
    mkdirSync(dir, { recursive: true });
    for (const { name } of chooseModelFiles(repository, names)) {
      const temporary = temporaryName(join(dir, name));
      copyFileSync(join(snapshot, name), temporary, constants.COPYFILE_FICLONE);
      renameSync(temporary, join(dir, name));
    }
  } catch (error) {
    throw writeProblem(dir, error);
  }
  return commit;
}
