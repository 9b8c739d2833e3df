/** Long texts keep nobody waiting, and come out as short ones do. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { InputError } from "../errors.ts";
import { loadChatTemplate } from "../text/chat-template.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { ApiError } from "./errors.ts";
import { createLongTexts, type LongTexts } from "./long-texts.ts";
import { type TinyApp, type TinyFolders, tinyApp, tinyFolders } from "./testing-app.ts";
import { runTextJob, type TextJob } from "./text-job.ts";

setDefaultTimeout(120_000);

let folders: TinyFolders;
let app: TinyApp;
let texts: LongTexts;
beforeAll(async () => {
  folders = await tinyFolders();
  app = tinyApp(folders, { settings: { maxBodyBytes: 1 << 20 } });
  texts = createLongTexts(folders.model);
  await app.ready;
});
afterAll(async () => {
  texts.close();
  await app.close();
  folders.remove();
});

const stay = new AbortController().signal;
const messages = [{ role: "user", content: "Hello <|end|> there" }];
const jobs: TextJob[] = [
  { kind: "encode", texts: ["a<|end|>b", "", "ü"], bos: true, special: false },
  { kind: "encode", texts: ["a<|end|>b"], bos: false, special: true },
  { kind: "decode", ids: [99, 100, 0, 101] },
  { kind: "chat", messages, options: { addGenerationPrompt: true, variables: {} } },
];

describe("the thread of long texts", () => {
  test("does what this thread does", async () => {
    const tokenizer = loadTokenizer(folders.model);
    const tools = { tokenizer, template: loadChatTemplate(folders.model, tokenizer) };
    const results = await Promise.all(jobs.map((job) => texts.run(job, stay)));
    expect(results).toEqual(jobs.map((job) => runTextJob(tools, job)));
  });

  test("passes on what a template refuses, and goes on", async () => {
    const bad: TextJob = { kind: "chat", messages: [{ role: "user", content: "x" }], options: {} };
    const strict = await tinyFolders();
    await Bun.write(`${strict.model}/chat_template.jinja`, "{{ raise_exception('never') }}");
    const own = createLongTexts(strict.model);
    for (let i = 0; i < 2; i++) {
      // not `rejects`, which waits inside the Worker's last message and so lets no other through
      const error = await own.run(bad, stay).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(InputError);
      expect((await own.run(jobs[2]!, stay)).text).not.toBe("");
    }
    own.close();
    strict.remove();
  });

  test("has a queue with an end", async () => {
    const job = jobs[2]!;
    const answers = await Promise.allSettled(Array.from({ length: 40 }, () => texts.run(job, stay)));
    const refused = answers.filter(({ status }) => status === "rejected");
    // one is being done, 32 wait
    expect(refused).toHaveLength(7);
    expect((refused[0] as PromiseRejectedResult).reason).toMatchObject({ status: 429, code: "queue_full" });
  });

  test("ends when it has nothing to do, and comes back", async () => {
    const own = createLongTexts(folders.model, 20_000, 1);
    for (let i = 0; i < 3; i++) {
      expect((await own.run(jobs[2]!, stay)).text).not.toBe("");
      await Bun.sleep(20);
    }
    own.close();
  });

  test("is given up after its time, and the next text gets a new one", async () => {
    const own = createLongTexts(folders.model, 1);
    const text = "no space ".repeat(200_000);
    const long: TextJob = { kind: "encode", texts: [text], bos: true, special: false };
    const error = await own.run(long, stay).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ status: 400, code: "text_too_long" });
    own.close();
    const patient = createLongTexts(folders.model);
    const left = AbortSignal.abort();
    const [gone, answer] = await Promise.allSettled([patient.run(long, left), patient.run(jobs[2]!, stay)]);
    expect(gone.status).toBe("rejected");
    expect(answer).toMatchObject({ status: "fulfilled", value: { text: expect.any(String) } });
    patient.close();
  });
});

describe("while a megabyte is tokenized", () => {
  test("others are answered, and then it is", async () => {
    // the thread starts with the first long text
    await app.ask("/tokenize", { prompt: "x".repeat(5000) });
    const prompt = "many words ".repeat(90_000);
    let done = false;
    const long = app.ask("/v1/completions", { model: "tiny", prompt, max_tokens: 1 }).then((response) => {
      done = true;
      return response;
    });
    let asked = 0;
    let longest = 0;
    while (!done) {
      const start = performance.now();
      expect((await app.ask("/health")).status).toBe(200);
      longest = Math.max(longest, performance.now() - start);
      asked++;
      await Bun.sleep(1);
    }
    const { error } = (await (await long).json()) as { error: { message: string; code: string } };
    expect(error.code).toBe("context_length_exceeded");
    expect(error.message).toContain("at most 512 tokens");
    expect(asked).toBeGreaterThan(20);
    expect(longest).toBeLessThan(1000);
  });

  test("the same ids come from both threads, whole prompts as lists", async () => {
    const piece = "The moon <|end|> rises. ";
    const ids = async (prompt: string): Promise<number[]> => {
      const response = await app.ask("/tokenize", { prompt });
      return ((await response.json()) as { tokens: number[] }).tokens;
    };
    const short = await ids(piece);
    expect(await ids(piece.repeat(400))).toEqual(Array.from({ length: 400 }, () => short).flat());
  });
});

test("an adapter that goes, or comes anew, while a prompt for it is tokenized: 404, or the new one's answer", async () => {
  const own = tinyApp(folders);
  await own.ready;
  // long jobs, short prompts
  const texts = { model: "fa", prompt: Array.from({ length: 20 }, () => "a".repeat(250)), max_tokens: 1 };
  const variables = { padding: "a".repeat(5000) };
  const chat = { model: "fa", messages, max_tokens: 1, chat_template_kwargs: variables };
  for (const [method, status] of [
    ["PUT", 200],
    ["DELETE", 404],
  ] as const) {
    const asked = [own.ask("/v1/completions", texts), own.ask("/v1/chat/completions", chat)];
    expect((await own.ask("/v1/adapters/fa", undefined, { method })).status).toBe(200);
    expect((await Promise.all(asked)).map((response) => response.status)).toEqual([status, status]);
  }
  const base = await own.ask("/v1/completions", { model: "tiny", prompt: "hi", max_tokens: 1 });
  expect(base.status).toBe(200);
  await own.close();
});

test("a chat template without an end keeps the one who asks waiting, and nobody else", async () => {
  const hostile = await tinyFolders();
  const endless = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
  await Bun.write(`${hostile.model}/chat_template.jinja`, endless);
  const own = tinyApp(hostile);
  await own.ready;
  const chat = { model: "tiny", messages: [{ role: "user", content: "x" }], max_tokens: 1 };
  for (let i = 0; i < 2; i++) {
    let answer: Response | null = null;
    const asked = own.ask("/v1/chat/completions", chat).then((response) => {
      answer = response;
    });
    let longest = 0;
    while (!answer) {
      const start = performance.now();
      expect((await own.ask("/health")).status).toBe(200);
      await Bun.sleep(1);
      longest = Math.max(longest, performance.now() - start);
    }
    await asked;
    expect((answer as Response).status).toBe(400);
    expect(await (answer as Response).text()).toContain("chat_template ran for 2000 ms");
    // 50 ms on the thread of all requests, once; the machine may have other things to do.
    expect(longest).toBeLessThan(1000);
  }
  await own.close();
  hostile.remove();
});
