/**
 * Table 4, arithmetic reasoning, as typed objects: the protocol's recipe (§3.1) and what has to differ from it on a
 * workstation (`small`) and on a laptop (`tiny`). `differs` is printed under the table.
 */
import { paperRecipe } from "../../src/training/recipe.ts";
import { type Preset, type PresetName, presets, tableMethods } from "./table3.ts";

/** In the paper's column order. */
const tasks = ["MultiArith", "gsm8k", "AddSub", "AQuA", "SingleEq", "SVAMP"];

const { method: _method, rank: _rank, alpha: _alpha, ...commonsense } = paperRecipe;

/** Protocol §3.1: as Table 3 except for these. */
const protocol: Preset["training"] = {
  ...commonsense,
  epochs: 3,
  learningRate: 3e-4,
  batch: 8,
  microBatch: 4,
  evalEvery: 200,
};

const paper: Preset = {
  ...presets.paper,
  trainingFile: "math_10k.json",
  training: protocol,
  evaluation: { ...presets.paper.evaluation, tasks },
};

const small: Preset = {
  name: "small",
  model: "smollm2-135m",
  trainingFile: "math_8k.json",
  groups: [
    { methods: tableMethods, ranks: [32] },
    { methods: ["sbora-fa", "lora"], ranks: [64] },
  ],
  seeds: [42, 43, 44],
  training: {
    ...protocol,
    learningRate: 1e-3,
    warmup: 20,
    steps: 200,
    evalEvery: 40,
    cutoff: 448,
    compute: "bf16",
  },
  evaluation: { tasks, rulers: ["generation"], beams: 4, limit: 100 },
  differs: [
    "SmolLM2-135M in place of LLaMA-7B; 200 steps of 8 records of an 8,138-record mix in place of 3,675 steps of 9,919",
    "the mix holds GSM8K and MAWPS, without AQuA and without a question of MultiArith, AddSub or SingleEq; records up to 448 tokens in place of 256, which would cut one rationale in ten",
    "learning rate 1e-3 and 20 warm-up steps (the protocol's 3e-4 and 100 are meant for 7B and 3,675 steps)",
    "the first 100 test records of a task",
  ],
  tells: [
    "It can tell: trained parameters, time and memory of the methods on one model, how far each lowers the loss on held-out rationales in the same steps, and how often a last number is right where the sums are small.",
    "It cannot tell how the methods rank at 7B: a model of this size gets few GSM8K questions right, and one learning rate for all favours methods by the norm of their A (about 0.58 a row in LoRA, DoRA and LoRA-FA, 1 in OA and SBoRA). Run --lr with a second rate before reading an order into it.",
    "There is no log-likelihood ruler: questions that ask for a number offer no options to compare.",
  ],
};

const tiny: Preset = {
  name: "tiny",
  model: "tiny",
  trainingFile: "tiny_math.json",
  groups: [{ methods: tableMethods, ranks: [8] }],
  seeds: [42],
  training: {
    ...protocol,
    learningRate: 5e-3,
    warmup: 10,
    steps: 500,
    batch: 16,
    lossOn: "response",
    cutoff: 96,
    evalEvery: 100,
    valSize: 60,
  },
  evaluation: { tasks, rulers: ["generation"], beams: 4, limit: 60, maxNewTokens: 16 },
  differs: [
    "the model is the embedded one (0.7 M parameters), which has never read a number beyond four; the questions are the tiny world's, sums and differences up to four",
    "the numbers of a test question occur in training with other people and foods: what can be learned is a table of small sums; the replies are the answer alone, without a rationale",
    "rank 8, learning rate 5e-3, 500 steps of 16 records, cutoff 96, 60 test records a task, answers of at most 16 tokens",
    "the loss is taken on the response alone (the protocol's is on the prompt too)",
  ],
  tells: [
    "It can tell: that training, merging, generation and the reading of numbers and letters work from end to end, and the methods' trained parameters and time a step.",
    "It cannot tell anything about arithmetic at 7B: the columns carry the paper's names because the files have its layouts, the questions are made up.",
  ],
};

export const arithmeticPresets: Readonly<Record<PresetName, Preset>> = { tiny, small, paper };
