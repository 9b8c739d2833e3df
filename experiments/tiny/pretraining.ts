/**
 * The text the tiny base model is trained on. It tells every fact of the world, and it asks about the train part in
 * forms that no task file has: plain questions, yes-or-no questions, and quizzes whose options carry other marks. So the
 * base knows the world and what a choice is, and fine-tuning has the prompts and the wording of the answers to teach.
 */
import { type Draw, drawCheck } from "./items.ts";
import { activities, events, objects, people, rules, toolPurposes } from "./names.ts";
import { oneIn, pick, pickOthers, type Random, randomFor } from "./random.ts";
import { tinyTasks } from "./tasks.ts";
import { fill, type RelationName, relationOf, relations, type World } from "./world.ts";

type Document = (random: Random, world: World) => string;

function statement(random: Random, world: World, relation: RelationName, subject: string): string {
  return fill(pick(random, relationOf(relation).statements), subject, world.value(relation, subject));
}

/** What the world says of one subject, and of what it leads to: "ada has a dax. the dax eats moss." */
const portrait: Document = (random, world) => {
  const chosen = pick(random, relations).name;
  let subject = pick(random, world.subjects(chosen));
  const sentences: string[] = [];
  for (let hop = 0; hop < 2; hop++) {
    const known = relations.filter(({ name }) => world.subjects(name).includes(subject));
    if (known.length === 0) break;
    const told = pickOthers(random, known, 1 + random.below(3));
    sentences.push(...told.map(({ name }) => statement(random, world, name, subject)));
    subject = world.value(told[told.length - 1]!.name, subject);
  }
  return `${sentences.join(". ")}.`;
};

/** Statements about several subjects of one relation. */
const list: Document = (random, world) => {
  const { name } = pick(random, relations);
  const subjects = pickOthers(random, world.subjects(name), 3 + random.below(3));
  return `${subjects.map((subject) => statement(random, world, name, subject)).join(". ")}.`;
};

const feelingStory: Document = (random) => {
  const told = pickOthers(random, events, 2);
  return told.map(([event, feeling]) => `${pick(random, people)} ${event} and is ${feeling}.`).join(" ");
};

const activityStory: Document = (random) => {
  const [name, ...steps] = pick(random, activities);
  const from = random.below(3);
  return `${name}: ${pick(random, people)} ${steps.slice(from).join(" and then ")}.`;
};

const materialStory: Document = (random, world) => {
  const rule = pick(random, rules);
  const told = pickOthers(random, world.subjects(rule.name), 2);
  return told
    .map((material) => `the ${material} ${pick(random, objects)} ${rule.situation} and ${world.value(rule.name, material)}.`)
    .join(" ");
};

const toolStory: Document = (random) =>
  pickOthers(random, toolPurposes, 2)
    .map(([tool, goal]) => `to ${goal} ${pick(random, people)} takes the ${tool}.`)
    .join(" ");

/** Question and answer in words, train part only. */
const plainQuestion: Document = (random, world) => {
  const task = pick(random, tinyTasks.filter(({ label }) => label !== null));
  const { question, options, right } = task.draw(random, world, "train");
  return `Question: ${question}\nAnswer: ${options[right]}.`;
};

const yesOrNo: Document = (random, world) => {
  const { question, right } = drawCheck(random, world, "train");
  return `${question}? ${right === 0 ? "yes" : "no"}.`;
};

const marks: readonly (readonly string[])[] = [
  ["a", "b", "c", "d"],
  ["one", "two", "three", "four"],
  ["first", "second", "third", "fourth"],
  ["red", "blue", "green", "white"],
  ["north", "east", "south", "west"],
  ["Answer1", "Answer2", "Answer3", "Answer4"],
];

function quizOf(draw: Draw): Document {
  return (random, world) => {
    const { question, options, right } = draw(random, world, "train");
    const marked = oneIn(random, 2) ? pick(random, marks) : pickOthers(random, pick(random, marks), 4);
    const shown = options.map((option, i) => `${marked[i]}: ${option}`).join(" ");
    return `quiz. ${question} ${shown} so it is ${marked[right]}.`;
  };
}

const quizzes = tinyTasks.filter(({ label }) => label !== null).map(({ draw }) => quizOf(draw));

const quiz: Document = (random, world) => pick(random, quizzes)(random, world);

/** How often each kind of document comes, out of their sum. */
const mixture: readonly (readonly [number, Document])[] = [
  [6, portrait],
  [4, list],
  [1, feelingStory],
  [1, activityStory],
  [1, materialStory],
  [1, toolStory],
  [2, plainQuestion],
  [2, yesOrNo],
  [8, quiz],
];

const deck = mixture.flatMap(([times, document]) => Array.from({ length: times }, () => document));

/** `count` documents; the first n are the same whatever the count. */
export function pretrainingTexts(world: World, count: number, seed: number): string[] {
  const random = randomFor(seed, 2);
  return Array.from({ length: count }, () => pick(random, deck)(random, world));
}

