/** Every op of the library, one typed wrapper each. */
export * from "./adamw.ts";
export {
  type AttentionInputs,
  type AttentionShape,
  attentionBackward,
  attentionForward,
  type Packed,
} from "./attention.ts";
export * from "./attention-paged.ts";
export * from "./columns.ts";
export * from "./dora.ts";
export { type Dropout, dropoutApply } from "./dropout.ts";
export * from "./elementwise.ts";
export * from "./embedding.ts";
export * from "./head-loss.ts";
export * from "./linear.ts";
export * from "./matmul.ts";
export * from "./random.ts";
export * from "./rms-norm.ts";
export * from "./rope.ts";
export * from "./rows.ts";
export * from "./swiglu.ts";
export * from "./topk.ts";
