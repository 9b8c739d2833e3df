/** Every fine-tuning method by name. A new method is one file and one line here; CLI choices, the documentation table
 * and the test matrix derive from this list. */
import { InputError } from "../errors.ts";
import type { Method, MethodName } from "./adapter.ts";
import { dora, unscaledDora } from "./dora.ts";
import { full } from "./full.ts";
import { lora } from "./lora.ts";
import { loraFa } from "./lora-fa.ts";
import { oa } from "./oa.ts";
import { sboraFa } from "./sbora-fa.ts";
import { sboraFb } from "./sbora-fb.ts";

export const methods: Readonly<Record<MethodName, Method>> = {
  lora,
  dora,
  oa,
  "lora-fa": loraFa,
  "sbora-fa": sboraFa,
  "sbora-fb": sboraFb,
  full,
};

/** @throws InputError with the list of names. */
export function methodNamed(name: string): Method {
  const method = Object.hasOwn(methods, name) ? methods[name as MethodName] : undefined;
  if (method) return method;
  throw new InputError(`unknown method "${name}"; expected one of ${Object.keys(methods).join(", ")}`);
}

/** The method in the norm that a recipe or an adapter folder names; only DoRA has two. */
export function methodInNorm(name: string, norm: Method["norm"]): Method {
  const method = methodNamed(name);
  return method.name === "dora" && norm === "unscaled" ? unscaledDora : method;
}

/** @throws InputError when the rank is not legal for a linear of this size (settled 5). */
export function checkRank(
  method: Method,
  rank: number,
  site: { name: string; in: number; out: number },
): void {
  if (method.name === "full") return;
  if (!Number.isInteger(rank) || rank < 1)
    throw new InputError(`rank ${rank}: expected a whole number of at least 1`);
  const limit = method.maxRank(site);
  if (limit !== null && rank > limit) {
    throw new InputError(
      `rank ${rank} is too large for ${method.title} on ${site.name} [${site.out}, ${site.in}]: it draws distinct ` +
        `${limit === site.in ? "columns" : "rows"}, of which there are ${limit}. Use a rank of at most ${limit}, or other targets.`,
    );
  }
}
