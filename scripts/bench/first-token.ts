/** Started by start.ts: opens a model folder and answers the first token behind a short prompt of ids. */
import { InputError } from "../../src/errors.ts";
import { generate } from "../../src/generation/decode.ts";
import { loadLlama } from "../../src/model/model.ts";
import { openDevice } from "../../src/native/device.ts";
import { fixedTokens } from "./batch.ts";

const PROMPT_TOKENS = 6;

const [dir, compute] = process.argv.slice(2);
if (dir === undefined || (compute !== "f32" && compute !== "bf16"))
  throw new InputError("usage: first-token.ts DIR f32|bf16");
const model = loadLlama(await openDevice(), dir, { compute, positions: PROMPT_TOKENS + 1 });
const prompt = [...fixedTokens(PROMPT_TOKENS, model.config.vocabSize, 1)];
const [tokens] = await generate(model, [prompt], { beams: 1, maxNewTokens: 1, eosIds: [] });
console.log(`${tokens![0]}`);
