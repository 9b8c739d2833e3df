/** The words of the invented world. Lists only: who is who and what is what is drawn in world.ts. */

export const people = [
  "ada",
  "bram",
  "cleo",
  "dov",
  "edda",
  "finn",
  "gus",
  "hana",
  "ivo",
  "jude",
  "kai",
  "lena",
  "milo",
  "nell",
  "odo",
  "pia",
  "quin",
  "rosa",
  "sven",
  "tess",
] as const;

export const towns = ["arlo", "brin", "calt", "dorn", "eska", "farl", "gant", "holm"] as const;

export const climates = ["hot", "cold", "wet", "dry", "windy"] as const;

export const animals = [
  "wug",
  "dax",
  "blip",
  "fenn",
  "gorp",
  "hask",
  "jinn",
  "kroll",
  "lorp",
  "mott",
] as const;

export const diets = ["grass", "fish", "seeds", "worms", "roots", "leaves"] as const;
export const covers = ["fur", "scales", "feathers", "wool", "spines"] as const;
export const habitats = ["forest", "desert", "river", "cave", "meadow"] as const;

export const foods = [
  "bread",
  "plums",
  "soup",
  "cheese",
  "nuts",
  "rice",
  "honey",
  "beans",
  "cake",
  "eggs",
] as const;

export const objects = [
  "cup",
  "plate",
  "box",
  "chair",
  "bell",
  "door",
  "lamp",
  "comb",
  "ring",
  "boat",
  "crown",
  "drum",
  "flute",
  "mask",
  "stool",
  "bowl",
] as const;

export const rooms = ["kitchen", "attic", "cellar", "hall", "shed", "tower"] as const;

/** Every tool has the one purpose beside it. */
export const toolPurposes = [
  ["saw", "cut wood"],
  ["spade", "dig a hole"],
  ["needle", "sew a shirt"],
  ["rake", "gather straw"],
  ["hammer", "drive a nail"],
  ["brush", "paint a wall"],
  ["broom", "sweep the floor"],
  ["net", "catch a bird"],
  ["pump", "raise water"],
  ["scale", "weigh gold"],
  ["axe", "fell a tree"],
  ["oven", "bake a loaf"],
] as const;

export const jobs = ["baker", "miner", "nurse", "pilot", "smith", "tailor", "judge", "farmer"] as const;

export const workplaces = ["mill", "mine", "harbor", "market", "school", "court", "barn", "camp"] as const;

/** Materials and what happens to things made of them: in water, in fire, in a fall. */
export const materials = ["stone", "wood", "iron", "glass", "cork", "clay", "paper", "gold"] as const;

/** What a material does in three situations; `name` is the relation of
 * the world that says which outcome. */
export const rules = [
  {
    name: "lake",
    situation: "falls into the lake",
    together: "fall into the lake",
    outcomes: ["sinks", "floats"],
  },
  {
    name: "fire",
    situation: "is put in the fire",
    together: "are put in the fire",
    outcomes: ["burns", "glows"],
  },
  {
    name: "ground",
    situation: "drops on the ground",
    together: "drop on the ground",
    outcomes: ["breaks", "bounces"],
  },
] as const;

/** What happens to a person, and how it makes the person feel. */
export const events = [
  ["won the race", "proud"],
  ["lost the key", "sad"],
  ["saw a snake", "scared"],
  ["got a present", "happy"],
  ["was robbed", "angry"],
  ["worked all night", "tired"],
  ["passed the test", "proud"],
  ["missed the party", "sad"],
  ["heard a scream", "scared"],
  ["met an old friend", "happy"],
  ["was cheated", "angry"],
  ["walked all day", "tired"],
  ["built a tower", "proud"],
  ["broke a toy", "sad"],
  ["fell in the dark", "scared"],
  ["heard good news", "happy"],
  ["was blamed", "angry"],
  ["carried the stones", "tired"],
] as const;

/** Activities and their four steps in order; the steps fit "she ...". */
export const activities = [
  ["baking", "mixes the flour", "kneads the dough", "heats the oven", "slices the loaf"],
  ["fishing", "digs for bait", "throws the hook", "waits for a bite", "pulls the fish out"],
  ["washing", "fills the tub", "rubs the soap", "rinses the shirt", "hangs it to dry"],
  ["painting", "cleans the wall", "opens the paint", "dips the brush", "covers the wall"],
  ["sailing", "unties the boat", "lifts the anchor", "sets the sail", "steers to sea"],
  ["planting", "turns the soil", "drops the seed", "pours the water", "pulls the weeds"],
  ["camping", "finds a spot", "lays the tent", "ties the ropes", "lights the fire"],
  ["sewing", "picks the cloth", "marks the line", "threads the needle", "knots the end"],
  ["writing", "takes the paper", "fills the pen", "greets the reader", "signs the name"],
] as const;
