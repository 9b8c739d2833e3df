/**
 * Makes the model that ships in experiments/tiny/model: a tokenizer and a LLaMA of 0.7 M parameters, trained from drawn
 * weights with our own full fine-tuning on text our own generator writes. Seeded: on one instruction set the same command
 * gives the same bytes.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  passageExamples,
  pretrainingRecipe,
  tinyConfig,
  writeUntrainedModel,
} from "../experiments/tiny/base-model.ts";
import { TINY_MODEL, WORLD_SEED } from "../experiments/tiny/data.ts";
import { pretrainingTexts } from "../experiments/tiny/pretraining.ts";
import { quizAccuracies } from "../experiments/tiny/quizzes.ts";
import { makeWorld } from "../experiments/tiny/world.ts";
import { full } from "../src/adapters/full.ts";
import { freeLlama, loadLlama } from "../src/model/model.ts";
import { attachTrainables, freeTrainables } from "../src/model/trainables.ts";
import { createArena, freeArena } from "../src/native/arena.ts";
import { closeDevice } from "../src/native/device.ts";
import { startProgress } from "../src/reporting/progress.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";
import { train } from "../src/training/loop.ts";
import { planTraining } from "../src/training/plan.ts";
import { saveModel } from "../src/training/save-model.ts";
import {
  COMPUTE_TYPES,
  choiceFlag,
  deviceFlags,
  numberFlag,
  openCommandDevice,
  runCommand,
  wholeFlag,
} from "./arguments.ts";

const PASS_TOKENS = 2048;

const ARGS = {
  out: { type: "string", valueHint: "DIR", default: TINY_MODEL, description: "Model folder to write" },
  steps: { type: "string", valueHint: "N", default: "3000", description: "Optimizer steps of 32 documents" },
  lr: {
    type: "string",
    valueHint: "RATE",
    default: `${pretrainingRecipe.learningRate}`,
    description: "Peak learning rate",
  },
  ...deviceFlags,
} as const;

const EXAMPLES = `Examples
  bun run scripts/make-tiny.ts                           the committed model again, a few minutes on two cores
  bun run scripts/make-tiny.ts --out /tmp/tiny --steps 500   a first look`;

await runCommand({
  name: "bun run scripts/make-tiny.ts",
  description: "Train the embedded tiny model from nothing.",
  args: ARGS,
  examples: EXAMPLES,
  async run(args) {
    const steps = wholeFlag(args, "steps", 1)!;
    const compute = choiceFlag(args, "compute", COMPUTE_TYPES)!;
    const recipe = {
      ...pretrainingRecipe,
      steps,
      compute,
      learningRate: numberFlag(args, "lr", { min: 0 })!,
    } as const;
    const work = mkdtempSync(join(tmpdir(), "sbora-tiny-"));
    const device = await openCommandDevice(args);
    const world = makeWorld(WORLD_SEED);
    const texts = pretrainingTexts(world, steps * recipe.batch, WORLD_SEED);
    const untrained = join(work, "untrained");
    writeUntrainedModel(untrained, world, WORLD_SEED);
    const tokenizer = loadTokenizer(untrained);
    const examples = passageExamples(texts, tokenizer);
    const load = { compute, positions: tinyConfig.maxPositions };
    const adapter = { method: full, rank: 1, alpha: 1, targets: recipe.targets, seed: recipe.seed };
    const plan = planTraining(tinyConfig, load, adapter, 0, PASS_TOKENS, 4);
    const model = loadLlama(device, untrained, load);
    const scratch = createArena(device, plan.scratch);
    const trained = attachTrainables(model, adapter, scratch);
    const progress = startProgress("training", steps);
    try {
      await train(
        model,
        trained,
        { train: examples, validation: [] },
        {
          recipe,
          out: join(work, "run"),
          plan,
          maxTokens: PASS_TOKENS,
          resume: false,
          onStep({ step, loss, tokensPerSecond }) {
            progress.update(step, `loss ${loss.toFixed(3)}, ${Math.round(tokensPerSecond)} tok/s`);
          },
        },
      );
      progress.end();
      saveModel(args.out, model, trained, { base: untrained, dtype: "BF16" });
      console.log(await quizAccuracies(model, tokenizer, world));
    } finally {
      freeArena(scratch);
      freeTrainables(model, trained);
      freeLlama(model);
      closeDevice(device);
      rmSync(work, { recursive: true, force: true });
    }
  },
});
