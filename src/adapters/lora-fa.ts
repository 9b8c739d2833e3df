/** LoRA-FA (protocol §1.5): LoRA with A frozen at its Kaiming uniform start, the setting of the 16-bit script. */
import { factor } from "./adapter.ts";
import { drawKaimingA } from "./draw.ts";
import { frozenA } from "./frozen-a.ts";

export const loraFa = frozenA({
  name: "lora-fa",
  title: "LoRA-FA",
  summary: "A random and frozen; trains B [out,r]",
  maxRank: () => null,
  initialise(device, adapter, _weight, draw) {
    drawKaimingA(device, factor(adapter.frozen, "A"), adapter.site, draw.seed);
  },
});
