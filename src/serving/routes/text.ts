/** POST /tokenize, /detokenize, /apply-template: what the model really sees. */
import { readBody } from "../body.ts";
import type { Ctx, Serving } from "../context.ts";
import { badRequest } from "../errors.ts";
import { decodeIds, encodeTexts, renderChat } from "../prompt.ts";
import { detokenizeRequest, templateRequest, tokenizeRequest } from "../schema.ts";

export async function tokenize(serving: Serving, c: Ctx): Promise<Response> {
  const { prompt, add_special_tokens, parse_special } = await readBody(c, tokenizeRequest);
  const options = { bos: add_special_tokens ?? true, special: parse_special ?? false };
  const tokens = (await encodeTexts(serving, c, [prompt], options))[0]!;
  return c.json({
    count: tokens.length,
    max_model_len: serving.settings.context,
    tokens,
    token_strs: tokens.map((id) => serving.tokenizer.token(id) ?? ""),
  });
}

export async function detokenize(serving: Serving, c: Ctx): Promise<Response> {
  const { tokens } = await readBody(c, detokenizeRequest);
  const { vocabulary } = serving.settings;
  const bad = tokens.find((id) => id >= vocabulary);
  if (bad !== undefined)
    throw badRequest(`Token ${bad} is outside the vocabulary of ${vocabulary} tokens.`, "tokens");
  return c.json({ prompt: await decodeIds(serving, c, tokens) });
}

export async function applyTemplate(serving: Serving, c: Ctx): Promise<Response> {
  const body = await readBody(c, templateRequest);
  const { text, ids } = await renderChat(serving, c, body.messages, {
    addGenerationPrompt: body.add_generation_prompt ?? true,
    variables: body.chat_template_kwargs ?? {},
  });
  return c.json({ prompt: text, tokens: ids });
}
