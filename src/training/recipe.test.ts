import { describe, expect, test } from "bun:test";
import { checkRecipe, paperRecipe, recipeHash, type TrainRecipe } from "./recipe.ts";

const lengths = { source: 384, target: 128 };

describe("what only the 4-bit experiments set", () => {
  test("is left out of every other recipe, whose hash stays what it was", () => {
    expect(Object.keys(paperRecipe)).not.toContain("lengths");
    expect(Object.keys(paperRecipe)).not.toContain("doraNorm");
    const { lengths: _, ...without } = { ...paperRecipe, lengths };
    expect(recipeHash(without)).toBe(recipeHash(paperRecipe));
    expect(recipeHash({ ...paperRecipe, lengths })).not.toBe(recipeHash(paperRecipe));
  });

  test("is checked", () => {
    checkRecipe({ ...paperRecipe, lengths, cutoff: 512 });
    checkRecipe({ ...paperRecipe, method: "dora", doraNorm: "unscaled" });
    const refused = (over: Partial<TrainRecipe>) => () => checkRecipe({ ...paperRecipe, ...over });
    expect(refused({ lengths })).toThrow(/lengths are 384 \+ 128, expected .* cutoff 256 as their sum/);
    expect(refused({ lengths: { source: 256, target: 0 } })).toThrow(/lengths are 256 \+ 0/);
    expect(refused({ method: "lora", doraNorm: "unscaled" })).toThrow(
      /doraNorm is unscaled, expected unscaled, and that with method dora alone/,
    );
    expect(refused({ method: "dora", doraNorm: "scaled" as never })).toThrow(/doraNorm is scaled/);
  });
});

test("full fine-tuning has no dropout to record", () => {
  checkRecipe({ ...paperRecipe, method: "full", dropout: 0 });
  expect(() => checkRecipe({ ...paperRecipe, method: "full" })).toThrow(/dropout is 0\.05, expected 0/);
});
