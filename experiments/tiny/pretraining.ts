/**
 * The text the tiny base model is trained on. It tells every fact of the world and asks about all of it in forms that no
 * task file has: plain questions, yes-or-no questions, questions with values beside the right one. So the base knows the
 * world, and fine-tuning has the prompts and the labels of the answers to teach.
 */
import { llmAdapters } from "../../src/data/prompts/llm-adapters.ts";
import { type Draw, drawCheck } from "./items.ts";
import { activities, events, objects, people, rules, toolPurposes } from "./names.ts";
import { oneIn, pick, pickOthers, type Random, randomFor, shuffled } from "./random.ts";
import { recordOf, tinyTasks } from "./tasks.ts";
import { fill, type RelationName, relationOf, relations, type World } from "./world.ts";

/** A document; only the reply is learned by heart where there is a question in front of it. */
export interface Passage {
  readonly question: string;
  readonly reply: string;
}

type Document = (random: Random, world: World) => Passage;

function told(...sentences: readonly string[]): Passage {
  return { question: "", reply: sentences.join(" ") };
}

function statement(random: Random, world: World, relation: RelationName, subject: string): string {
  return `${fill(pick(random, relationOf(relation).statements), subject, world.value(relation, subject))}.`;
}

/** What the world says of one subject, and of what it leads to: "ada has a dax. the dax eats moss." */
const portrait: Document = (random, world) => {
  let subject = pick(random, world.subjects(pick(random, relations).name));
  const sentences: string[] = [];
  for (let hop = 0; hop < 2; hop++) {
    const known = relations.filter(({ name }) => world.subjects(name).includes(subject));
    if (known.length === 0) break;
    const chosen = pickOthers(random, known, 1 + random.below(3));
    sentences.push(...chosen.map(({ name }) => statement(random, world, name, subject)));
    subject = world.value(chosen[chosen.length - 1]!.name, subject);
  }
  return told(...sentences);
};

/** Statements about several subjects of one relation. */
const list: Document = (random, world) => {
  const { name } = pick(random, relations);
  const subjects = pickOthers(random, world.subjects(name), 2 + random.below(3));
  return told(...subjects.map((subject) => statement(random, world, name, subject)));
};

const feelingStory: Document = (random) =>
  told(
    ...pickOthers(random, events, 2).map(
      ([event, feeling]) => `${pick(random, people)} ${event} and is ${feeling}.`,
    ),
  );

const activityStory: Document = (random) => {
  const [name, ...steps] = pick(random, activities);
  return told(`${name}: ${pick(random, people)} ${steps.slice(random.below(3)).join(" and then ")}.`);
};

const materialStory: Document = (random, world) => {
  const rule = pick(random, rules);
  return told(
    ...pickOthers(random, world.subjects(rule.name), 2).map((material) => {
      const what = `the ${material} ${pick(random, objects)}`;
      return `${what} ${rule.situation} and ${world.value(rule.name, material)}.`;
    }),
  );
};

const toolStory: Document = (random) =>
  told(
    ...pickOthers(random, toolPurposes, 2).map(
      ([tool, goal]) => `to ${goal} ${pick(random, people)} takes the ${tool}.`,
    ),
  );

/** Question and answer in words. */
const plainQuestion: Document = (random, world) => {
  const { question, options, right } = pick(random, choiceDraws)(random, world, "any");
  const reply = options[right]!;
  return oneIn(random, 3)
    ? { question: `Question: ${question}\nAnswer:`, reply: ` ${reply}` }
    : { question, reply: ` ${reply}.` };
};

const yesOrNo: Document = (random, world) => {
  const { question, right } = drawCheck(random, world, "any");
  return { question: `${question}?`, reply: right === 0 ? " yes" : " no" };
};

const choiceDraws: readonly Draw[] = tinyTasks.filter(({ label }) => label !== null).map(({ draw }) => draw);

/** Between a question and its answer in words stand values of which one is right: the answer is known, not found. */
const choice: Document = (random, world) => {
  const { question, options, right } = pick(random, choiceDraws)(random, world, "any");
  const shown = shuffled(random, options).join(oneIn(random, 2) ? ", " : " or ");
  return { question: `${question} ${shown}? so`, reply: ` ${options[right]}.` };
};

/**
 * A task's prompt, answered in words, or by a label drawn at random: fine-tuning finds a model that reads prompts, knows
 * the answers and has all the labels at hand, and has to teach which label is whose.
 */
const asked: Document = (random, world) => {
  const task = pick(random, tinyTasks);
  const item = task.draw(random, world, "any");
  const { train, test } = llmAdapters;
  const question = (oneIn(random, 2) ? train : test)(recordOf(task, item));
  const words = task.label === null ? ["yes", "no"] : item.options;
  const labels = task.label === null ? item.options : item.options.map((_, i) => `${task.label}${i + 1}`);
  const answer = oneIn(random, 3) ? pick(random, labels) : words[item.right];
  return { question, reply: `the correct answer is ${answer}` };
};

/** How often each kind of document comes, out of their sum. */
const mixture: readonly (readonly [number, Document])[] = [
  [5, portrait],
  [3, list],
  [1, feelingStory],
  [1, activityStory],
  [1, materialStory],
  [1, toolStory],
  [6, plainQuestion],
  [3, yesOrNo],
  [4, choice],
  [9, asked],
];

const deck = mixture.flatMap(([times, document]) => Array.from({ length: times }, () => document));

/** `count` documents; the first n are the same whatever the count. */
export function pretrainingTexts(world: World, count: number, seed: number): Passage[] {
  const random = randomFor(seed, 2);
  return Array.from({ length: count }, () => pick(random, deck)(random, world));
}
