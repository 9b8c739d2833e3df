/**
 * The server through unmodified npm clients: `openai`, and `ai` with `@ai-sdk/openai-compatible`. Started by clients.ts:
 * node clients.mjs URL KEY NODE_MODULES. Every check prints a line; the first that fails ends the run with 1.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [url, key, modules] = process.argv.slice(2);
const base = `${url.replace(/\/$/, "")}/v1`;
const from = createRequire(join(resolve(modules), "clients.cjs"));
const load = async (name) => import(pathToFileURL(from.resolve(name)).href);
const version = (name) => JSON.parse(readFileSync(join(modules, name, "package.json"), "utf8")).version;
const { default: OpenAI, NotFoundError, BadRequestError, AuthenticationError } = await load("openai");
const { generateText, streamText } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

const messages = [{ role: "user", content: "Why is the sky blue?" }];
const sure = { model: "tiny", temperature: 0, max_tokens: 24 };

function check(name, holds, seen = "") {
  console.log(`${holds ? "ok    " : "FAILED"} ${name}${holds ? "" : `: ${JSON.stringify(seen)}`}`);
  if (!holds) process.exit(1);
}

async function refused(kind, call) {
  try {
    await call();
  } catch (error) {
    return error instanceof kind;
  }
  return false;
}

async function withOpenai() {
  const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0 });
  const chat = (more = {}) => client.chat.completions.create({ ...sure, messages, ...more });
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  check("openai models", models.join() === "tiny,fa,lora", models);
  const whole = await chat();
  const text = whole.choices[0].message.content;
  check("openai chat", whole.usage.completion_tokens <= 24 && text.length > 0, whole);
  let streamed = "";
  let usage = null;
  for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
    streamed += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  check("openai stream = whole answer", streamed === text, [streamed, text]);
  check("openai usage of a stream", usage?.completion_tokens === whole.usage.completion_tokens, usage);
  const helper = await client.chat.completions.stream({ ...sure, messages }).finalContent();
  check("openai stream helper", helper === text, helper);
  check("openai adapter by its name", (await chat({ model: "fa" })).choices[0].message.content !== text);
  const echoed = await client.completions.create({
    ...{ model: "tiny", prompt: "once upon", max_tokens: 0, echo: true, logprobs: 1 },
  });
  check("openai echo", echoed.choices[0].text === "once upon", echoed);
  const leaving = await chat({ stream: true, max_tokens: 200 });
  for await (const chunk of leaving) if (chunk.choices[0]?.delta.content) break;
  leaving.controller.abort();
  check("openai after a stream that was left", (await chat()).choices[0].message.content === text);
  check("openai 404", await refused(NotFoundError, () => chat({ model: "none" })));
  check("openai 400", await refused(BadRequestError, () => chat({ temperature: 9 })));
  const stranger = new OpenAI({ baseURL: base, apiKey: "wrong", maxRetries: 0 });
  check("openai 401", await refused(AuthenticationError, () => stranger.models.list()));
}

async function withAiSdk() {
  const provider = createOpenAICompatible({ name: "sbora", baseURL: base, apiKey: key, includeUsage: true });
  const wish = { prompt: messages[0].content, temperature: 0, maxOutputTokens: 24, maxRetries: 0 };
  const whole = await generateText({ ...wish, model: provider.chatModel("tiny") });
  check("ai-sdk generateText", whole.text.length > 0 && whole.usage.outputTokens <= 24, whole.usage);
  const stream = streamText({ ...wish, model: provider.chatModel("tiny") });
  let streamed = "";
  for await (const piece of stream.textStream) streamed += piece;
  check("ai-sdk stream = whole answer", streamed === whole.text, [streamed, whole.text]);
  const usage = await stream.usage;
  check("ai-sdk usage of a stream", usage.outputTokens === whole.usage.outputTokens, usage);
  const other = await generateText({ ...wish, model: provider.chatModel("fa") });
  check("ai-sdk adapter by its name", other.text !== whole.text, other.text);
  const legacy = await generateText({ ...wish, model: provider.completionModel("tiny") });
  check("ai-sdk completion model", legacy.text.length > 0, legacy.text);
  const error = await generateText({ ...wish, model: provider.chatModel("none") }).catch((e) => e);
  check("ai-sdk 404", error.statusCode === 404 && /does not exist/.test(error.message), `${error}`);
}

console.log(
  ["openai", "ai", "@ai-sdk/openai-compatible"].map((name) => `${name} ${version(name)}`).join(", "),
);
await withOpenai();
await withAiSdk();
