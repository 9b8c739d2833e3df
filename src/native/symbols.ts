/**
 * The FFI table: every function of `kernels/sbora.h` and the types it takes. `symbols.test.ts` parses the header and
 * holds this table to it. All but `sb_abi_version` and `sb_last_error` return a status (0 = done).
 *
 * One letter an argument (blanks only group them): p pointer, i int32, l int64, u uint64, d double, s C string.
 */
export const SIGNATURES = {
  sb_abi_version: "",
  sb_last_error: "",
  sb_open: "i s p",
  sb_close: "p",
  sb_describe: "p p l",
  sb_sync: "p",
  sb_reserve: "p llll p",
  sb_alloc: "p l p",
  sb_free: "p p",
  sb_allocated: "p p",
  sb_read: "p pp l",
  sb_write: "p pp l",
  sb_copy: "p pp l",
  sb_zero: "p p l",
  sb_map: "s ppp",
  sb_unmap: "p",

  sb_weight_create: "p pi ll i p",
  sb_weight_free: "p p",
  sb_weight_read_rows: "p p pl p",
  sb_weight_write_rows: "p p pl p",
  sb_weight_read_columns: "p p pl p",
  sb_weight_write_columns: "p p pl p",
  sb_weight_row_squares: "p p p",
  sb_nf4_quantize: "p pi ll pp",
  sb_weight_create_nf4: "p pp ll ii p",
  sb_weight_drop_replaced: "p p",

  sb_patch_create: "p p i pl p p",
  sb_patch_free: "p p",
  sb_patch_flip: "p p l",

  sb_linear_forward: "p p pi l pi p l d p d pi",
  sb_linear_backward: "p p pi l p l d p d p",
  sb_matmul: "p ii lll d pil pil d pil i",
  sb_embedding_forward: "p p pl p",
  sb_embedding_backward: "p pl p ll p",
  sb_head_loss: "p p pi l pp ppp",
  sb_topk_log_softmax: "p p lll pp",

  sb_rms_norm_forward: "p pp ll d pi p",
  sb_rms_norm_backward: "p pppp ll pp",
  sb_rope_table: "p ll d i dddd pp",
  sb_rope: "p pi lll pl pp i",
  sb_attention_forward: "p ppp i llll pll d pp",
  sb_attention_backward: "p pppp i pp llll pll d ppp",
  sb_kv_write: "p pp i lll p ll pp",
  sb_attention_paged: "p pi llll pp ll pll pp d p",
  sb_swiglu_forward: "p pp i l p",
  sb_swiglu_backward: "p pp i p l pp",

  sb_dropout_apply: "p pi ll p d pi",
  sb_gather_columns: "p pi ll pl p pi",
  sb_scatter_add_columns: "p p ll p p d pi l",
  sb_gather_rows: "p pi l pl p",
  sb_scatter_add_rows: "p p l pl p",
  sb_scale_columns: "p pp ll p",
  sb_scale_rows: "p pp ll p",
  sb_column_dot: "p p pi ll p p",
  sb_row_dot: "p pp ll dd p",
  sb_dora_gain: "p pp l pp",

  sb_axpby: "p d pi d pi l",
  sb_sum_squares: "p p l p",
  sb_adamw: "p pppp l ddddd l d",
  sb_random_uniform: "p u dd l p",
  sb_random_normal: "p u l p",
} as const;

/** The letters of `SIGNATURES` as bun:ffi names them. */
export const LETTERS = { p: "ptr", i: "i32", l: "i64", u: "u64", d: "f64", s: "cstring" } as const;

type Buffer = Uint8Array | Uint16Array | Int32Array | Float32Array | Float64Array | BigInt64Array;
interface ArgumentTypes {
  /** An address, or a buffer whose memory is good for the length of the call; null is NULL. */
  p: number | Buffer | null;
  i: number;
  l: number;
  u: bigint;
  d: number;
  s: string | null;
}
type Arguments<S extends string> = S extends `${infer Head}${infer Rest}`
  ? Head extends keyof ArgumentTypes
    ? [ArgumentTypes[Head], ...Arguments<Rest>]
    : Arguments<Rest>
  : [];

/** The library's functions as TypeScript sees them: numbers in, a status out. */
export type NativeSymbols = {
  readonly [K in keyof typeof SIGNATURES]: (
    ...values: Arguments<(typeof SIGNATURES)[K]>
  ) => K extends "sb_last_error" ? string | null : number;
};

export interface SymbolType {
  readonly args: (typeof LETTERS)[keyof typeof LETTERS][];
  readonly returns: "i32" | "cstring";
}

/** `SIGNATURES` in the form `dlopen` takes. */
export function ffiTable(): Record<string, SymbolType> {
  const table: Record<string, SymbolType> = {};
  for (const [name, letters] of Object.entries(SIGNATURES)) {
    const args = [...letters.replaceAll(" ", "")].map((letter) => LETTERS[letter as keyof typeof LETTERS]);
    table[name] = { args, returns: name === "sb_last_error" ? "cstring" : "i32" };
  }
  return table;
}
