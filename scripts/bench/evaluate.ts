/** Target 4, what an evaluation needs: beams share their prompt and one batch, prompts decode together, options share a context. */
import { generate } from "../../src/generation/decode.ts";
import { scoreContinuations } from "../../src/generation/likelihood.ts";
import { freeLlama, type Llama } from "../../src/model/model.ts";
import { fixedTokens } from "./batch.ts";
import { checkInference } from "./check.ts";
import { type Bench, benchModel, computesOf, loadBenchModel, roundsOf } from "./context.ts";
import { interleave } from "./interleave.ts";
import { addFigure, addTarget, type Report } from "./report.ts";

const ROUNDS = 5;
const BEAMS = 4;
/** Four-beam search over four decodes one after the other. */
const BEAMS_TARGET = 3;
const OPTIONS = 4;
const OPTION_TOKENS = 4;

interface Sizes {
  readonly prompts: number;
  readonly promptTokens: number;
  readonly newTokens: number;
  /** Of a question with its shots in front. */
  readonly context: number;
}

const USUAL: Sizes = { prompts: 32, promptTokens: 96, newTokens: 32, context: 480 };
const QUICK: Sizes = { prompts: 4, promptTokens: 24, newTokens: 4, context: 48 };

export async function benchEvaluate(bench: Bench): Promise<void> {
  const { options, device, report } = bench;
  const of = benchModel(bench);
  const sizes = options.quick ? QUICK : USUAL;
  const positions = Math.max(sizes.context + OPTION_TOKENS, 2 * sizes.promptTokens + sizes.newTokens);
  for (const compute of computesOf(bench, ["bf16"])) {
    bench.say(`evaluate: ${of.name} ${compute}`);
    await checkInference(report, device, of.config, compute);
    const model = loadBenchModel(device, of, compute, positions);
    try {
      await measure(bench, model, `evaluate.${of.name}.${compute}`, sizes);
    } finally {
      freeLlama(model);
    }
  }
}

async function measure(bench: Bench, model: Llama, name: string, sizes: Sizes): Promise<void> {
  const { report } = bench;
  const { vocabSize } = model.config;
  // Uneven lengths around promptTokens.
  const prompts = Array.from({ length: sizes.prompts }, (_, i) => [
    ...fixedTokens(Math.ceil(sizes.promptTokens * (0.5 + ((i * 7) % 16) / 16)), vocabSize, i),
  ]);
  const [one] = prompts as [number[]];
  const beams = (list: number[][], count: number, concurrency: number) => (): Promise<number[][]> =>
    generate(model, list, { beams: count, maxNewTokens: sizes.newTokens, eosIds: [], concurrency });
  await sameAnswers(report, name, beams(prompts.slice(0, 4), BEAMS, 4), prompts.slice(0, 4), beams);

  const perSecond = (rows: number, body: () => Promise<unknown>) => async (): Promise<number> => {
    const start = performance.now();
    await body();
    return rows / ((performance.now() - start) / 1000);
  };
  const rows = BEAMS * sizes.newTokens;
  const separate = async (): Promise<void> => {
    for (let i = 0; i < BEAMS; i++) await beams([one], 1, 1)();
  };
  const context = [...fixedTokens(sizes.context, vocabSize, 5)];
  const continuations = Array.from({ length: OPTIONS }, (_, i) => [
    ...fixedTokens(OPTION_TOKENS, vocabSize, 9 + i),
  ]);
  const results = await interleave<number>(
    [
      { name: "4-beams", run: perSecond(rows, beams([one], BEAMS, 1)) },
      { name: "4-decodes", run: perSecond(rows, separate) },
      { name: "together", run: perSecond(prompts.length, beams(prompts, BEAMS, 32)) },
      { name: "one-by-one", run: perSecond(prompts.length, beams(prompts, BEAMS, 1)) },
      {
        name: "shared-context",
        run: perSecond(1, () => scoreContinuations(model, [{ context, continuations }])),
      },
      {
        name: "own-contexts",
        run: perSecond(1, () =>
          scoreContinuations(
            model,
            continuations.map((c) => ({ context, continuations: [c] })),
          ),
        ),
      },
    ],
    roundsOf(bench, ROUNDS),
  );
  const units: Record<string, string> = {
    "4-beams": "tokens/s",
    "4-decodes": "tokens/s",
    together: "prompts/s",
    "one-by-one": "prompts/s",
    "shared-context": "questions/s",
    "own-contexts": "questions/s",
  };
  for (const [contender, samples] of results)
    addFigure(report, `${name}.${contender}`, units[contender]!, samples);
  addTarget(report, {
    name: `${name}.4-beams`,
    unit: "tokens/s",
    ours: results.get("4-beams")!,
    peer: { name: "4-decodes", samples: results.get("4-decodes")! },
    bound: { least: BEAMS_TARGET },
  });
}

/** What is batched for speed answers as what is not. */
async function sameAnswers(
  report: Report,
  name: string,
  together: () => Promise<number[][]>,
  prompts: readonly number[][],
  beams: (list: number[][], count: number, concurrency: number) => () => Promise<number[][]>,
): Promise<void> {
  const batch = await together();
  for (const [i, prompt] of prompts.entries()) {
    const [alone] = await beams([prompt], BEAMS, 1)();
    if (JSON.stringify(alone) !== JSON.stringify(batch[i])) {
      throw new Error(`${name}: prompt ${i} has another answer in a batch than alone`);
    }
  }
  report.checks.push({ name: `${name} batch = alone`, error: 0, tolerance: 0 });
}
