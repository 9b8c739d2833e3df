/** A B A B: everyone has a turn in every round, so that what slows the machine down meets all of them. */

export interface Contender<T> {
  readonly name: string;
  readonly run: (round: number) => T | Promise<T>;
}

/** Before every turn, so that the threads of whoever ran before have stopped spinning. */
const PAUSE_MS = 20;

/** Runs `warmups` rounds that are dropped, then `rounds`. @returns by name what each measured round gave, in order */
export async function interleave<T>(
  contenders: readonly Contender<T>[],
  rounds: number,
  warmups = 1,
): Promise<Map<string, T[]>> {
  const results = new Map<string, T[]>(contenders.map(({ name }) => [name, []]));
  if (results.size !== contenders.length) throw new Error("two contenders have one name");
  for (let round = -warmups; round < rounds; round++) {
    for (const { name, run } of contenders) {
      await Bun.sleep(PAUSE_MS);
      const result = await run(round);
      if (round >= 0) results.get(name)!.push(result);
    }
  }
  return results;
}

/** Milliseconds of one call. */
export function timed(body: () => void): number {
  const start = performance.now();
  body();
  return performance.now() - start;
}
