/** Messages and texts to token ids. What a user writes stays text: special tokens in it are spelt out (settled 29). */
import { basename } from "node:path";
import type { z } from "zod";
import { InputError } from "../errors.ts";
import {
  type ChatMessage,
  type ChatOptions,
  type ChatTemplate,
  type RenderedChat,
  TemplateTimeout,
} from "../text/chat-template.ts";
import { type Ctx, keepOpen, type Serving } from "./context.ts";
import { badRequest } from "./errors.ts";
import type { chatMessage } from "./schema.ts";
import { runTextJob, type TextJob, type TextResult } from "./text-job.ts";

type Message = z.infer<typeof chatMessage>;

/** Characters of a job that this thread does itself: at the worst some tens of milliseconds. */
const SHORT = 4096;
/** Processor time that a template gets on this thread; those of models that people use take a few milliseconds. */
const TEMPLATE_MS = 50;
/** Foreign code that took longer once: from then on it runs where it holds up nobody's request. */
const slowTemplates = new WeakSet<ChatTemplate>();

/** @throws ApiError when the model has no template, or the template refuses the messages */
export async function renderChat(
  serving: Serving,
  c: Ctx,
  messages: readonly Message[],
  options: ChatOptions,
): Promise<RenderedChat> {
  const { template } = serving;
  if (!template) {
    throw badRequest(
      "This model has no chat template, and the server does not guess one; use /v1/completions.",
      "messages",
      "no_chat_template",
    );
  }
  try {
    const job: TextJob = { kind: "chat", messages: messages.map(templateMessage), options };
    const { text, ids } = await run(serving, c, job);
    return { text, ids: [...ids[0]!] };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    // Where the model lies is nobody's business who asks over the network.
    throw badRequest(error.message.replaceAll(template.path, basename(template.path)), "messages");
  }
}

function templateMessage({ role, content, ...extra }: Message): ChatMessage {
  const text = Array.isArray(content) ? content.map((part) => part.text).join("\n") : (content ?? "");
  // OpenAI's newer name of the same thing, which templates do not know.
  return { ...extra, role: role === "developer" ? "system" : role, content: text };
}

/** @returns ids, a list a text */
export async function encodeTexts(
  serving: Serving,
  c: Ctx,
  texts: readonly string[],
  { bos = true, special = false }: { readonly bos?: boolean; readonly special?: boolean } = {},
): Promise<readonly (readonly number[])[]> {
  return (await run(serving, c, { kind: "encode", texts, bos, special })).ids;
}

export async function decodeIds(serving: Serving, c: Ctx, ids: readonly number[]): Promise<string> {
  return (await run(serving, c, { kind: "decode", ids })).text;
}

async function run(serving: Serving, c: Ctx, job: TextJob): Promise<TextResult> {
  const result = runHere(serving, job);
  if (result) return result;
  keepOpen(c);
  const { signal } = c.req.raw;
  const later = await serving.longTexts.run(job, signal);
  // Its end was told before anybody listened.
  if (signal.aborted) throw badRequest("The client has gone.", null, "client_closed");
  return later;
}

/** What is short is done at once; null: it is not, or its template is not. */
function runHere(serving: Serving, job: TextJob): TextResult | null {
  const { template } = serving;
  if (JSON.stringify(job).length > SHORT) return null;
  if (job.kind !== "chat" || !template) return runTextJob(serving, job);
  if (slowTemplates.has(template)) return null;
  try {
    return runTextJob(serving, job, TEMPLATE_MS);
  } catch (error) {
    if (!(error instanceof TemplateTimeout)) throw error;
    slowTemplates.add(template);
    return null;
  }
}
