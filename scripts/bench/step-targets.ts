/** What a step may cost over the frozen floor, and how far ahead of the peer it has to be (dropout 0, rank 32). */
import type { Compute } from "../../src/adapters/adapter.ts";
import type { PeerForm, StepMethod } from "./options.ts";
import type { ShapeName } from "./shapes.ts";
import type { PeerMethod } from "./step-peer.ts";

/** ours over the floor, at most; rate of the floor over that of its products, at least. */
export const FLOOR_TARGETS: Partial<Record<ShapeName, Partial<Record<StepMethod | "floor", number>>>> = {
  smollm2: { "sbora-fa": 1.12, "sbora-fb": 1.15, lora: 1.25, dora: 1.35, floor: 0.8 },
  "llama-7b": { "sbora-fa": 1.05, "sbora-fb": 1.08, lora: 1.15, dora: 1.35, floor: 0.92 },
};

export interface PeerTarget {
  readonly shape: ShapeName;
  readonly compute: Compute;
  readonly form: PeerForm;
  readonly ours: StepMethod;
  readonly peer: PeerMethod;
  readonly least: number;
}

/** Tokens a second of ours over the peer's. */
export const PEER_TARGETS: readonly PeerTarget[] = [
  { shape: "smollm2", compute: "bf16", form: "tuned", ours: "sbora-fa", peer: "lora", least: 2 },
  { shape: "smollm2", compute: "bf16", form: "tuned", ours: "lora", peer: "lora", least: 1.7 },
  { shape: "smollm2", compute: "bf16", form: "tuned", ours: "dora", peer: "dora", least: 2 },
  { shape: "smollm2", compute: "f32", form: "tuned", ours: "sbora-fa", peer: "lora", least: 2.4 },
  { shape: "smollm2", compute: "f32", form: "vendor", ours: "sbora-fa", peer: "lora", least: 1.2 },
  { shape: "llama-7b", compute: "bf16", form: "tuned", ours: "sbora-fa", peer: "lora", least: 1.15 },
  { shape: "llama-7b", compute: "bf16", form: "tuned", ours: "sbora-fa", peer: "dora", least: 2.6 },
];
