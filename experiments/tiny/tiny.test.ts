import { describe, expect, test } from "bun:test";
import { Tokenizer } from "@huggingface/tokenizers";
import { llmAdapters } from "../../src/data/prompts/llm-adapters.ts";
import { taskNamed } from "../../src/evaluation/tasks/registry.ts";
import { specialTokens, tokenizerConfigJson, tokenizerJson, trainBpe } from "./bpe.ts";
import { drawFactQuestion, partOf } from "./items.ts";
import { pretrainingTexts } from "./pretraining.ts";
import { randomFor } from "./random.ts";
import { tinyMix, tinyRecords, tinyTasks } from "./tasks.ts";
import { makeWorld, relations } from "./world.ts";

const sha256 = (value: unknown): string =>
  new Bun.CryptoHasher("sha256").update(JSON.stringify(value)).digest("hex");

describe("the world", () => {
  test("the same seed gives the same world, texts and records; another seed others", () => {
    const all = (seed: number) => {
      const world = makeWorld(seed);
      return sha256([world.facts, pretrainingTexts(world, 200, seed), tinyMix(world, 20, seed)]);
    };
    expect(all(1)).toBe(all(1));
    expect(all(1)).not.toBe(all(2));
  });

  test("the first documents do not depend on how many are asked for", () => {
    const world = makeWorld(1);
    expect(pretrainingTexts(world, 100, 1)).toEqual(pretrainingTexts(world, 300, 1).slice(0, 100));
  });

  test("every fact of the world is told in the text", () => {
    const world = makeWorld(1);
    const text = pretrainingTexts(world, 6000, 1)
      .map(({ question, reply }) => question + reply)
      .join("\n");
    const untold = world.facts.filter(({ relation, subject, value }) => {
      const { statements } = relations.find(({ name }) => name === relation)!;
      return !statements.some((s) => text.includes(s.replace("{s}", subject).replace("{v}", value)));
    });
    expect(untold).toEqual([]);
  });

  test("what a test file asks is asked nowhere in training", () => {
    const world = makeWorld(1);
    const questions = (part: "train" | "test"): Set<string> => {
      const random = randomFor(1, part === "train" ? 30 : 31);
      return new Set(Array.from({ length: 3000 }, () => drawFactQuestion(random, world, part).question));
    };
    const [train, tested] = [questions("train"), questions("test")];
    expect(tested.size).toBeGreaterThan(40);
    expect([...tested].filter((question) => train.has(question))).toEqual([]);
    expect(partOf("diet", "wug")).toBe(partOf("diet", "wug"));
  });
});

describe("task files", () => {
  const world = makeWorld(1);

  test.each(tinyTasks.map((task) => [task.name, task] as const))(
    "%s is in the layout its task reads",
    (name, task) => {
      const records = tinyRecords(task, world, "test", 100, 1);
      expect(records.length).toBe(100);
      const reader = taskNamed(name);
      for (const record of records) {
        expect(record.output).toBe(`the correct answer is ${record.answer}`);
        expect(record.input).toBe("");
        const choices = reader.choices(record)!;
        expect(choices.labels).toContain(record.answer);
        expect(new Set(choices.texts).size).toBe(choices.texts.length);
        expect(record.instruction.endsWith(`Answer format: ${choices.labels.join("/")}`)).toBe(true);
        expect(reader.cloze(record)).not.toBeNull();
        expect(reader.isCorrect(reader.extract(record.output), record)).toBe(true);
      }
    },
  );

  test("the options' texts come back out of the instruction", () => {
    const openbookqa = tinyTasks.find(({ name }) => name === "openbookqa")!;
    const item = openbookqa.draw(randomFor(3, 3), world, "test");
    const [record] = tinyRecords({ ...openbookqa, draw: () => item }, world, "test", 1, 1);
    expect(taskNamed("openbookqa").choices(record!)!.texts).toEqual([...item.options]);
  });

  test("no answer is right so often that saying it always would do", () => {
    for (const task of tinyTasks) {
      const records = tinyRecords(task, world, "test", 100, 1);
      const counts = new Map<string, number>();
      for (const { answer } of records) counts.set(answer, (counts.get(answer) ?? 0) + 1);
      expect(Math.max(...counts.values())).toBeLessThan(75);
    }
  });
});

describe("BPE", () => {
  const world = makeWorld(1);
  const mix = tinyMix(world, 60, 1);
  const texts = [
    ...pretrainingTexts(world, 3000, 1).map(({ question, reply }) => question + reply),
    ...mix.map((record) => llmAdapters.train(record) + record.output),
  ];
  const bpe = trainBpe(texts, 896);
  const tokenizer = new Tokenizer(tokenizerJson(bpe), tokenizerConfigJson(512));

  test("has the size asked for, special tokens first, and is the same when trained again", () => {
    expect(bpe.vocabulary.length).toBe(896);
    expect(bpe.vocabulary.slice(0, 2)).toEqual([specialTokens.bos, specialTokens.eos]);
    expect(new Set(bpe.vocabulary).size).toBe(896);
    expect(sha256(trainBpe(texts, 896))).toBe(sha256(bpe));
  });

  test("merges the most frequent pair first, ties in code-unit order", () => {
    const { merges } = trainBpe(["xyxy xyxy", "ab", "ab"], 300);
    expect(merges[0]).toEqual(["x", "y"]);
    const tied = trainBpe(["cd", "cd", "ab", "ab"], 300);
    expect(tied.merges[0]).toEqual(["a", "b"]);
  });

  test.each([
    "odo hates bread.",
    "  two  spaces\n\n\ttab",
    "Grüße, 漢字 🙂 42%",
    "### Response:\n                the",
  ])("%j comes back as it was", (text) => {
    const { ids } = tokenizer.encode(text);
    expect(ids[0]).toBe(0);
    expect(tokenizer.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false })).toBe(
      text,
    );
  });

  test("the prompt's constant text costs a handful of tokens", () => {
    const prompt = llmAdapters.test({ instruction: "", input: "" });
    expect(prompt.length).toBeGreaterThan(200);
    expect(tokenizer.encode(prompt).ids.length).toBeLessThanOrEqual(13);
  });

  test("records stay short", () => {
    const lengths = mix.map(
      (record) => tokenizer.encode(llmAdapters.train(record) + record.output).ids.length + 1,
    );
    expect(Math.max(...lengths)).toBeLessThanOrEqual(90);
  });
});
