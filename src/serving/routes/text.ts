/** POST /tokenize, /detokenize, /apply-template: what the model really sees. */
import { readBody } from "../body.ts";
import type { Ctx, Serving } from "../context.ts";
import { badRequest } from "../errors.ts";
import { encodeText, renderChat } from "../prompt.ts";
import { detokenizeRequest, templateRequest, tokenizeRequest } from "../schema.ts";

export async function tokenize(serving: Serving, c: Ctx): Promise<Response> {
  const { prompt, add_special_tokens, parse_special } = await readBody(c, tokenizeRequest);
  const options = { bos: add_special_tokens ?? true, special: parse_special ?? false };
  const tokens = encodeText(serving, prompt, options);
  return c.json({
    count: tokens.length,
    max_model_len: serving.settings.context,
    tokens,
    token_strs: tokens.map((id) => serving.tokenizer.token(id) ?? ""),
  });
}

export async function detokenize({ tokenizer, settings }: Serving, c: Ctx): Promise<Response> {
  const { tokens } = await readBody(c, detokenizeRequest);
  const bad = tokens.find((id) => id >= settings.vocabulary);
  if (bad !== undefined)
    throw badRequest(`Token ${bad} is outside the vocabulary of ${settings.vocabulary} tokens.`, "tokens");
  return c.json({ prompt: tokenizer.decode(tokens) });
}

export async function applyTemplate(serving: Serving, c: Ctx): Promise<Response> {
  const body = await readBody(c, templateRequest);
  const { text, ids } = renderChat(serving, body.messages, {
    addGenerationPrompt: body.add_generation_prompt ?? true,
    variables: body.chat_template_kwargs ?? {},
  });
  return c.json({ prompt: text, tokens: ids });
}
