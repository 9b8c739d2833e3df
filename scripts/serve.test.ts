/** The command from start to SIGTERM on the tiny model. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildLibrary } from "../src/native/build.ts";
import { writeTinyModel } from "../src/training/testing.ts";

setDefaultTimeout(60_000);

const root = mkdtempSync(join(tmpdir(), "sbora-serve-"));
const model = join(root, "tiny");
await buildLibrary("cpu");
writeTinyModel(model);
afterAll(() => rmSync(root, { recursive: true }));

function serve(...flags: string[]): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  return serveWith({}, ...flags);
}

function serveWith(
  variables: Readonly<Record<string, string>>,
  ...flags: string[]
): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  const script = join(import.meta.dir, "serve.ts");
  const command = [process.execPath, "run", script, ...flags];
  const env = { ...process.env, ...variables };
  return Bun.spawn(command, { env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
}

/** Where it listens, once it is ready. */
async function urlOf(server: Bun.Subprocess<"ignore", "pipe", "pipe">): Promise<string> {
  let told = "";
  for await (const piece of server.stderr) {
    told += new TextDecoder().decode(piece);
    if (told.includes("Ready")) break;
  }
  return /http:\/\/\S+/.exec(told)![0];
}

test("serves until SIGTERM, logs JSON lines without text, and exits with 0", async () => {
  const server = serve("--model", model, "--port", "0", "--context", "128");
  const url = await urlOf(server);
  const body = JSON.stringify({ model: "tiny", prompt: "confidential", max_tokens: 3 });
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(new URL("/v1/completions", url), { method: "POST", headers, body });
  expect(response.status).toBe(200);
  expect(await response.json()).toMatchObject({
    model: "tiny",
    usage: { completion_tokens: expect.any(Number) },
  });
  server.kill("SIGTERM");
  expect(await server.exited).toBe(0);
  const lines = (await new Response(server.stdout).text()).trim().split("\n");
  const records = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(records[0]).toMatchObject({ path: "/v1/completions", status: 200, model: "tiny" });
  expect(lines.join()).not.toContain("confidential");
});

test("Ctrl-C lets a running answer end; once more, and the server ends at once", async () => {
  for (const times of [1, 2]) {
    const server = serve("--model", model, "--port", "0", "--context", "1024");
    let told = "";
    let answer: Promise<string> | null = null;
    let interrupted = 0;
    for await (const piece of server.stderr) {
      told += new TextDecoder().decode(piece);
      if (!answer && told.includes("Ready")) {
        const body = { model: "tiny", prompt: "x", max_tokens: 1000, ignore_eos: true, stream: true };
        const headers = { "Content-Type": "application/json" };
        const url = new URL("/v1/completions", /http:\/\/\S+/.exec(told)![0]);
        const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
        answer = response.text().catch(() => "cut");
        server.kill("SIGINT");
        interrupted = 1;
      } else if (interrupted === 1 && times === 2 && told.includes("SIGINT")) {
        server.kill("SIGINT");
        interrupted = 2;
      }
    }
    expect([await server.exited, (await answer!).includes("[DONE]")]).toEqual(
      times === 1 ? [0, true] : [130, false],
    );
  }
});

test("takes keys from the environment with blanks around them, and never none for some", async () => {
  const flags = ["--model", model, "--port", "0"];
  const server = serveWith({ SBORA_API_KEY: "first, second" }, ...flags);
  const url = new URL("/v1/models", await urlOf(server));
  const status = async (headers: Record<string, string>): Promise<number> =>
    (await fetch(url, { headers })).status;
  for (const key of ["first", "second"]) expect(await status({ Authorization: `Bearer ${key}` })).toBe(200);
  expect(await status({})).toBe(401);
  server.kill("SIGTERM");
  expect(await server.exited).toBe(0);
  const open = serveWith({ SBORA_API_KEY: " ," }, ...flags);
  const gone = await Promise.race([open.exited, Bun.sleep(20_000)]);
  open.kill();
  expect(gone).toBe(1);
  expect(await new Response(open.stderr).text()).toContain("SBORA_API_KEY holds no key");
});

test("says what is wrong with flags and folders, and exits with 1", async () => {
  for (const [flags, words] of [
    [["--model", join(root, "none")], "config.json"],
    [["--model", model, "--adapters", join(root, "none")], "no such folder"],
    [["--model", model, "--context", "4096"], "1024 positions"],
    [["--model", model, "--context", "64", "--kv-tokens", "32"], "--kv-tokens"],
    [["--model", model, "--mode", "both"], "--mode"],
  ] as const) {
    const server = serve(...flags);
    expect(await server.exited).toBe(1);
    expect(await new Response(server.stderr).text()).toContain(words);
  }
});
