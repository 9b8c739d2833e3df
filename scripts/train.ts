/** Fine-tunes a model on an instruction file: every method, every switch of the protocol. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type MethodName, methodNames } from "../src/adapters/adapter.ts";
import { type AvoidedIndices, hashIndices, indicesOf } from "../src/adapters/avoid.ts";
import { methods } from "../src/adapters/registry.ts";
import { readAdapter } from "../src/adapters/storage.ts";
import { type InstructionRecord, readInstructionRecords } from "../src/data/records.ts";
import { InputError } from "../src/errors.ts";
import { closeDevice } from "../src/native/device.ts";
import { commandLine } from "../src/reporting/manifest.ts";
import { mostResidentBytes } from "../src/reporting/memory.ts";
import { formatSeconds, type Progress, startProgress } from "../src/reporting/progress.ts";
import { checkOut, type FineTuned, fineTune } from "../src/training/fine-tune.ts";
import { forecastRun, type MemoryForecast } from "../src/training/forecast.ts";
import { measureTraining } from "../src/training/measure.ts";
import { type PreparedRun, prepareRun, type RunInput } from "../src/training/prepare.ts";
import type { TrainRecipe } from "../src/training/recipe.ts";
import {
  choiceFlag,
  formatSize,
  openCommandDevice,
  repeatedFlag,
  required,
  runCommand,
  wholeFlag,
} from "./arguments.ts";
import { exitCodeOf, stopOnSignals } from "./stop.ts";
import { recipeFrom, TRAIN_ARGS, type TrainArgs } from "./train-recipe.ts";

const EXAMPLES = `Methods
${methodNames.map((name) => `  ${name.padEnd(10)} ${methods[name].summary}`).join("\n")}

Examples
  bun run scripts/train.ts --model models/smollm2-135m --data data.json --out runs/first --rank 64
  bun run scripts/train.ts --model models/smollm2-135m --data data.json --out runs/lora --method lora --lr 1e-3 --steps 300 --loss-on response
  bun run scripts/train.ts --model models/smollm2-135m --data data.json --out runs/first --rank 64 --dry-run
                                        memory, steps and expected time; nothing is trained or written
  bun run scripts/train.ts --model models/smollm2-135m --data data/alpaca/alpaca_data.json --out runs/qdora --method dora --rank 64 \\
      --alpha 16 --dropout 0 --dora-norm unscaled --targets all-linear --quantize nf4 --double-quant --prompt alpaca --source-length 384 \\
      --target-length 128 --loss-on response --loss-mean micro --micro-batch 4 --schedule constant --clip 0.3 --steps 10000
                                        as a cell of Table 5 trains (experiments/table5.ts makes them all)
  bun run scripts/train.ts ... --resume goes on after Ctrl-C, SIGTERM or a crash; the bytes are those of an uninterrupted run

--data is a JSON array or JSON Lines of {"instruction", "input", "output"}. --out gets the adapter with the best validation loss,
last/ (the last step's), checkpoint/, metrics.jsonl and manifest.json.`;

function avoidedIndices(args: TrainArgs, method: MethodName): AvoidedIndices | null {
  const folders = repeatedFlag("avoid-indices-of");
  if (folders.length === 0) return null;
  if (args["init-adapter"]) {
    throw new InputError(
      "--avoid-indices-of is about a draw, and with --init-adapter nothing is drawn: the indices are that adapter's. Give one of them.",
    );
  }
  return indicesOf(folders.map(readAdapter), method);
}

async function main(args: TrainArgs): Promise<void> {
  const modelDir = required(args, "model", "a Hugging Face model folder");
  const dataFile = required(args, "data", "a file of instruction records");
  const out = args["dry-run"] ? "" : required(args, "out", "a folder for the adapter");
  const saveAs = choiceFlag(args, "save-as", ["native", "peft"])!;
  const records = readInstructionRecords(dataFile);
  const chosen = recipeFrom(args, records.length);
  const avoid = avoidedIndices(args, chosen.method);
  const recipe = avoid ? { ...chosen, avoidIndices: hashIndices(avoid) } : chosen;
  const maxTokens = wholeFlag(args, "max-tokens", recipe.cutoff);
  const onNote = (text: string): void => console.error(`note: ${text}`);
  const input: RunInput = {
    modelDir,
    dataFile,
    records,
    recipe,
    recompute: args["checkpoint-activations"],
    onNote,
    ...(avoid ? { avoid } : {}),
    ...(maxTokens ? { maxTokens } : {}),
  };
  if (args["dry-run"]) return dryRun(args, input);

  // Everything that can be refused is, before the kernels are compiled or a weight is loaded.
  checkOut({ out, resume: args.resume, modelDir });
  if (args.resume && !existsSync(join(out, "checkpoint", "state.safetensors")))
    onNote(`${out} holds no checkpoint to resume; training starts from the beginning.`);
  const prepared = prepareRun(input);
  const stop = stopOnSignals();
  const device = await openCommandDevice(args);
  const line: { progress: Progress | null } = { progress: null };
  let foreseen = 0;
  try {
    const tuned = await fineTune({
      ...input,
      prepared,
      device,
      out,
      saveAs,
      resume: args.resume,
      ...(args["init-adapter"] ? { initAdapter: args["init-adapter"] } : {}),
      shouldStop: () => stop.signal !== null,
      onStart: (run, memory) => {
        describeRun(run, recipe, memory);
        foreseen = memory.total;
        showSamples(run, records);
      },
      onStep: (metrics, steps) => {
        const { step, loss, tokensPerSecond, validationLoss } = metrics;
        line.progress ??= startProgress("training", steps, "steps", step - 1);
        line.progress.update(step, `loss ${loss.toFixed(4)}, ${Math.round(tokensPerSecond)} tok/s`);
        if (validationLoss !== undefined) {
          line.progress.end(
            `step ${step}: loss ${loss.toFixed(4)}, validation loss ${validationLoss.toFixed(4)}`,
          );
        }
      },
    });
    line.progress?.end();
    report(tuned, recipe, out, foreseen);
    tuned.close();
  } finally {
    closeDevice(device);
  }
  if (stop.signal) process.exit(exitCodeOf(stop.signal));
}

function report({ result, steps }: FineTuned, { method }: TrainRecipe, out: string, foreseen: number): void {
  const { finished, bestLoss, bestStep } = result;
  const best = bestLoss === null ? "last step" : `step ${bestStep}, validation loss ${bestLoss.toFixed(4)}`;
  console.log(`${method === "full" ? "model  " : "adapter"}  ${out} (${best})`);
  const most = mostResidentBytes();
  if (most !== null)
    say("memory", `${formatSize(most, "B")} at most, foreseen were ${formatSize(foreseen, "B")}`);
  if (finished) return;
  const command = commandLine();
  console.log(
    `stopped after step ${result.steps} of ${steps}; go on with\n  ${command.includes("--resume") ? command : `${command} --resume`}`,
  );
}

/** A line about the run, on stderr. */
function say(name: string, text: string): void {
  console.error(`${name.padEnd(9)} ${text}`);
}

function describeRun(run: PreparedRun, recipe: TrainRecipe, memory: MemoryForecast): void {
  const { config, plan, steps, train, validation, maxTokens } = run;
  const {
    method,
    rank,
    alpha,
    dropout,
    learningRate,
    schedule,
    warmup,
    batch,
    microBatch,
    lossMean,
    lossOn,
    lengths,
  } = recipe;
  say(
    "model",
    `${config.nameOrPath}, ${config.layers} layers${run.fourBit ? " in 4 bits" : ""}, ${formatSize(plan.parameters)} parameters trained`,
  );
  say(
    "method",
    method === "full"
      ? "full, every weight"
      : `${method}${recipe.doraNorm ? " in the norm without s" : ""}, rank ${rank}, alpha ${alpha}, dropout ${dropout}, targets ${recipe.targets.join(",")}`,
  );
  say(
    "recipe",
    `lr ${learningRate} ${schedule}, warm-up ${warmup}, batch ${batch} (micro ${microBatch}), gradient up to ${recipe.optimizer.clip}, seed ${recipe.seed}`,
  );
  const cutoff = lengths
    ? `${lengths.source} tokens of the prompt and ${lengths.target} of the reply`
    : recipe.cutoff;
  say(
    "loss",
    `on ${lossOn} tokens, mean by ${lossMean}, prompt ${recipe.prompt}, cutoff ${cutoff}, compute ${recipe.compute}`,
  );
  say(
    "data",
    `${train.length} records for training, ${validation.length} for validation, ${steps} steps, passes of ${maxTokens} tokens${
      plan.recompute ? ", activations made again block by block" : ""
    }`,
  );
  say("memory", memoryText(memory));
}

function memoryText({ weights, fixed, trainable, copies, total, ...rest }: MemoryForecast): string {
  const parts = {
    weights: weights + fixed,
    trained: trainable + copies,
    activations: rest.kept,
    scratch: rest.scratch + rest.workspace,
    "Bun and data": rest.process,
  };
  const text = Object.entries(parts).map(([name, bytes]) => `${name} ${formatSize(bytes, "B")}`);
  return `${formatSize(total, "B")} = ${text.join(" + ")}`;
}

/** Three records as the model sees them: the surest way to notice a wrong prompt or a doubled BOS. */
function showSamples({ train, tokenizer, prompt }: PreparedRun, records: readonly InstructionRecord[]): void {
  for (const { id, tokens, labelFrom } of train.slice(0, 3)) {
    const record = records[id]!;
    const text = JSON.stringify(prompt.train(record) + record.output);
    const short = text.length > 460 ? `${text.slice(0, 290)} … ${text.slice(-150)}` : text;
    const ids = [...tokens];
    const shown =
      ids.length > 16 ? `${ids.slice(0, 8).join(" ")} … ${ids.slice(-6).join(" ")}` : ids.join(" ");
    const last = tokenizer.token(ids.at(-1)!) ?? "?";
    console.error(
      `record ${id + 1}: ${short}\n  ${ids.length} tokens, learned from token ${labelFrom}: ${shown} (last: ${last})`,
    );
  }
}

async function dryRun(args: TrainArgs, input: RunInput): Promise<void> {
  const run = prepareRun(input);
  const device = await openCommandDevice(args);
  try {
    const memory = await forecastRun(device, run, input.recipe);
    describeRun(run, input.recipe, memory);
    showSamples(run, input.records);
    const secondsPerToken = measureTraining(device, input.modelDir, run, input.recipe);
    const { steps, tokensPerStep, validation, plan } = run;
    const held = validation.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const evaluations = Math.floor(steps / input.recipe.evalEvery);
    // A validation pass has no backward: about a third of the work.
    const tokens = steps * tokensPerStep + (evaluations * held) / 3;
    console.log(`steps     ${steps}`);
    console.log(`tokens    ${formatSize(steps * tokensPerStep)} (${Math.round(tokensPerStep)} a step)`);
    console.log(`trained   ${plan.parameters} parameters`);
    console.log(`memory    ${memoryText(memory)}`);
    console.log(`speed     ${Math.round(1 / secondsPerToken)} tokens/s, measured on one pass`);
    console.log(`expected  ${formatSeconds(secondsPerToken * tokens)} (${evaluations} validations included)`);
  } finally {
    closeDevice(device);
  }
}

await runCommand({
  name: "bun run scripts/train.ts",
  description: "Fine-tune a LLaMA-family model on instruction records.",
  args: TRAIN_ARGS,
  examples: EXAMPLES,
  run: main,
});
