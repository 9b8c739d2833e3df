/**
 * The text the tiny base model is trained on. It tells every fact of the world, and it asks about the train part in
 * forms that no task file has: plain questions, yes-or-no questions, and quizzes with other marks at the options. So the
 * base knows the world and what a choice is, and fine-tuning has the prompts and the wording of the answers to teach.
 */
import { type Draw, drawCheck } from "./items.ts";
import { activities, events, objects, people, rules, toolPurposes } from "./names.ts";
import { oneIn, pick, pickOthers, type Random, randomFor } from "./random.ts";
import { tinyTasks } from "./tasks.ts";
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
  const part = oneIn(random, 3) ? "test" : "train";
  const { question, options, right } = pick(random, choiceDraws)(random, world, part);
  return { question: `Question: ${question}\nAnswer:`, reply: ` ${options[right]}` };
};

const yesOrNo: Document = (random, world) => {
  const { question, right } = drawCheck(random, world, "train");
  return { question: `${question}?`, reply: right === 0 ? " yes" : " no" };
};

const choiceDraws: readonly Draw[] = tinyTasks.filter(({ label }) => label !== null).map(({ draw }) => draw);

/** How options are marked, and what a reply calls them. */
const marks: readonly { readonly shown: readonly string[]; readonly called: readonly string[] }[] = [
  { shown: ["(a)", "(b)", "(c)", "(d)"], called: ["(a)", "(b)", "(c)", "(d)"] },
  { shown: ["(one)", "(two)", "(three)", "(four)"], called: ["(one)", "(two)", "(three)", "(four)"] },
  { shown: ["Answer1:", "Answer2:", "Answer3:", "Answer4:"], called: ["one", "two", "three", "four"] },
];

function marked(random: Random, options: readonly string[]): { shown: string; called: readonly string[] } {
  const { shown, called } = pick(random, marks);
  return { shown: options.map((option, i) => ` ${shown[i]} ${option}`).join(""), called };
}

/** Which of the marked options answers the question: before or behind them. */
const quiz: Document = (random, world) => {
  const { question, options, right } = pick(random, choiceDraws)(random, world, "train");
  const { shown, called } = marked(random, options);
  const asked = oneIn(random, 3) ? `quiz:${shown} question: ${question}` : `quiz: ${question}${shown}`;
  return { question: `${asked} answer:`, reply: ` ${called[right]}` };
};

/** Marks and what stands behind them, in both directions: the finding without the knowing, four times a document. */
const recite: Document = (random, world) => {
  const { options } = pick(random, choiceDraws)(random, world, "train");
  const { shown, called } = marked(random, options);
  const asked = Array.from({ length: 4 }, () => random.below(options.length));
  const pairs = asked.map((at) =>
    oneIn(random, 3) ? ` ${called[at]} ${options[at]}.` : ` ${options[at]} answer: ${called[at]}.`,
  );
  return { question: `find:${shown}.`, reply: pairs.join("") };
};

/** How often each kind of document comes, out of their sum. */
const mixture: readonly (readonly [number, Document])[] = [
  [5, portrait],
  [3, list],
  [1, feelingStory],
  [1, activityStory],
  [1, materialStory],
  [1, toolStory],
  [3, plainQuestion],
  [3, yesOrNo],
  [14, quiz],
  [8, recite],
];

const deck = mixture.flatMap(([times, document]) => Array.from({ length: times }, () => document));

/** `count` documents; the first n are the same whatever the count. */
export function pretrainingTexts(world: World, count: number, seed: number): Passage[] {
  const random = randomFor(seed, 2);
  return Array.from({ length: count }, () => pick(random, deck)(random, world));
}
