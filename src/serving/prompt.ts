/** Messages and texts to token ids. What a user writes stays text: special tokens in it are spelt out (settled 29). */
import type { z } from "zod";
import type { ChatMessage, RenderedChat } from "../text/chat-template.ts";
import type { Serving } from "./context.ts";
import { badRequest } from "./errors.ts";
import type { chatMessage } from "./schema.ts";

type Message = z.infer<typeof chatMessage>;

export interface RenderOptions {
  readonly addGenerationPrompt?: boolean;
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** @throws ApiError when the model has no template; InputError when the template refuses the messages */
export function renderChat(
  { template }: Serving,
  messages: readonly Message[],
  { addGenerationPrompt = true, variables = {} }: RenderOptions = {},
): RenderedChat {
  if (!template) {
    throw badRequest(
      "This model has no chat template, and the server does not guess one; use /v1/completions.",
      "messages",
      "no_chat_template",
    );
  }
  return template.render(messages.map(templateMessage), { addGenerationPrompt, variables });
}

function templateMessage({ role, content, ...extra }: Message): ChatMessage {
  const text = Array.isArray(content) ? content.map((part) => part.text).join("\n") : (content ?? "");
  // OpenAI's newer name of the same thing, which templates do not know.
  return { ...extra, role: role === "developer" ? "system" : role, content: text };
}

export function encodeText(
  { tokenizer }: Serving,
  text: string,
  { bos = true, special = false }: { readonly bos?: boolean; readonly special?: boolean } = {},
): number[] {
  if (special) return bos ? tokenizer.encode(text) : tokenizer.encodeWithoutBos(text);
  const plain = tokenizer.encodePlain(text);
  return bos && tokenizer.bosId !== null ? [tokenizer.bosId, ...plain] : plain;
}
