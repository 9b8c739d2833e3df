import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  chooseModelFiles,
  downloadModel,
  type HubSettings,
  HubUnreachable,
  hubSettings,
  isRepositoryId,
} from "./hub.ts";
import { inputErrorOf, safetensorsBytes, withFiles } from "./testing.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const CONFIG = JSON.stringify({
  model_type: "llama",
  hidden_size: 8,
  intermediate_size: 8,
  num_attention_heads: 2,
  num_hidden_layers: 1,
  vocab_size: 4,
});
const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const WEIGHTS = safetensorsBytes({ w: { dtype: "U8", shape: [3], data_offsets: [0, 3] } }, 3);
const INDEX = JSON.stringify({ weight_map: { w: "model-00001-of-00001.safetensors" } });

type Repository = Record<string, Uint8Array>;
const WHOLE: Repository = {
  "config.json": encode(CONFIG),
  "tokenizer.json": encode("{}"),
  "model.safetensors": WEIGHTS,
  "README.md": encode("no"),
  "original/consolidated.safetensors": encode("no"),
  "pytorch_model.bin": encode("no"),
};
const repositories: Record<string, Repository> = {
  "org/whole": WHOLE,
  "org/shards": {
    "config.json": encode(CONFIG),
    "tokenizer.json": encode("{}"),
    "model-00001-of-00001.safetensors": WEIGHTS,
    "model.safetensors.index.json": encode(INDEX),
  },
  "org/mistral": { ...WHOLE, "config.json": encode(CONFIG.replace("llama", "mistral")) },
  "org/changed": { ...WHOLE, "model.safetensors": WEIGHTS },
};

const hash = (bytes: Uint8Array): { blobId: string; lfs?: object } => {
  const blobId = new Bun.CryptoHasher("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
  return bytes === WEIGHTS
    ? { blobId: "of the pointer", lfs: { sha256, size: bytes.length, pointerSize: 9 } }
    : { blobId };
};

let asked: string[] = [];
let tokens: (string | null)[] = [];
let server: ReturnType<typeof serve>;

function serve() {
  return Bun.serve({
    port: 0,
    hostname: "localhost",
    fetch(request) {
      const path = decodeURIComponent(new URL(request.url).pathname);
      asked.push(path);
      tokens.push(request.headers.get("authorization"));
      const [, listed] = /^\/api\/models\/(\w+\/\w+)\/revision\/main$/.exec(path) ?? [];
      const list = listed === undefined ? undefined : repositories[listed];
      if (list) {
        const siblings = Object.entries(list).map(([rfilename, bytes]) => ({
          rfilename,
          size: bytes.length,
          ...hash(bytes),
        }));
        return Response.json({ sha: COMMIT, siblings });
      }
      const [, id, name] = new RegExp(`^/(\\w+/\\w+)/resolve/${COMMIT}/(.+)$`).exec(path) ?? [];
      const bytes = repositories[id ?? ""]?.[name ?? ""];
      if (!bytes) return new Response("no", { status: path.includes("gated") ? 401 : 404 });
      return new Response(
        id === "org/changed" && name === "model.safetensors" ? bytes.map((b) => b ^ 1) : bytes.slice(),
      );
    },
  });
}

beforeAll(() => {
  server = serve();
});
afterAll(() => server.stop(true));

const settings = (env: Record<string, string> = {}): HubSettings =>
  hubSettings({ HF_ENDPOINT: `http://localhost:${server.port}/`, HF_HOME: "/nowhere", ...env });

async function fetched(repository: string, env: Record<string, string> = {}) {
  asked = [];
  tokens = [];
  return withFiles({}, async (dir) => {
    let said = "";
    let commit = "";
    try {
      commit = await downloadModel(repository, dir, settings(env));
    } catch (error) {
      said = (error as Error).message;
    }
    return { said, commit, files: readdirSync(dir).sort(), asked, tokens };
  });
}

describe("downloadModel", () => {
  test("takes what a LLaMA needs, weights last, by commit", async () => {
    const got = await fetched("org/whole");
    expect(got).toMatchObject({
      said: "",
      commit: COMMIT,
      files: ["config.json", "model.safetensors", "tokenizer.json"],
    });
    const order = ["config.json", "tokenizer.json", "model.safetensors"];
    expect(got.asked.slice(1)).toEqual(order.map((name) => `/org/whole/resolve/${COMMIT}/${name}`));
    expect(new Set(got.tokens)).toEqual(new Set([null]));
  });

  test("shards with their index; the token goes along", async () => {
    const got = await fetched("org/shards", { HF_TOKEN: "secret" });
    expect(got.said).toBe("");
    expect(got.files).toContain("model-00001-of-00001.safetensors");
    expect(got.files).toContain("model.safetensors.index.json");
    expect(new Set(got.tokens)).toEqual(new Set(["Bearer secret"]));
  });

  test.each([
    ["org/nothing", /status 404.*no such file or repository/],
    ["org/gated", /status 401.*HF_TOKEN/],
    ["org/mistral", /config\.json: model_type is "mistral"/],
    ["org/changed", /model\.safetensors: what was downloaded has the SHA-256/],
  ])("%s is refused", async (repository, message) => {
    const { said, files } = await fetched(repository);
    expect(said).toMatch(message);
    expect(files).not.toContain("model.safetensors");
  });

  test("a Hub that cannot be reached is told apart", async () => {
    await withFiles({}, async (dir) => {
      const failing = downloadModel("org/x", dir, settings({ HF_ENDPOINT: "http://localhost:1" }));
      expect(failing).rejects.toThrow(HubUnreachable);
      expect(failing).rejects.toThrow(/localhost:1\/api\/models\/org\/x.*cannot be reached.*--from/);
      await failing.catch(() => null);
    });
  });
});

describe("offline", () => {
  const cached = (files: Repository, use: (cache: string, dir: string) => Promise<void>): Promise<void> =>
    withFiles({}, async (root) => {
      const repository = join(root, "hub", "models--org--whole");
      const snapshot = join(repository, "snapshots", COMMIT);
      mkdirSync(snapshot, { recursive: true });
      mkdirSync(join(repository, "refs"));
      writeFileSync(join(repository, "refs", "main"), COMMIT);
      for (const [name, bytes] of Object.entries(files)) writeFileSync(join(snapshot, name), bytes);
      await use(join(root, "hub"), join(root, "out"));
    });
  const flat = Object.fromEntries(Object.entries(WHOLE).filter(([name]) => !name.includes("/")));

  test("takes the cache's snapshot and asks nobody", () =>
    cached(flat, async (cache, dir) => {
      asked = [];
      const offline = settings({ HF_HUB_OFFLINE: "1", HF_HUB_CACHE: cache });
      expect(await downloadModel("org/whole", dir, offline)).toBe(COMMIT);
      expect(readdirSync(dir).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
      expect(Uint8Array.from(readFileSync(join(dir, "model.safetensors")))).toEqual(Uint8Array.from(WEIGHTS));
      expect(await downloadModel("org/whole", dir, offline, { revision: COMMIT })).toBe(COMMIT);
      expect(asked).toEqual([]);
    }));

  test("an incomplete or missing snapshot is an error", () =>
    cached({ ...flat, "model.safetensors": WEIGHTS.slice(0, -1) }, async (cache, dir) => {
      const offline = settings({ TRANSFORMERS_OFFLINE: "true", HF_HUB_CACHE: cache });
      const failure = async (revision: string): Promise<string> =>
        downloadModel("org/whole", dir, offline, { revision }).then(
          () => "",
          (error: Error) => error.message,
        );
      expect(await failure("main")).toMatch(
        /model\.safetensors: .*not completely downloaded|data_offsets end at/,
      );
      expect(await failure("v2")).toMatch(
        /org\/whole: HF_HUB_OFFLINE is set and .* holds no revision "v2"\. Unset it/,
      );
      expect(existsSync(dir)).toBe(false);
    }));
});

describe("chooseModelFiles", () => {
  const choose = (...names: string[]): string[] =>
    chooseModelFiles(
      "o/m",
      names.map((name) => ({ name, expected: {} })),
    ).map((f) => f.name);

  test("one whole file wins over shards of the same", () => {
    const names = [
      "config.json",
      "tokenizer.json",
      "model.safetensors",
      "model-00001-of-00002.safetensors",
      "model.safetensors.index.json",
    ];
    expect(choose(...names)).toEqual(["config.json", "tokenizer.json", "model.safetensors"]);
  });

  test.each([
    [["config.json", "tokenizer.json", "pytorch_model.bin"], /no model\.safetensors, only PyTorch files/],
    [["x.Q4_K_M.gguf"], /no config\.json; .*GGUF files: download one and give it with --from/],
    [["config.json", "tokenizer.model", "model.safetensors"], /no tokenizer\.json, only tokenizer\.model/],
    [[], /no config\.json/],
  ])("%j", (names, message) => {
    expect(inputErrorOf(() => choose(...names))).toMatch(message);
  });
});

describe("hubSettings", () => {
  test("the environment's names, the older ones too", () => {
    const defaults = hubSettings({ HF_HOME: "/h" });
    expect(defaults).toEqual({
      endpoint: "https://huggingface.co",
      token: null,
      offline: false,
      cache: "/h/hub",
    });
    expect(hubSettings({ XDG_CACHE_HOME: "/x" }).cache).toBe("/x/huggingface/hub");
    expect(hubSettings({ HUGGINGFACE_HUB_CACHE: "/c" }).cache).toBe("/c");
    expect(hubSettings({ HF_HUB_CACHE: "/d", HUGGINGFACE_HUB_CACHE: "/c" }).cache).toBe("/d");
    expect(hubSettings({ HF_ENDPOINT: "https://mirror//" }).endpoint).toBe("https://mirror");
    expect(hubSettings({ HF_HUB_OFFLINE: "0" }).offline).toBe(false);
    expect(hubSettings({ HF_HUB_OFFLINE: "yes" }).offline).toBe(true);
  });

  test("the token's file, unless the variable is set", () => {
    withFiles({ token: "from file\n" }, (dir) => {
      expect(hubSettings({ HF_HOME: dir }).token).toBe("from file");
      expect(hubSettings({ HF_TOKEN_PATH: join(dir, "token"), HF_TOKEN: "own" }).token).toBe("own");
      expect(existsSync(join(dir, "token"))).toBe(true);
    });
  });

  test.each([
    ["meta-llama/Meta-Llama-3-8B", true],
    ["a/b", true],
    ["a", false],
    ["a/b/c", false],
    ["../x", false],
    ["a/..", false],
    ["a/b?c", false],
    ["/etc", false],
  ])("isRepositoryId(%j)", (text, expected) => {
    expect(isRepositoryId(text)).toBe(expected);
  });
});
