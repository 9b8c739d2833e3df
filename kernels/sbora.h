/*
 * sbora.h: the one C ABI between TypeScript (bun:ffi) and the native libraries.
 *
 * Three libraries implement it: reference (naive, float64 accumulation, the oracle), cpu, cuda. TypeScript opens one
 * of them and never asks which.
 *
 * Rules that hold for every function below
 *   - Returns 0, or non-zero with a text in sb_last_error() (per thread, valid until this thread's next call).
 *   - Sizes are int64_t. Tensors are row-major and dense. Shapes stand in brackets: x[T,H].
 *   - "real" tensors are 32-bit floats (64-bit in the double build of the reference: sb_describe says realBytes).
 *     Where a pointer comes with an `int ..._dtype`, SB_F32 means real; SB_BF16 is allowed too.
 *   - Every tensor pointer is a DEVICE address made by sb_alloc. The host touches it through sb_read and sb_write only.
 *     Pointers marked "host" are host memory, read before the call returns.
 *   - Ops run in call order on one context and may return before they are done; sb_sync waits.
 *   - Nothing is allocated inside an op: sb_reserve sizes the workspace once for the largest shapes of a plan.
 *   - Outputs do not alias inputs unless the function says so. "+=" accumulates, "=" overwrites.
 *   - Sums run in one fixed order: a result depends neither on the number of threads nor on the other rows of a batch.
 *   - Whoever creates a handle or memory frees it.
 *
 * Letters: T tokens of a packed batch, H hidden, F ffn, V vocabulary, N heads, K KV heads, D head size, r rank,
 *          M rows that carry a label. A gradient's name starts with d.
 */
#ifndef SBORA_H
#define SBORA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define SB_NOEXCEPT noexcept
#else
#define SB_NOEXCEPT
#endif

#define SB_API __attribute__((visibility("default")))
#define SB_ABI_VERSION 1

enum sb_dtype { SB_F32 = 0, SB_F16 = 1, SB_BF16 = 2, SB_NF4 = 3 /* weights only */ };

typedef struct sb_context sb_context;
typedef struct sb_weight sb_weight;   /* a frozen matrix [out,in], laid out as the library likes */
typedef struct sb_patch sb_patch;     /* other values for some lines of a weight */
typedef struct sb_mapping sb_mapping; /* a read-only memory-mapped file */

/* ---- library, context, memory ------------------------------------------------------------------------------- */

SB_API int32_t sb_abi_version(void) SB_NOEXCEPT;
SB_API const char *sb_last_error(void) SB_NOEXCEPT;

/* threads <= 0: as many as this process may use. isa (host string, or NULL = the best this processor has):
 * "portable", "avx2", "avx512", "avx512bf16"; asking for one the processor lacks is an error. */
SB_API int32_t sb_open(int32_t threads, const char *isa, sb_context **out) SB_NOEXCEPT;
SB_API int32_t sb_close(sb_context *ctx) SB_NOEXCEPT;
/* Writes one JSON object into json (host): {"backend","isa","isas","device","threads","realBytes","nativeBf16"}. */
SB_API int32_t sb_describe(sb_context *ctx, char *json, int64_t capacity) SB_NOEXCEPT;
SB_API int32_t sb_sync(sb_context *ctx) SB_NOEXCEPT;

/* Workspace for any op on at most `tokens` rows, feature widths `width`, rank `rank`, vocabulary `vocabulary`, each at
 * most 2^28. Grows, never shrinks. *bytes (host) receives the size held. An op that would need more fails and says so;
 * one without rows needs none. */
SB_API int32_t sb_reserve(sb_context *ctx, int64_t tokens, int64_t width, int64_t rank, int64_t vocabulary,
                          int64_t *bytes) SB_NOEXCEPT;

SB_API int32_t sb_alloc(sb_context *ctx, int64_t bytes, void **out) SB_NOEXCEPT; /* zeroed, 64-byte aligned */
SB_API int32_t sb_free(sb_context *ctx, void *memory) SB_NOEXCEPT;
SB_API int32_t sb_allocated(sb_context *ctx, int64_t *bytes) SB_NOEXCEPT; /* alive: sb_alloc + weights + workspace */
SB_API int32_t sb_read(sb_context *ctx, const void *device, void *host, int64_t bytes) SB_NOEXCEPT; /* waits */
SB_API int32_t sb_write(sb_context *ctx, void *device, const void *host, int64_t bytes) SB_NOEXCEPT;
SB_API int32_t sb_copy(sb_context *ctx, void *to, const void *from, int64_t bytes) SB_NOEXCEPT;
SB_API int32_t sb_zero(sb_context *ctx, void *device, int64_t bytes) SB_NOEXCEPT;

/* Maps a file read-only; data (host) receives the HOST address of its first byte, to be given to
 * sb_weight_create. */
SB_API int32_t sb_map(const char *path, sb_mapping **out, void **data, int64_t *bytes) SB_NOEXCEPT;
SB_API int32_t sb_unmap(sb_mapping *mapping) SB_NOEXCEPT;

/* ---- frozen weights ----------------------------------------------------------------------------------------- */

/* Copies data (HOST, [out,in], dtype f32 | f16 | bf16) into the library's own layout. compute SB_F32 keeps the values
 * and the storage type; compute SB_BF16 holds bf16 (f32 and f16 values are rounded to nearest even).
 * NaN or infinity in data is an error that names row and column. */
SB_API int32_t sb_weight_create(sb_context *ctx, const void *data, int32_t dtype, int64_t out, int64_t in,
                                int32_t compute, sb_weight **weight) SB_NOEXCEPT;
SB_API int32_t sb_weight_free(sb_context *ctx, sb_weight *weight) SB_NOEXCEPT;
/* values[n,in] real = rows[n] of W; write rounds once, to the type the weight is held in. rows, columns: int32,
 * distinct. Columns: values[out,n]. Writing is how adapters merge and unmerge (settled: bit-exact). */
SB_API int32_t sb_weight_read_rows(sb_context *ctx, const sb_weight *weight, const int32_t *rows, int64_t n,
                                   void *values) SB_NOEXCEPT;
SB_API int32_t sb_weight_write_rows(sb_context *ctx, sb_weight *weight, const int32_t *rows, int64_t n,
                                    const void *values) SB_NOEXCEPT;
SB_API int32_t sb_weight_read_columns(sb_context *ctx, const sb_weight *weight, const int32_t *columns, int64_t n,
                                      void *values) SB_NOEXCEPT;
SB_API int32_t sb_weight_write_columns(sb_context *ctx, sb_weight *weight, const int32_t *columns, int64_t n,
                                       const void *values) SB_NOEXCEPT;
/* squares[out] real = sum over in of W². */
SB_API int32_t sb_weight_row_squares(sb_context *ctx, const sb_weight *weight, void *squares) SB_NOEXCEPT;

/* ---- patches ------------------------------------------------------------------------------------------------ */

/* Two states of chosen lines of a weight, told by where the bits that they are held in differ: rows (by_columns 0,
 * values[n,in] real) or columns (values[out,n]). One state is what the weight holds now, the other `values`, rounded once
 * to the type it holds. index[n] int32, distinct. Changes nothing yet. Not for NF4. Free it before its weight. */
SB_API int32_t sb_patch_create(sb_context *ctx, sb_weight *weight, int32_t by_columns, const int32_t *index, int64_t n,
                               const void *values, sb_patch **patch) SB_NOEXCEPT;
SB_API int32_t sb_patch_free(sb_context *ctx, sb_patch *patch) SB_NOEXCEPT;
/* Each patch's lines change to its other state, bit for bit, or back: W ^= bits, so that patches may be flipped in any
 * order. All of a list (host, `count` patches), or none where the call fails. Patches of one weight stand side by side:
 * its memory is then gone through once. A library may let the flips wait for the weight's next use; sb_sync makes them. */
SB_API int32_t sb_patch_flip(sb_context *ctx, sb_patch *const *patches, int64_t count) SB_NOEXCEPT;

/* ---- NF4 ---------------------------------------------------------------------------------------------------- */

/* bitsandbytes' 4-bit NormalFloat, bit for bit: data (HOST, [out,in], f32 | f16 | bf16) in blocks of 64 along the rows,
 * across their ends. codes (HOST) [⌈out·in/2⌉]: two a byte, the first in the high half. absmax (HOST, float32)
 * [⌈out·in/64⌉]: the largest magnitude of each block. NaN or infinity is an error that names row and column. */
SB_API int32_t sb_nf4_quantize(sb_context *ctx, const void *data, int32_t dtype, int64_t out, int64_t in,
                               uint8_t *codes, float *absmax) SB_NOEXCEPT;
/* A weight held as SB_NF4, copied from codes and absmax (HOST, as above; double quantization undone by the caller).
 *     W[o,c] = book[code(i)] · absmax[i/64], i = o·in + c: the product in float32, rounded to dtype (f32 | f16 | bf16,
 * what bitsandbytes dequantizes to), then to compute. Every weight and product function works on it; embedding and head
 * do not. sb_weight_write_rows and _columns leave the codes alone: the lines are held beside them in bf16, rounded
 * once, and take their place wherever W is read or multiplied; a line written again is overwritten. Rows or columns,
 * not both at once. Writing allocates. */
SB_API int32_t sb_weight_create_nf4(sb_context *ctx, const uint8_t *codes, const float *absmax, int64_t out, int64_t in,
                                    int32_t dtype, int32_t compute, sb_weight **weight) SB_NOEXCEPT;
/* Drops the replaced lines: an NF4 weight is its codes again. */
SB_API int32_t sb_weight_drop_replaced(sb_context *ctx, sb_weight *weight) SB_NOEXCEPT;

/* ---- matrix products ---------------------------------------------------------------------------------------- */

/* Product 1, the frozen linear with its low-rank tail (design §1):
 *     y[T,out] = beta·y + gain ⊙ ( x[T,in]·Wᵀ + scale · z[T,r]·uᵀ )
 * u[out,r] real; gain[out] real or NULL (= 1); r = 0 (z, u NULL): no tail. Operands are rounded to the weight's compute
 * type; sums are f32. */
SB_API int32_t sb_linear_forward(sb_context *ctx, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t T,
                                 const void *z, int32_t z_dtype, const void *u, int64_t r, double scale,
                                 const void *gain, double beta, void *y, int32_t y_dtype) SB_NOEXCEPT;
/* Product 2, the input gradient:  dx[T,in] = beta·dx + dy[T,out]·W ;  dz[T,r] = scale · dy·u.
 * r = 0 (u, dz NULL): no tail. dx NULL: only dz. dx, dz real. */
SB_API int32_t sb_linear_backward(sb_context *ctx, const sb_weight *weight, const void *dy, int32_t dy_dtype,
                                  int64_t T, const void *u, int64_t r, double scale, void *dz, double beta,
                                  void *dx) SB_NOEXCEPT;
/* c[m,n] = beta·c + alpha · op(a)·op(b); op = transpose when the flag is non-zero; lda, ldb, ldc: row strides in
 * elements of the matrices as stored. Product 3 (factor gradients) and every small product. compute as above. */
SB_API int32_t sb_matmul(sb_context *ctx, int32_t transpose_a, int32_t transpose_b, int64_t m, int64_t n, int64_t k,
                         double alpha, const void *a, int32_t a_dtype, int64_t lda, const void *b, int32_t b_dtype,
                         int64_t ldb, double beta, void *c, int32_t c_dtype, int64_t ldc,
                         int32_t compute) SB_NOEXCEPT;

/* ---- embedding, head ---------------------------------------------------------------------------------------- */

/* x[T,H] real = W[ids]. ids int32 in [0,V). */
SB_API int32_t sb_embedding_forward(sb_context *ctx, const sb_weight *weight, const int32_t *ids, int64_t T,
                                    void *x) SB_NOEXCEPT;
/* dw[V,H] += dx rows, summed per vocabulary row in token order. */
SB_API int32_t sb_embedding_backward(sb_context *ctx, const int32_t *ids, int64_t T, const void *dx, int64_t V,
                                     int64_t H, void *dw) SB_NOEXCEPT;
/* Head and cross-entropy over token blocks; logits are never held whole.
 *     loss[M] real = -log softmax(x·Wᵀ)[target]   (unweighted)
 *     dx[M,H] real = Σ_v weights[m]·(softmax - onehot)·W          (NULL: no gradient)
 *     dw[V,H] real += the same outer products with x               (NULL: frozen head) */
SB_API int32_t sb_head_loss(sb_context *ctx, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t M,
                            const int32_t *targets, const void *weights, void *loss, void *dx,
                            void *dw) SB_NOEXCEPT;
/* values[R,k] real, ids[R,k] int32: the k largest log-softmax values of each row of logits[R,V] real, descending;
 * ties go to the lower id. 1 <= k <= min(V, 256). */
SB_API int32_t sb_topk_log_softmax(sb_context *ctx, const void *logits, int64_t R, int64_t V, int64_t k, void *values,
                                   int32_t *ids) SB_NOEXCEPT;

/* ---- block ops ---------------------------------------------------------------------------------------------- */

/* y = x·rstd ⊙ w, rstd = 1/√(mean(x²)+eps) over H. x, w, rstd real; rstd[T] may be NULL. */
SB_API int32_t sb_rms_norm_forward(sb_context *ctx, const void *x, const void *w, int64_t T, int64_t H, double eps,
                                   void *y, int32_t y_dtype, void *rstd) SB_NOEXCEPT;
/* dx[T,H] += (the residual stream's gradient already lies there); dw[H] += or NULL. All real. */
SB_API int32_t sb_rms_norm_backward(sb_context *ctx, const void *dy, const void *x, const void *w, const void *rstd,
                                    int64_t T, int64_t H, void *dx, void *dw) SB_NOEXCEPT;

/* cosine[P,D/2], sine[P,D/2] real for positions 0..P-1: angle = p · f_i, f_i = theta^(-2i/D).
 * scaling 0: none. 1: linear, f/factor. 2: llama3 (low_factor, high_factor, original = trained context length). */
SB_API int32_t sb_rope_table(sb_context *ctx, int64_t P, int64_t D, double theta, int32_t scaling, double factor,
                             double low_factor, double high_factor, double original, void *cosine,
                             void *sine) SB_NOEXCEPT;
/* Rotates x[T,heads,D] in place, halves (i, i+D/2) as Hugging Face does; inverse != 0 is the transpose (backward). */
SB_API int32_t sb_rope(sb_context *ctx, void *x, int32_t dtype, int64_t T, int64_t heads, int64_t D,
                       const int32_t *positions, int64_t P, const void *cosine, const void *sine,
                       int32_t inverse) SB_NOEXCEPT;

/* Causal attention over packed sequences: sequence b is rows offsets[b]..offsets[b+1) (int32 [B+1]); query head h
 * reads KV head h·K/N. q[T,N,D] k,v[T,K,D] o[T,N,D] of one dtype; lse[T,N] real (log-sum-exp of scaled scores, kept for
 * backward, may be NULL). longest = the longest sequence. */
SB_API int32_t sb_attention_forward(sb_context *ctx, const void *q, const void *k, const void *v, int32_t dtype,
                                    int64_t T, int64_t N, int64_t K, int64_t D, const int32_t *offsets, int64_t B,
                                    int64_t longest, double scale, void *o, void *lse) SB_NOEXCEPT;
/* dq[T,N,D], dk, dv[T,K,D] real, all "="; d_o[T,N,D] real. */
SB_API int32_t sb_attention_backward(sb_context *ctx, const void *q, const void *k, const void *v, const void *o,
                                     int32_t dtype, const void *d_o, const void *lse, int64_t T, int64_t N, int64_t K,
                                     int64_t D, const int32_t *offsets, int64_t B, int64_t longest, double scale,
                                     void *dq, void *dk, void *dv) SB_NOEXCEPT;

/* Paged KV cache, one pair of buffers a layer: cache[pages][K][page][D] of dtype (page = positions a page).
 * Writes row t of k,v[T,K,D] to slot slots[t] = page index · page + offset. */
SB_API int32_t sb_kv_write(sb_context *ctx, const void *k, const void *v, int32_t dtype, int64_t T, int64_t K,
                           int64_t D, const int32_t *slots, int64_t pages, int64_t page, void *cache_k,
                           void *cache_v) SB_NOEXCEPT;
/* Row t belongs to sequence sequences[t] and stands at positions[t]; it reads positions 0..positions[t] through
 * tables[S,max_pages] (page indices). Decode and prefill chunks alike: rows never see each other but through the
 * cache. */
SB_API int32_t sb_attention_paged(sb_context *ctx, const void *q, int32_t dtype, int64_t T, int64_t N, int64_t K,
                                  int64_t D, const void *cache_k, const void *cache_v, int64_t pages, int64_t page,
                                  const int32_t *tables, int64_t S, int64_t max_pages, const int32_t *sequences,
                                  const int32_t *positions, double scale, void *o) SB_NOEXCEPT;

/* h = silu(gate) ⊙ up, n elements, one dtype; h may alias gate or up. */
SB_API int32_t sb_swiglu_forward(sb_context *ctx, const void *gate, const void *up, int32_t dtype, int64_t n,
                                 void *h) SB_NOEXCEPT;
/* dgate, dup real "=" from dh real; dh may alias dgate or dup. */
SB_API int32_t sb_swiglu_backward(sb_context *ctx, const void *gate, const void *up, int32_t dtype, const void *dh,
                                  int64_t n, void *dgate, void *dup) SB_NOEXCEPT;

/* ---- adapters ----------------------------------------------------------------------------------------------- */

/* Inverted dropout. The mask of feature f of a token is lane f%4 of
 * philox4x32-10(counter = (f/4, position, record, module), key); the element is dropped when that word is below
 * floor(p·2³²), else multiplied by 1/(1-p). Never stored, so packed = alone and backward = forward. Host struct. */
typedef struct sb_dropout {
  double p;
  uint64_t key;             /* stream of the run and the optimizer step, mixed by the caller */
  uint64_t module;          /* which adapted linear; fits 32 bits */
  const int32_t *record;    /* [T] device */
  const int32_t *position;  /* [T] device, in the record */
} sb_dropout;

/* y[T,n] = beta·y + dropout(x). drop as above; y may alias x when beta = 0 and dtypes agree. */
SB_API int32_t sb_dropout_apply(sb_context *ctx, const void *x, int32_t x_dtype, int64_t T, int64_t n,
                                const sb_dropout *drop, double beta, void *y, int32_t y_dtype) SB_NOEXCEPT;
/* SBoRA's A·x: z[T,r] = x[T,n][:, columns] under the mask (drop NULL: none). columns int32 distinct, in [0,n). */
SB_API int32_t sb_gather_columns(sb_context *ctx, const void *x, int32_t x_dtype, int64_t T, int64_t n,
                                 const int32_t *columns, int64_t r, const sb_dropout *drop, void *z,
                                 int32_t z_dtype) SB_NOEXCEPT;
/* Its transpose, and SBoRA's B·z: y[T,n][:, columns] += scale · (z[T,r] real under the mask of those features). */
SB_API int32_t sb_scatter_add_columns(sb_context *ctx, const void *z, int64_t T, int64_t r, const int32_t *columns,
                                      const sb_dropout *drop, double scale, void *y, int32_t y_dtype,
                                      int64_t n) SB_NOEXCEPT;
/* y[M,n] = x[rows,:]; and its transpose x[rows,:] += y (rows distinct, real). Negative rows are refused; the height of
 * x is not told, so rows beyond it are the caller's to exclude: they reach other memory. */
SB_API int32_t sb_gather_rows(sb_context *ctx, const void *x, int32_t dtype, int64_t n, const int32_t *rows, int64_t M,
                              void *y) SB_NOEXCEPT;
SB_API int32_t sb_scatter_add_rows(sb_context *ctx, const void *y, int64_t n, const int32_t *rows, int64_t M,
                                   void *x) SB_NOEXCEPT;

/* DoRA: y[T,n] = x ⊙ g[n], every row by the same gains; all real, y may alias x. */
SB_API int32_t sb_scale_columns(sb_context *ctx, const void *x, const void *g, int64_t T, int64_t n,
                                void *y) SB_NOEXCEPT;
/* y[T,n]: row t of x times g[T]; all real, y may alias x. */
SB_API int32_t sb_scale_rows(sb_context *ctx, const void *x, const void *g, int64_t T, int64_t n,
                             void *y) SB_NOEXCEPT;
/* out[n] += Σ_t a[t,·]·b[t,·] / divisor[n] (a real, b of b_dtype; divisor NULL: 1). dm of DoRA. */
SB_API int32_t sb_column_dot(sb_context *ctx, const void *a, const void *b, int32_t b_dtype, int64_t T, int64_t n,
                             const void *divisor, void *out) SB_NOEXCEPT;
/* out[n] = beta·out + alpha · Σ_j a[n,j]·b[n,j], j < r. All real. DoRA's ⟨w,Δ⟩ and ‖Δ‖² by rows. */
SB_API int32_t sb_row_dot(sb_context *ctx, const void *a, const void *b, int64_t n, int64_t r, double alpha,
                          double beta, void *out) SB_NOEXCEPT;
/* norm[n] = √squares ; gain[n] = magnitude / norm. All real; norm may alias squares. */
SB_API int32_t sb_dora_gain(sb_context *ctx, const void *squares, const void *magnitude, int64_t n, void *norm,
                            void *gain) SB_NOEXCEPT;

/* ---- elementwise, optimizer, random ------------------------------------------------------------------------- */

/* y = beta·y + alpha·x, n elements, dtypes as given. Also the cast (alpha 1, beta 0). */
SB_API int32_t sb_axpby(sb_context *ctx, double alpha, const void *x, int32_t x_dtype, double beta, void *y,
                        int32_t y_dtype, int64_t n) SB_NOEXCEPT;
/* *sum (device, float64) = Σ x², x real. */
SB_API int32_t sb_sum_squares(sb_context *ctx, const void *x, int64_t n, double *sum) SB_NOEXCEPT;
/* AdamW (decoupled decay) on flat real buffers, step counts from 1; the gradient is multiplied by gradient_scale first
 * (clipping):  m = b1·m + (1-b1)·g ; v = b2·v + (1-b2)·g² ;
 *              p = p·(1 - lr·decay) - lr · (m/(1-b1^step)) / (√(v/(1-b2^step)) + eps). */
SB_API int32_t sb_adamw(sb_context *ctx, void *p, const void *g, void *m, void *v, int64_t n, double lr, double b1,
                        double b2, double eps, double decay, int64_t step, double gradient_scale) SB_NOEXCEPT;
/* x[n] real: element i is made from lane i%4 of philox4x32-10(counter = (i/4 low, i/4 high, 0, 0), key).
 * uniform: low + (high-low)·(word+0.5)/2³². normal: Box-Muller of lanes (0,1) and (2,3): pair (√(-2 ln u0)·cos 2πu1,
 * √(-2 ln u0)·sin 2πu1), u = (word+0.5)/2³², computed in float64. */
SB_API int32_t sb_random_uniform(sb_context *ctx, uint64_t key, double low, double high, int64_t n,
                                 void *x) SB_NOEXCEPT;
SB_API int32_t sb_random_normal(sb_context *ctx, uint64_t key, int64_t n, void *x) SB_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
