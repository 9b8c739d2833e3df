/** What the routes take and give, as zod schemas: the only source, for checking and for /openapi.json alike. */
import { z } from "zod";
import { MAX_LOGPROBS } from "./protocol.ts";

const MAX_CHOICES = 16;
const MAX_STOPS = 16;
const MAX_STOP_CHARACTERS = 256;
const MAX_PROMPTS = 64;
const MAX_BIASES = 1024;
const MAX_MESSAGES = 2048;
const MAX_TOKENS = 1 << 20;

/** /openapi.json puts the vocabulary's last id in its place. */
export const MAX_TOKEN_ID = 2 ** 31 - 1;
/** No separators and no leading dot: an adapter's name never leaves the adapter folder. */
export const ADAPTER_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

const tokenId = z.int().min(0).max(MAX_TOKEN_ID);
const tokenIds = z.array(tokenId).max(MAX_TOKENS);
/** Marks the field whose values /openapi.json lists. */
export const MODEL_NAMES = "Name of the base model or of an adapter, as /v1/models lists them";
/** Marks texts that must not be empty where the model puts no token in front. */
export const PROMPT_TEXT = "Text to continue";

const adapterName = z.string().regex(ADAPTER_NAME);

/** Shared by chat and completions. Fields this server does not know are ignored. */
const sampling = {
  model: z.string().min(1).max(128).describe(MODEL_NAMES),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  n: z.int().min(1).max(MAX_CHOICES).nullish(),
  stop: z
    .union([
      z.string().min(1).max(MAX_STOP_CHARACTERS),
      z.array(z.string().min(1).max(MAX_STOP_CHARACTERS)).max(MAX_STOPS),
    ])
    .nullish(),
  stop_token_ids: z.array(tokenId).max(MAX_STOPS).nullish(),
  ignore_eos: z.boolean().nullish(),
  seed: z.int().nullish(),
  temperature: z.number().min(0).max(2).nullish().describe("Default 1; 0 is greedy"),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(-1).max(MAX_TOKENS).nullish().describe("0 or -1: all tokens"),
  min_p: z.number().min(0).max(1).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  repetition_penalty: z.number().min(0.01).max(10).nullish(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,9}$/), z.number().min(-100).max(100))
    .refine((biases) => Object.keys(biases).length <= MAX_BIASES, `at most ${MAX_BIASES} tokens`)
    .nullish(),
};

const contentPart = z.looseObject({ type: z.literal("text"), text: z.string() });

export const chatMessage = z.looseObject({
  role: z.string().min(1).max(64),
  content: z.union([z.string(), z.array(contentPart).max(MAX_MESSAGES)]).nullish(),
});

const messages = z.array(chatMessage).min(1).max(MAX_MESSAGES);
const templateVariables = z.record(z.string(), z.unknown());

/** For /openapi.json, which cannot know what a route checks itself. */
const someTokens = { minItems: 1 };
const topNeedsLogprobs = {
  anyOf: [
    { properties: { logprobs: { const: true } }, required: ["logprobs"] },
    { properties: { top_logprobs: { type: "null" } } },
  ],
};
const promptText = z.string().describe(PROMPT_TEXT);

const chatFields = z.looseObject({
  ...sampling,
  messages,
  max_tokens: z.int().min(1).max(MAX_TOKENS).nullish(),
  max_completion_tokens: z.int().min(1).max(MAX_TOKENS).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(MAX_LOGPROBS).nullish(),
  chat_template_kwargs: templateVariables.nullish(),
});
export const chatRequest = chatFields.meta(topNeedsLogprobs);

export const completionRequest = z.looseObject({
  ...sampling,
  prompt: z.union([
    promptText,
    tokenIds.meta(someTokens),
    z.array(promptText).max(MAX_PROMPTS).meta(someTokens),
    z.array(tokenIds.meta(someTokens)).max(MAX_PROMPTS).meta(someTokens),
  ]),
  max_tokens: z.int().min(0).max(MAX_TOKENS).nullish().describe("Default 16; 0 with echo scores the prompt"),
  logprobs: z.int().min(0).max(MAX_LOGPROBS).nullish(),
  echo: z.boolean().nullish(),
  parse_special: z
    .boolean()
    .nullish()
    .describe("Special tokens written in a text prompt become control tokens; default false"),
});

export const tokenizeRequest = z.looseObject({
  prompt: z.string(),
  add_special_tokens: z.boolean().nullish().describe("BOS in front where the model has one; default true"),
  parse_special: z.boolean().nullish(),
});
export const detokenizeRequest = z.looseObject({ tokens: tokenIds });
export const templateRequest = z.looseObject({
  messages,
  add_generation_prompt: z.boolean().nullish(),
  chat_template_kwargs: templateVariables.nullish(),
});
export const loadRequest = z.looseObject({
  lora_name: adapterName,
  lora_path: z.string().nullish().describe("Ignored but for its last part, which must be the name"),
});
export const unloadRequest = z.looseObject({ lora_name: adapterName });

export type ChatRequest = z.infer<typeof chatRequest>;
export type CompletionRequest = z.infer<typeof completionRequest>;
/** What both have. */
export type SamplingFields = Pick<ChatRequest, keyof typeof sampling>;

// Answers

const finishReason = z.enum(["stop", "length"]).nullable();
const usage = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.object({ cached_tokens: z.int() }),
});
const tokenLogprob = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()).nullable() });
const chatLogprobs = z.object({
  content: z.array(tokenLogprob.extend({ top_logprobs: z.array(tokenLogprob) })),
  refusal: z.null(),
});
const completionLogprobs = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
  text_offset: z.array(z.int()),
});
const head = { id: z.string(), created: z.int(), model: z.string(), system_fingerprint: z.string() };

export const chatResponse = z.object({
  ...head,
  object: z.literal("chat.completion"),
  choices: z.array(
    z.object({
      index: z.int(),
      message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null() }),
      logprobs: chatLogprobs.nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage,
});
export const chatChunk = z.object({
  ...head,
  object: z.literal("chat.completion.chunk"),
  choices: z.array(
    z.object({
      index: z.int(),
      delta: z.object({ role: z.literal("assistant").optional(), content: z.string().optional() }),
      logprobs: chatLogprobs.nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage: usage.nullish(),
});
const completionChoice = z.object({
  index: z.int(),
  text: z.string(),
  logprobs: completionLogprobs.nullable(),
  finish_reason: finishReason,
});
export const completionResponse = z.object({
  ...head,
  object: z.literal("text_completion"),
  choices: z.array(completionChoice),
  usage: usage.nullish(),
});
export const modelCard = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  root: z.string(),
  parent: z.string().nullable(),
  max_model_len: z.int(),
});
export const modelList = z.object({ object: z.literal("list"), data: z.array(modelCard) });
export const adapterCard = z.object({
  name: z.string(),
  loaded: z.boolean(),
  method: z.string().nullable(),
  rank: z.int().nullable(),
  modules: z.int().nullable(),
  bytes: z.int().nonnegative().nullable(),
  sha256: z.string().nullable(),
  note: z.string().nullable().describe("What speaks against it: trained on other bits of this base"),
});
export const adapterList = z.object({ object: z.literal("list"), data: z.array(adapterCard) });
export const deletedAdapter = z.object({ name: z.string(), deleted: z.literal(true) });
export const tokenizeResponse = z.object({
  count: z.int(),
  max_model_len: z.int(),
  tokens: z.array(z.int()),
  token_strs: z.array(z.string()),
});
export const detokenizeResponse = z.object({ prompt: z.string() });
export const templateResponse = z.object({ prompt: z.string(), tokens: z.array(z.int()) });
export const healthResponse = z.object({ status: z.literal("ok") });
export const errorResponse = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});

export type Usage = z.infer<typeof usage>;
export type ChatLogprobs = z.infer<typeof chatLogprobs>;
export type CompletionLogprobs = z.infer<typeof completionLogprobs>;
export type ChatResponse = z.infer<typeof chatResponse>;
export type ChatChunk = z.infer<typeof chatChunk>;
export type CompletionResponse = z.infer<typeof completionResponse>;
export type ModelCard = z.infer<typeof modelCard>;
export type AdapterCard = z.infer<typeof adapterCard>;
