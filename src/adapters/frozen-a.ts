/** What LoRA-FA and OA share: a dense A that is drawn once and never trained (protocol §1.4, §1.5). */
import { f32, factor, type Method } from "./adapter.ts";
import { mergeDense } from "./draw.ts";
import { lowRankBackward, lowRankForward } from "./low-rank.ts";

type Own = Pick<Method, "name" | "title" | "summary" | "maxRank" | "initialise">;

/** A method with frozen A [r,in] and trained B [out,r] from zero; `own` says how A is drawn. */
export function frozenA(own: Own): Method {
  return {
    ...own,
    keepsInput: false,
    trainable: ({ out, rank }) => ({ B: f32(out, rank) }),
    frozen: ({ in: width, rank }) => ({ A: f32(rank, width) }),
    derived: () => ({}),
    prepare() {},
    forward: (pass, adapter, weight, x, y, beta) =>
      lowRankForward(pass, adapter, weight, factor(adapter.frozen, "A"), x, y, beta),
    backward(pass, adapter, weight, saved, _x, dy, dx, betaDx) {
      lowRankBackward(pass, adapter, weight, factor(adapter.frozen, "A"), saved, null, dy, dx, betaDx);
    },
    merge(device, adapter, weight, scratch) {
      mergeDense(
        device,
        adapter,
        weight,
        factor(adapter.frozen, "A"),
        factor(adapter.trainable, "B"),
        scratch,
      );
    },
  };
}
