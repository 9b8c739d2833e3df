/** The invented world: every relation gives each of its subjects one value, drawn from a seed. */
import * as names from "./names.ts";
import { pick, type Random, randomFor, shuffled } from "./random.ts";

/** A relation and how people talk about it; `{s}` is the subject, `{v}` its value. */
export interface Relation {
  readonly name: RelationName;
  readonly statements: readonly string[];
  readonly questions: readonly string[];
  readonly check: string;
}

export type RelationName =
  | "home"
  | "job"
  | "pet"
  | "likes"
  | "hates"
  | "climate"
  | "diet"
  | "cover"
  | "habitat"
  | "material"
  | "room"
  | "purpose"
  | "work"
  | "tool"
  | "lake"
  | "fire"
  | "ground";

export interface Fact {
  readonly relation: RelationName;
  readonly subject: string;
  readonly value: string;
}

export interface World {
  readonly facts: readonly Fact[];
  /** The value of a fact. */
  value(relation: RelationName, subject: string): string;
  /** The distinct values of a relation, in the order of names.ts. */
  values(relation: RelationName): readonly string[];
  subjects(relation: RelationName): readonly string[];
}

export const relations: readonly Relation[] = [
  relation(
    "home",
    ["{s} lives in {v}", "the home of {s} is in {v}"],
    ["where does {s} live", "in which town is the home of {s}"],
    "does {s} live in {v}",
  ),
  relation(
    "job",
    ["{s} is a {v}", "{s} works as a {v}"],
    ["what is the job of {s}", "as what does {s} work"],
    "is {s} a {v}",
  ),
  relation(
    "pet",
    ["{s} has a {v}", "the pet of {s} is a {v}"],
    ["what is the pet of {s}", "which animal does {s} have"],
    "is the pet of {s} a {v}",
  ),
  relation(
    "likes",
    ["{s} likes {v}", "the best food for {s} is {v}"],
    ["which food does {s} like", "what is the best food for {s}"],
    "does {s} like {v}",
  ),
  relation(
    "hates",
    ["{s} hates {v}", "the worst food for {s} is {v}"],
    ["which food does {s} hate", "what is the worst food for {s}"],
    "does {s} hate {v}",
  ),
  relation(
    "climate",
    ["{s} is a {v} town", "the air in {s} is {v}"],
    ["how is the air in {s}", "what kind of town is {s}"],
    "is {s} a {v} town",
  ),
  relation(
    "diet",
    ["the {s} eats {v}", "the food of the {s} is {v}"],
    ["what does the {s} eat", "what is the food of the {s}"],
    "does the {s} eat {v}",
  ),
  relation(
    "cover",
    ["the {s} is covered with {v}", "the skin of the {s} has {v}"],
    ["with what is the {s} covered", "what is on the skin of the {s}"],
    "is the {s} covered with {v}",
  ),
  relation(
    "habitat",
    ["the {s} hides in the {v}", "the place of the {s} is the {v}"],
    ["where does the {s} hide", "what is the place of the {s}"],
    "does the {s} hide in the {v}",
  ),
  relation(
    "material",
    ["the {s} is made of {v}", "they made the {s} from {v}"],
    ["what is the {s} made of", "from what did they make the {s}"],
    "is the {s} made of {v}",
  ),
  relation(
    "room",
    ["the {s} is kept in the {v}", "in the {v} is the {s}"],
    ["where is the {s} kept", "in which room is the {s}"],
    "is the {s} kept in the {v}",
  ),
  relation(
    "purpose",
    ["the {s} is used to {v}", "to {v} people take the {s}"],
    ["what is the {s} used for", "what can people do with the {s}"],
    "is the {s} used to {v}",
  ),
  relation(
    "work",
    ["a {s} works in the {v}", "the place of work of a {s} is the {v}"],
    ["where does a {s} work", "what is the place of work of a {s}"],
    "does a {s} work in the {v}",
  ),
  relation(
    "tool",
    ["a {s} needs the {v}", "the tool of a {s} is the {v}"],
    ["what does a {s} need", "what is the tool of a {s}"],
    "does a {s} need the {v}",
  ),
  relation(
    "lake",
    ["what is made of {s} {v} in water", "in the lake {s} {v}"],
    ["what does {s} do in the lake"],
    "is it so that {s} {v} in the lake",
  ),
  relation(
    "fire",
    ["what is made of {s} {v} in the fire", "in the fire {s} {v}"],
    ["what does {s} do in the fire"],
    "is it so that {s} {v} in the fire",
  ),
  relation(
    "ground",
    ["what is made of {s} {v} in a fall", "in a fall {s} {v}"],
    ["what does {s} do in a fall"],
    "is it so that {s} {v} in a fall",
  ),
];

function relation(name: RelationName, statements: string[], questions: string[], check: string): Relation {
  return { name, statements, questions, check };
}

const byName = new Map(relations.map((r) => [r.name, r]));

export function relationOf(name: RelationName): Relation {
  return byName.get(name)!;
}

/** Puts subject and value into a sentence of a relation. */
export function fill(template: string, subject: string, value = ""): string {
  return template.replace("{s}", subject).replace("{v}", value);
}

/** @param seed whole number below 2³²: the same seed, the same world. */
export function makeWorld(seed: number): World {
  const random = randomFor(seed, 0);
  const facts = new Map<RelationName, Map<string, string>>();
  const set = (name: RelationName, subjects: readonly string[], pool: readonly string[]): void => {
    const values = spread(random, subjects.length, pool);
    facts.set(name, new Map(subjects.map((subject, i) => [subject, values[i]!])));
  };
  set("home", names.people, names.towns);
  set("job", names.people, names.jobs);
  set("pet", names.people, names.animals);
  set("likes", names.people, names.foods);
  set("hates", names.people, names.foods);
  set("climate", names.towns, names.climates);
  set("diet", names.animals, names.diets);
  set("cover", names.animals, names.covers);
  set("habitat", names.animals, names.habitats);
  set("material", names.objects, names.materials);
  set("room", names.objects, names.rooms);
  set("work", names.jobs, names.workplaces);
  const tools = names.toolPurposes.map(([tool]) => tool);
  set("tool", names.jobs, tools);
  facts.set("purpose", new Map(names.toolPurposes));
  names.rules.forEach((rule) => {
    set(rule.name, names.materials, rule.outcomes);
  });
  // Nobody likes what they hate.
  const likes = facts.get("likes")!;
  const hates = facts.get("hates")!;
  for (const [person, food] of hates) {
    if (likes.get(person) === food)
      hates.set(
        person,
        pick(
          random,
          names.foods.filter((f) => f !== food),
        ),
      );
  }
  return worldOf(facts);
}

function worldOf(facts: ReadonlyMap<RelationName, ReadonlyMap<string, string>>): World {
  const list = relations.flatMap(({ name }) =>
    [...facts.get(name)!].map(([subject, value]): Fact => ({ relation: name, subject, value })),
  );
  const values = new Map(relations.map(({ name }) => [name, [...new Set(facts.get(name)!.values())].sort()]));
  return {
    facts: list,
    value: (name, subject) => facts.get(name)!.get(subject)!,
    values: (name) => values.get(name)!,
    subjects: (name) => [...facts.get(name)!.keys()],
  };
}

/** `count` values in random order, each of the pool as often as any other (to within one). */
function spread<T>(random: Random, count: number, pool: readonly T[]): T[] {
  const values: T[] = [];
  while (values.length < count) values.push(...shuffled(random, pool));
  return shuffled(random, values.slice(0, count));
}
