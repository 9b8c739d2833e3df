import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "../errors.ts";
import { type DownloadOptions, differenceFrom, downloadFile } from "./download.ts";
import { someBytes, withFiles } from "./testing.ts";

const DATA = someBytes(300_000, 7);
const SHA256 = new Bun.CryptoHasher("sha256").update(DATA).digest("hex");
const BLOB = new Bun.CryptoHasher("sha1").update(`blob ${DATA.length}\0`).update(DATA).digest("hex");

interface Seen {
  readonly path: string;
  readonly range: string | null;
  readonly authorization: string | null;
}

let seen: Seen[] = [];
let broken = 0;

/** The file with Range support. */
function ranged(request: Request, data: Uint8Array = DATA): Response {
  const [, from] = /^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "") ?? [];
  if (from === undefined) return new Response(data.slice());
  const start = Number(from);
  if (start >= data.length) return new Response(null, { status: 416 });
  const headers = { "content-range": `bytes ${start}-${data.length - 1}/${data.length}` };
  return new Response(data.slice(start), { status: 206, headers });
}

/** A server that breaks the first two connections off after 10,000 bytes each and then sends everyone elsewhere. */
function serveBreaking() {
  return Bun.listen({
    port: 0,
    hostname: "localhost",
    socket: {
      data(socket, bytes) {
        const [, range = null, from = "0"] = /^range: (bytes=(\d+)-)/im.exec(bytes.toString()) ?? [];
        seen.push({ path: "/breaks", range, authorization: null });
        const start = Number(from);
        if (broken++ >= 2) {
          const location = `http://localhost:${first.port}/file`;
          socket.end(`HTTP/1.1 302 Found\r\nlocation: ${location}\r\ncontent-length: 0\r\n\r\n`);
          return;
        }
        const status =
          start > 0
            ? `206 Partial Content\r\ncontent-range: bytes ${start}-${DATA.length - 1}/${DATA.length}`
            : "200 OK";
        socket.write(`HTTP/1.1 ${status}\r\ncontent-length: ${DATA.length - start}\r\n\r\n`);
        socket.write(DATA.slice(start, start + 10_000));
        setTimeout(() => socket.end(), 30);
      },
    },
  });
}

const routes: Record<string, (request: Request) => Response | Promise<Response>> = {
  "/file": (request) => ranged(request),
  "/other": (request) => ranged(request, DATA.slice(0, -1)),
  "/no-range": () => new Response(DATA.slice()),
  "/moved": () => new Response(null, { status: 302, headers: { location: "/file" } }),
  "/elsewhere": () =>
    new Response(null, { status: 307, headers: { location: `http://localhost:${second.port}/file` } }),
  "/loop": () => new Response(null, { status: 301, headers: { location: "/loop" } }),
  "/missing": () => new Response("no", { status: 404 }),
  "/gated": () => new Response("no", { status: 403 }),
  "/busy": () => new Response("later", { status: 503 }),
  "/busy-once": (request) => (broken++ === 0 ? new Response("later", { status: 429 }) : ranged(request)),
  "/breaks": () =>
    new Response(null, { status: 302, headers: { location: `http://localhost:${breaking.port}/` } }),
  "/wrong-range": (request) => {
    const headers = { "content-range": `bytes 5-${DATA.length - 1}/${DATA.length}` };
    return request.headers.has("range")
      ? new Response(DATA.slice(5), { status: 206, headers })
      : ranged(request);
  },
  "/silent": () =>
    new Response(new ReadableStream({ start: (controller) => controller.enqueue(DATA.slice(0, 10)) })),
};

function serve() {
  return Bun.serve({
    port: 0,
    hostname: "localhost",
    fetch(request) {
      const { pathname } = new URL(request.url);
      const { headers } = request;
      seen.push({ path: pathname, range: headers.get("range"), authorization: headers.get("authorization") });
      return routes[pathname]?.(request) ?? new Response("no", { status: 404 });
    },
  });
}

let first: ReturnType<typeof serve>;
let second: ReturnType<typeof serve>;
let breaking: ReturnType<typeof serveBreaking>;

beforeAll(() => {
  first = serve();
  second = serve();
  breaking = serveBreaking();
});

afterAll(async () => {
  await first.stop(true);
  await second.stop(true);
  breaking.stop(true);
});

/** Downloads `path` into a folder with these files; the error's message, or null. */
async function get(
  path: string,
  files: Record<string, Uint8Array | string> = {},
  options: DownloadOptions = {},
): Promise<{ said: string; file: Uint8Array | null; partial: number | null; seen: Seen[] }> {
  seen = [];
  broken = 0;
  return withFiles(files, async (dir) => {
    const target = join(dir, "x");
    const partial = `${target}.incomplete`;
    let said = "";
    try {
      await downloadFile(`http://localhost:${first.port}${path}`, target, { retryDelayMs: 1, ...options });
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      said = error.message;
    }
    const read = (name: string): Uint8Array | null =>
      existsSync(name) ? new Uint8Array(readFileSync(name)) : null;
    return { said, file: read(target), partial: read(partial)?.length ?? null, seen };
  });
}

const expected = { bytes: DATA.length, sha256: SHA256 };

describe("downloadFile", () => {
  test("fetches, checks, renames, reports", async () => {
    const progress: [number, number | null][] = [];
    const got = await get("/file", {}, { expected, onProgress: (done, of) => progress.push([done, of]) });
    expect(got).toMatchObject({ said: "", partial: null });
    expect(got.file).toEqual(DATA);
    expect(progress.at(-1)).toEqual([DATA.length, DATA.length]);
  });

  test("git's hash", async () => {
    expect((await get("/file", {}, { expected: { gitBlob: BLOB } })).said).toBe("");
    const { said } = await get("/file", {}, { expected: { gitBlob: SHA256 } });
    expect(said).toMatch(/what was downloaded has the git blob hash [0-9a-f]{40}, expected/);
  });

  test("goes on where an earlier run ended", async () => {
    const got = await get("/file", { "x.incomplete": DATA.slice(0, 200_000) }, { expected });
    expect(got.seen).toEqual([{ path: "/file", range: "bytes=200000-", authorization: null }]);
    expect(got.file).toEqual(DATA);
  });

  test.each([
    ["a server without ranges starts anew", "/no-range", DATA.slice(0, 9)],
    ["a server that sends another range starts anew", "/wrong-range", DATA.slice(0, 9)],
    ["more than the file has is thrown away", "/file", new Uint8Array(DATA.length + 5)],
  ])("%s", async (_, path, partial) => {
    const got = await get(path, { "x.incomplete": partial }, { expected, attempts: 3 });
    if (path === "/wrong-range") expect(got.said).toMatch(/sent bytes from 5, not from 9/);
    else expect(got.file).toEqual(DATA);
  });

  test("everything was already here but the rename", async () => {
    const got = await get("/missing", { "x.incomplete": DATA }, { expected });
    expect(got.seen).toEqual([]);
    expect(got.file).toEqual(DATA);
  });

  test("a partial file longer than the server's is thrown away when no size is known", async () => {
    const got = await get(
      "/file",
      { "x.incomplete": new Uint8Array(DATA.length) },
      { expected: { sha256: SHA256 } },
    );
    expect(got.seen.map((s) => s.range)).toEqual([`bytes=${DATA.length}-`, null]);
    expect(got.file).toEqual(DATA);
  });

  test("a finished file that is right is left alone, another one is replaced", async () => {
    expect((await get("/file", { x: DATA }, { expected })).seen).toEqual([]);
    const got = await get("/file", { x: "old" }, { expected });
    expect(got.file).toEqual(DATA);
    expect((await get("/missing", { x: "mine" })).file).toEqual(new TextEncoder().encode("mine"));
  });

  test("a wrong hash throws the file away and leaves the older one", async () => {
    const got = await get("/file", { x: "old" }, { expected: { sha256: "0".repeat(64) } });
    expect(got.said).toMatch(
      /localhost.*\/file: what was downloaded has the SHA-256 [0-9a-f]{64}, expected 0{64}.*thrown away/,
    );
    expect(got.partial).toBeNull();
    expect(got.file).toEqual(new TextEncoder().encode("old"));
  });

  test("a file of the wrong length", async () => {
    const got = await get("/other", {}, { expected: { bytes: DATA.length }, attempts: 2 });
    expect(got.said).toMatch(/fewer bytes|has 299999 bytes, expected 300000/);
    expect(got.file).toBeNull();
  });

  test("broken connections are taken up again, bytes are never lost", async () => {
    const got = await get("/breaks", {}, { expected });
    expect(got.said).toBe("");
    expect(got.file).toEqual(DATA);
    const ranges = got.seen.filter((s) => s.path === "/breaks" && s.range !== null).map((s) => s.range);
    expect(ranges).toContain("bytes=10000-");
    expect(ranges).toContain("bytes=20000-");
  });

  test("a busy server is asked again, but not for ever", async () => {
    expect((await get("/busy-once", {}, { expected })).file).toEqual(DATA);
    const got = await get("/busy", {}, { attempts: 3 });
    expect(got.seen).toHaveLength(3);
    expect(got.said).toMatch(/breaks off \(status 503\)\. Check the network/);
  });

  test("a silent server", async () => {
    const got = await get("/silent", {}, { attempts: 1, idleMs: 50, expected });
    expect(got.said).toMatch(/no byte came for 0\.05 s.*The 10 bytes so far are kept/);
    expect(got.partial).toBe(10);
  });

  test("no server", async () => {
    await withFiles({}, async (dir) => {
      const failing = downloadFile("http://localhost:1/x", join(dir, "x"), { attempts: 2, retryDelayMs: 1 });
      expect(failing).rejects.toThrow(/http:\/\/localhost:1\/x: the server cannot be reached/);
      await failing.catch(() => null);
    });
  });

  test.each([
    ["/missing", /status 404, expected 200\. There is no such file or repository/],
    ["/gated", /status 403, expected 200\. Access needs a token.*HF_TOKEN/],
    ["/loop", /more than 5 redirects/],
  ])("%s is final", async (path, message) => {
    const got = await get(path);
    expect(got.said).toMatch(message);
    expect(got.said).toContain(path);
    expect(got.file).toBeNull();
  });

  test("the token follows a redirect on the same server only", async () => {
    const headers = { authorization: "Bearer secret" };
    const same = await get("/moved", {}, { headers, expected });
    expect(same.seen.map((s) => s.authorization)).toEqual(["Bearer secret", "Bearer secret"]);
    const other = await get("/elsewhere", { "x.incomplete": DATA.slice(0, 4) }, { headers, expected });
    expect(other.seen.map((s) => s.authorization)).toEqual(["Bearer secret", null]);
    expect(other.seen.map((s) => s.range)).toEqual(["bytes=4-", "bytes=4-"]);
    expect(other.file).toEqual(DATA);
  });

  test("a folder that cannot be made", async () => {
    const failing = downloadFile(`http://localhost:${first.port}/file`, "/proc/no/x");
    expect(failing).rejects.toThrow(InputError);
    await failing.catch(() => null);
  });
});

test("differenceFrom", () =>
  withFiles({ x: "abc" }, (dir) => {
    const path = join(dir, "x");
    // `echo -n abc | git hash-object --stdin`
    expect(
      differenceFrom(path, { gitBlob: "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f", bytes: 3 }),
    ).toBeNull();
    expect(differenceFrom(path, {})).toBeNull();
    expect(differenceFrom(path, { bytes: 4 })).toBe("has 3 bytes, expected 4");
    writeFileSync(path, "");
    // git's hash of an empty file
    expect(differenceFrom(path, { gitBlob: "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" })).toBeNull();
  }));
