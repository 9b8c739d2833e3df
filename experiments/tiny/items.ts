/**
 * Questions about the tiny world, one kind a task of Table 3. Every fact, transition or pair belongs to one part: a
 * question of a test file was never asked in training; the pretraining text tells what it needs.
 */
import { activities, events, objects, people, rules, toolPurposes } from "./names.ts";
import { oneIn, pick, pickOthers, type Random, randomFor } from "./random.ts";
import { fill, type RelationName, relationOf, type World } from "./world.ts";

export type Part = "train" | "test";

/** A question with its options in the order they are shown. */
export interface Item {
  readonly question: string;
  readonly options: readonly string[];
  /** Position of the right option. */
  readonly right: number;
}

/** Draws an item of one part, or of any. */
export type Draw = (random: Random, world: World, part: Part | "any") => Item;

/** True for two keys out of five, independent of the world's seed. */
function isTest(key: string): boolean {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return randomFor(hash, 1).below(5) < 2;
}

/** The part a piece of the world belongs to. */
export function partOf(...key: string[]): Part {
  return isTest(key.join("/")) ? "test" : "train";
}

/** Draws until the key falls into the wanted part. */
function drawIn<T>(part: Part | "any", draw: () => { key: string[]; value: T }): T {
  for (;;) {
    const { key, value } = draw();
    if (part === "any" || partOf(...key) === part) return value;
  }
}

/**
 * Every value has a place of its own among the options of a question: its number in the list, modulo their count. So a
 * model that knows the answer can learn its label value by value, in the half minute a cell has; finding a word among
 * marked options would have to be taught before.
 */
function itemOf(
  random: Random,
  question: string,
  right: string,
  all: readonly string[],
  count: number,
): Item {
  const place = (value: string): number => all.indexOf(value) % count;
  const options = Array.from({ length: count }, (_, at) =>
    at === place(right)
      ? right
      : pick(
          random,
          all.filter((value) => place(value) === at),
        ),
  );
  return { question, options, right: place(right) };
}

function drawFact(random: Random, world: World, part: Part | "any", from: readonly RelationName[]) {
  return drawIn(part, () => {
    const relation = pick(random, from);
    const subject = pick(random, world.subjects(relation));
    return { key: [relation, subject], value: { relation, subject, value: world.value(relation, subject) } };
  });
}

/** A yes-or-no question about a fact; options are "true" and "false". */
export const drawCheck: Draw = (random, world, part) => {
  const { relation, subject, value } = drawFact(random, world, part, [...peopleRelations, ...thingRelations]);
  const holds = random.below(8) < 5;
  const shown = holds ? value : pickOthers(random, world.values(relation), 1, value)[0]!;
  const question = fill(relationOf(relation).check, subject, shown);
  return { question, options: ["true", "false"], right: holds ? 0 : 1 };
};

const tools = toolPurposes.map(([tool]) => `take the ${tool}`);

/** Something to be done, or somebody to be helped, and two tools. */
export const drawPurpose: Draw = (random, world, part) => {
  const { person, tool, goal } = drawIn(part, () => {
    const person = pick(random, people);
    const job = pick(random, world.subjects("tool"));
    const help = { tool: world.value("tool", job), goal: `help a ${job}` };
    const [tool, goal] = pick(random, toolPurposes);
    const value = oneIn(random, 3) ? help : { tool, goal };
    return { key: ["purpose", value.goal, person], value: { person, ...value } };
  });
  return itemOf(random, `${person} wants to ${goal}`, `take the ${tool}`, tools, 2);
};

const feelings = [...new Set(events.map(([, feeling]) => feeling))];

/** What happened to somebody, and three feelings. */
export const drawFeeling: Draw = (random, _world, part) => {
  const [event, feeling] = drawIn(part, () => {
    const value = pick(random, events);
    return { key: ["event", value[0]], value };
  });
  const person = pick(random, people);
  return itemOf(random, `${person} ${event}. how does ${person} feel?`, feeling, feelings, 3);
};

/** Rotated from activity to activity, or a step's place would be its number. */
const allSteps = activities.flatMap(([, ...steps], i) => steps.map((_, j) => steps[(j + i) % steps.length]!));

/** A step of an activity, and four steps of which one comes next. */
export const drawStep: Draw = (random, _world, part) => {
  const { activity, at, person } = drawIn(part, () => {
    const value = {
      activity: pick(random, activities),
      at: 1 + random.below(3),
      person: pick(random, people),
    };
    return { key: ["step", value.activity[0], `${value.at}`, value.person], value };
  });
  const [name, ...steps] = activity;
  return itemOf(random, `${name}: ${person} ${steps[at - 1]} and then`, steps[at]!, allSteps, 4);
};

/** Two things of different materials in one situation; the blank is the one that does what is said. */
export const drawMaterial: Draw = (random, world, part) => {
  const { rule, first, second } = drawIn(part, () => {
    const rule = pick(random, rules);
    const first = pick(random, world.subjects(rule.name));
    const differs = world
      .subjects(rule.name)
      .filter((m) => world.value(rule.name, m) !== world.value(rule.name, first));
    const second = pick(random, differs);
    return { key: [rule.name, ...[first, second].sort()], value: { rule, first, second } };
  });
  const [a, b] = pickOthers(random, objects, 2);
  const outcome = world.value(rule.name, oneIn(random, 2) ? first : second);
  const right = outcome === world.value(rule.name, first) ? 0 : 1;
  const question = `the ${first} ${a} and the ${second} ${b} ${rule.together} and the _ ${outcome}`;
  return { question, options: [a!, b!], right };
};

export const peopleRelations: readonly RelationName[] = ["home", "job", "pet", "likes", "hates"];
export const thingRelations: readonly RelationName[] = [
  "climate",
  "diet",
  "cover",
  "habitat",
  "work",
  "tool",
];
export const objectRelations: readonly RelationName[] = ["material", "room"];

function drawOneHop(from: readonly RelationName[]): Draw {
  return (random, world, part) => {
    const { relation, subject, value } = drawFact(random, world, part, from);
    const question = `${fill(pick(random, relationOf(relation).questions), subject)}?`;
    return itemOf(random, question, value, world.values(relation), 4);
  };
}

/** One fact, four values of the relation. */
export const drawFactQuestion = drawOneHop([...peopleRelations, ...thingRelations]);
export const drawObjectQuestion = drawOneHop(objectRelations);

/** First relation, how its value is called without naming it, second relation. */
const chains: readonly (readonly [RelationName, string, RelationName])[] = [
  ["pet", "pet of {s}", "diet"],
  ["pet", "pet of {s}", "cover"],
  ["pet", "pet of {s}", "habitat"],
  ["home", "town of {s}", "climate"],
  ["job", "job of {s}", "work"],
  ["job", "job of {s}", "tool"],
];

const chainQuestions: Partial<Record<RelationName, string>> = {
  diet: "what does the {x} eat?",
  cover: "what is on the skin of the {x}?",
  habitat: "where does the {x} hide?",
  climate: "how is the air in the {x}?",
  work: "what is the place of work in the {x}?",
  tool: "what is the tool in the {x}?",
};

/** Two facts, one behind the other. */
export const drawTwoHops: Draw = (random, world, part) => {
  const { chain, person } = drawIn(part, () => {
    const chain = pick(random, chains);
    const person = pick(random, people);
    return { key: ["chain", chain[0], chain[2], person], value: { chain, person } };
  });
  const [first, name, second] = chain;
  const value = world.value(second, world.value(first, person));
  const question = chainQuestions[second]!.replace("{x}", name.replace("{s}", person));
  return itemOf(random, question, value, world.values(second), 4);
};
