/** Logits behind prompts against the training pass, alone and in groups. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeRig, figure, noise, openRig, packed, type Rig } from "../model/testing.ts";
import { logitsPass } from "../model/train-pass.ts";
import { nextTokenLogits, sharedLength } from "./next-token.ts";

const IDS = [7, 3, 50];
let rig: Rig;
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => closeRig(rig));

const random = noise(5);
const below = (n: number): number => Math.min(n - 1, Math.floor(((random() + 1) / 2) * n));
const tokens = (length: number): number[] => Array.from({ length }, () => below(101));

/** `count` prompts with `shared` tokens in common and 1 to 30 of their own. */
function group(count: number, shared: number): number[][] {
  const first = tokens(shared);
  return Array.from({ length: count }, () => [...first, ...tokens(1 + below(30))]);
}

describe("nextTokenLogits", () => {
  const groups = [group(70, 37), group(1, 20), group(5, 0)];

  test("are the training pass's logits, whatever is shared", async () => {
    const done: number[] = [];
    const found = await nextTokenLogits(rig.model, groups, IDS, (n) => done.push(n));
    const prompts = groups.flat();
    expect(found).toHaveLength(prompts.length);
    expect(done.at(-1)).toBe(prompts.length);
    let worst = 0;
    for (const [i, prompt] of prompts.entries()) {
      const all = logitsPass(rig.model, packed([[...prompt, 0]]), rig);
      const V = rig.model.config.vocabSize;
      for (const [j, id] of IDS.entries()) {
        worst = Math.max(worst, Math.abs(found[i]![j]! - all[(prompt.length - 1) * V + id]!));
      }
    }
    expect(figure("logit", worst)).toBeLessThan(1e-4);
  });

  test("of a prompt alone have the very bytes they have in its group", async () => {
    const together = await nextTokenLogits(rig.model, groups.slice(0, 1), IDS);
    for (const i of [0, 33, 69]) {
      const [alone] = await nextTokenLogits(rig.model, [[groups[0]![i]!]], IDS);
      expect(alone).toEqual(together[i]!);
    }
  });

  test("nothing to ask; a prompt longer than the rotary table", async () => {
    expect(await nextTokenLogits(rig.model, [], IDS)).toEqual([]);
    expect(nextTokenLogits(rig.model, [[tokens(4000)]], IDS)).rejects.toThrow(/has 4000 tokens/);
  });
});

test("what is shared ends before any prompt's last token", () => {
  expect(sharedLength([[1, 2, 3]])).toBe(2);
  expect(
    sharedLength([
      [1, 2, 3],
      [1, 2],
      [1, 2, 3],
    ]),
  ).toBe(1);
  expect(sharedLength([[1, 2], [3]])).toBe(0);
  expect(sharedLength([])).toBe(0);
});
