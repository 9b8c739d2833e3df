/*
 * The shell of every library: each sb_* function is exported here, once. It checks what can be told without touching
 * device memory (NULL, sizes, dtypes, ranges of scalars), then calls the entry of the context's table and turns
 * whatever that throws into a text. The contents of index arrays are the table's business (host/indices.h).
 *
 * A shape without elements is legal: the pointers of its tensors may be NULL, and the op does nothing.
 */
#include "abi_checks.h"
#include "host/mapping.h"

#include <cstdarg>

static thread_local char error_text[1024];

int32_t sb_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error_text, sizeof error_text, format, arguments);
  va_end(arguments);
  return 1;
}

extern "C" {

/* ---- library, mapping ------------------------------------------------------------------------------------------- */

int32_t sb_abi_version(void) noexcept { return SB_ABI_VERSION; }

const char *sb_last_error(void) noexcept { return error_text; }

int32_t sb_open(int32_t threads, const char *isa, sb_context **out) noexcept {
  POINTERS(out);
  return guarded(__func__, [&] { return sb_backend_open(threads, isa, out); });
}

int32_t sb_map(const char *path, sb_mapping **out, void **data, int64_t *bytes) noexcept {
  POINTERS(path, out, data, bytes);
  return host_map(path, out, data, bytes);
}

int32_t sb_unmap(sb_mapping *mapping) noexcept {
  POINTERS(mapping);
  return host_unmap(mapping);
}

/* ---- context, memory -------------------------------------------------------------------------------------------- */

int32_t sb_close(sb_context *ctx) noexcept {
  CALL(close);
}

int32_t sb_describe(sb_context *ctx, char *json, int64_t capacity) noexcept {
  POINTERS(json); COUNTS(capacity);
  CALL(describe, json, capacity);
}

int32_t sb_sync(sb_context *ctx) noexcept {
  CALL(sync);
}

int32_t sb_reserve(sb_context *ctx, int64_t tokens, int64_t width, int64_t rank, int64_t vocabulary,
                   int64_t *bytes) noexcept {
  PLANNED(tokens, width, rank, vocabulary); POINTERS(bytes);
  CALL(reserve, tokens, width, rank, vocabulary, bytes);
}

int32_t sb_alloc(sb_context *ctx, int64_t bytes, void **out) noexcept {
  SIZES(bytes); POINTERS(out);
  CALL(alloc, bytes, out);
}

int32_t sb_free(sb_context *ctx, void *memory) noexcept {
  POINTERS(memory);
  CALL(free, memory);
}

int32_t sb_allocated(sb_context *ctx, int64_t *bytes) noexcept {
  POINTERS(bytes);
  CALL(allocated, bytes);
}

int32_t sb_read(sb_context *ctx, const void *device, void *host, int64_t bytes) noexcept {
  SIZES(bytes);
  TENSORS((bytes), device, host);
  CALL(read, device, host, bytes);
}

int32_t sb_write(sb_context *ctx, void *device, const void *host, int64_t bytes) noexcept {
  SIZES(bytes);
  TENSORS((bytes), device, host);
  CALL(write, device, host, bytes);
}

int32_t sb_copy(sb_context *ctx, void *to, const void *from, int64_t bytes) noexcept {
  SIZES(bytes);
  TENSORS((bytes), to, from);
  CALL(copy, to, from, bytes);
}

int32_t sb_zero(sb_context *ctx, void *device, int64_t bytes) noexcept {
  SIZES(bytes);
  TENSORS((bytes), device);
  CALL(zero, device, bytes);
}

/* ---- frozen weights --------------------------------------------------------------------------------------------- */

int32_t sb_weight_create(sb_context *ctx, const void *data, int32_t dtype, int64_t out, int64_t in, int32_t compute,
                         sb_weight **weight) noexcept {
  COUNTS(out, in);
  FLOATS(dtype); DTYPES(compute);
  TENSORS((out, in), data);
  POINTERS(weight);
  CALL(weight_create, data, dtype, out, in, compute, weight);
}

int32_t sb_weight_free(sb_context *ctx, sb_weight *weight) noexcept {
  POINTERS(weight);
  CALL(weight_free, weight);
}

int32_t sb_weight_read_rows(sb_context *ctx, const sb_weight *weight, const int32_t *rows, int64_t n,
                            void *values) noexcept {
  POINTERS(weight); UP_TO(n, weight->out);
  TENSORS((n), rows); TENSORS((n, weight->in), values);
  CALL(weight_read_rows, weight, rows, n, values);
}

int32_t sb_weight_write_rows(sb_context *ctx, sb_weight *weight, const int32_t *rows, int64_t n,
                             const void *values) noexcept {
  POINTERS(weight); UP_TO(n, weight->out);
  TENSORS((n), rows); TENSORS((n, weight->in), values);
  CALL(weight_write_rows, weight, rows, n, values);
}

int32_t sb_weight_read_columns(sb_context *ctx, const sb_weight *weight, const int32_t *columns, int64_t n,
                               void *values) noexcept {
  POINTERS(weight); UP_TO(n, weight->in);
  TENSORS((n), columns); TENSORS((weight->out, n), values);
  CALL(weight_read_columns, weight, columns, n, values);
}

int32_t sb_weight_write_columns(sb_context *ctx, sb_weight *weight, const int32_t *columns, int64_t n,
                                const void *values) noexcept {
  POINTERS(weight); UP_TO(n, weight->in);
  TENSORS((n), columns); TENSORS((weight->out, n), values);
  CALL(weight_write_columns, weight, columns, n, values);
}

int32_t sb_weight_row_squares(sb_context *ctx, const sb_weight *weight, void *squares) noexcept {
  POINTERS(weight, squares);
  CALL(weight_row_squares, weight, squares);
}

/* ---- patches ---------------------------------------------------------------------------------------------------- */

int32_t sb_patch_create(sb_context *ctx, sb_weight *weight, int32_t by_columns, const int32_t *index, int64_t n,
                        const void *values, sb_patch **patch) noexcept {
  POINTERS(weight, patch); UP_TO(n, by_columns ? weight->in : weight->out); NOT_NF4();
  TENSORS((n), index); TENSORS((n, by_columns ? weight->out : weight->in), values);
  CALL(patch_create, weight, by_columns, index, n, values, patch);
}

int32_t sb_patch_free(sb_context *ctx, sb_patch *patch) noexcept {
  POINTERS(patch);
  CALL(patch_free, patch);
}

int32_t sb_patch_flip(sb_context *ctx, sb_patch *const *patches, int64_t count) noexcept {
  SIZES(count);
  TENSORS((count), patches);
  if (check_patches(__func__, patches, count)) return 1;
  CALL(patch_flip, patches, count);
}

/* ---- NF4 -------------------------------------------------------------------------------------------------------- */

int32_t sb_nf4_quantize(sb_context *ctx, const void *data, int32_t dtype, int64_t out, int64_t in, uint8_t *codes,
                        float *absmax) noexcept {
  COUNTS(out, in); FLOATS(dtype);
  TENSORS((out, in), data);
  POINTERS(codes, absmax);
  CALL(nf4_quantize, data, dtype, out, in, codes, absmax);
}

int32_t sb_weight_create_nf4(sb_context *ctx, const uint8_t *codes, const float *absmax, int64_t out, int64_t in,
                             int32_t dtype, int32_t compute, sb_weight **weight) noexcept {
  COUNTS(out, in); FLOATS(dtype); DTYPES(compute);
  TENSORS((out, in), codes);
  POINTERS(absmax, weight);
  CALL(weight_create_nf4, codes, absmax, out, in, dtype, compute, weight);
}

int32_t sb_weight_drop_replaced(sb_context *ctx, sb_weight *weight) noexcept {
  POINTERS(ctx, weight);
  REQUIRE(weight->dtype == SB_NF4, "the weight is not NF4; what was written into it took the place of what was there");
  CALL(weight_drop_replaced, weight);
}

/* ---- matrix products -------------------------------------------------------------------------------------------- */

int32_t sb_linear_forward(sb_context *ctx, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t T,
                          const void *z, int32_t z_dtype, const void *u, int64_t r, double scale, const void *gain,
                          double beta, void *y, int32_t y_dtype) noexcept {
  POINTERS(weight); SIZES(T, r); DTYPES(x_dtype, y_dtype); FINITE(scale, beta);
  TENSORS((T, weight->in), x); TENSORS((T, weight->out), y);
  if (r > 0) DTYPES(z_dtype);
  TENSORS((T, r), z); TENSORS((weight->out, r), u);
  DONE_IF(T == 0);
  CALL(linear_forward, weight, x, x_dtype, T, z, z_dtype, u, r, scale, gain, beta, y, y_dtype);
}

int32_t sb_linear_backward(sb_context *ctx, const sb_weight *weight, const void *dy, int32_t dy_dtype, int64_t T,
                           const void *u, int64_t r, double scale, void *dz, double beta, void *dx) noexcept {
  POINTERS(weight); SIZES(T, r); DTYPES(dy_dtype); FINITE(scale, beta);
  TENSORS((T, weight->out), dy); TENSORS((weight->out, r), u); TENSORS((T, r), dz);
  REQUIRE(dx || r > 0, "dx is NULL and r is 0; expected at least one result");
  DONE_IF(T == 0);
  CALL(linear_backward, weight, dy, dy_dtype, T, u, r, scale, dz, beta, dx);
}

int32_t sb_matmul(sb_context *ctx, int32_t transpose_a, int32_t transpose_b, int64_t m, int64_t n, int64_t k,
                  double alpha, const void *a, int32_t a_dtype, int64_t lda, const void *b, int32_t b_dtype,
                  int64_t ldb, double beta, void *c, int32_t c_dtype, int64_t ldc, int32_t compute) noexcept {
  SIZES(m, n, k, lda, ldb, ldc); DTYPES(a_dtype, b_dtype, c_dtype, compute); FINITE(alpha, beta);
  MATRIX(a, transpose_a ? k : m, transpose_a ? m : k, lda);
  MATRIX(b, transpose_b ? n : k, transpose_b ? k : n, ldb);
  MATRIX(c, m, n, ldc);
  DONE_IF(m == 0 || n == 0);
  CALL(matmul, transpose_a, transpose_b, m, n, k, alpha, a, a_dtype, lda, b, b_dtype, ldb, beta, c, c_dtype, ldc,
       compute);
}

/* ---- embedding, head -------------------------------------------------------------------------------------------- */

int32_t sb_embedding_forward(sb_context *ctx, const sb_weight *weight, const int32_t *ids, int64_t T,
                             void *x) noexcept {
  POINTERS(weight); SIZES(T); NOT_NF4();
  TENSORS((T), ids); TENSORS((T, weight->in), x);
  CALL(embedding_forward, weight, ids, T, x);
}

int32_t sb_embedding_backward(sb_context *ctx, const int32_t *ids, int64_t T, const void *dx, int64_t V, int64_t H,
                              void *dw) noexcept {
  SIZES(T, V, H);
  TENSORS((T), ids); TENSORS((T, H), dx); TENSORS((V, H), dw);
  CALL(embedding_backward, ids, T, dx, V, H, dw);
}

int32_t sb_head_loss(sb_context *ctx, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t M,
                     const int32_t *targets, const void *weights, void *loss, void *dx, void *dw) noexcept {
  POINTERS(weight); SIZES(M); DTYPES(x_dtype); NOT_NF4();
  TENSORS((M, weight->in), x); TENSORS((M), targets, loss);
  if (dx || dw) TENSORS((M), weights);
  DONE_IF(M == 0);
  CALL(head_loss, weight, x, x_dtype, M, targets, weights, loss, dx, dw);
}

int32_t sb_topk_log_softmax(sb_context *ctx, const void *logits, int64_t R, int64_t V, int64_t k, void *values,
                            int32_t *ids) noexcept {
  SIZES(R); COUNTS(V, k); UP_TO(k, V < 256 ? V : 256);
  TENSORS((R, V), logits); TENSORS((R, k), values, ids);
  CALL(topk_log_softmax, logits, R, V, k, values, ids);
}

/* ---- block ops -------------------------------------------------------------------------------------------------- */

int32_t sb_rms_norm_forward(sb_context *ctx, const void *x, const void *w, int64_t T, int64_t H, double eps, void *y,
                            int32_t y_dtype, void *rstd) noexcept {
  SIZES(T, H); DTYPES(y_dtype); FINITE(eps);
  REQUIRE(eps >= 0, "eps is %g; expected 0 or more", eps);
  TENSORS((T, H), x, y); TENSORS((H), w);
  CALL(rms_norm_forward, x, w, T, H, eps, y, y_dtype, rstd);
}

int32_t sb_rms_norm_backward(sb_context *ctx, const void *dy, const void *x, const void *w, const void *rstd,
                             int64_t T, int64_t H, void *dx, void *dw) noexcept {
  SIZES(T, H);
  TENSORS((T, H), dy, x, dx); TENSORS((H), w); TENSORS((T), rstd);
  CALL(rms_norm_backward, dy, x, w, rstd, T, H, dx, dw);
}

int32_t sb_rope_table(sb_context *ctx, int64_t P, int64_t D, double theta, int32_t scaling, double factor,
                      double low_factor, double high_factor, double original, void *cosine, void *sine) noexcept {
  SIZES(P); EVEN(D);
  REQUIRE(scaling >= 0 && scaling <= 2, "scaling is %d; expected 0 (none), 1 (linear) or 2 (llama3)", scaling);
  POSITIVE(theta);
  if (scaling >= 1) POSITIVE(factor);
  if (scaling == 2) {
    POSITIVE(low_factor, high_factor, original);
    REQUIRE(low_factor < high_factor, "low_factor is %g; expected less than high_factor, %g", low_factor, high_factor);
  }
  TENSORS((P, D / 2), cosine, sine);
  CALL(rope_table, P, D, theta, scaling, factor, low_factor, high_factor, original, cosine, sine);
}

int32_t sb_rope(sb_context *ctx, void *x, int32_t dtype, int64_t T, int64_t heads, int64_t D, const int32_t *positions,
                int64_t P, const void *cosine, const void *sine, int32_t inverse) noexcept {
  SIZES(T, P); COUNTS(heads); EVEN(D); DTYPES(dtype);
  TENSORS((T, heads, D), x); TENSORS((T), positions); TENSORS((P, D / 2), cosine, sine);
  CALL(rope, x, dtype, T, heads, D, positions, P, cosine, sine, inverse);
}

int32_t sb_attention_forward(sb_context *ctx, const void *q, const void *k, const void *v, int32_t dtype, int64_t T,
                             int64_t N, int64_t K, int64_t D, const int32_t *offsets, int64_t B, int64_t longest,
                             double scale, void *o, void *lse) noexcept {
  ATTENTION(); PACKED();
  TENSORS((T, N, D), q, o); TENSORS((T, K, D), k, v);
  DONE_IF(T == 0);
  CALL(attention_forward, q, k, v, dtype, T, N, K, D, offsets, B, longest, scale, o, lse);
}

int32_t sb_attention_backward(sb_context *ctx, const void *q, const void *k, const void *v, const void *o,
                              int32_t dtype, const void *d_o, const void *lse, int64_t T, int64_t N, int64_t K,
                              int64_t D, const int32_t *offsets, int64_t B, int64_t longest, double scale, void *dq,
                              void *dk, void *dv) noexcept {
  ATTENTION(); PACKED();
  TENSORS((T, N, D), q, o, d_o, dq); TENSORS((T, K, D), k, v, dk, dv); TENSORS((T, N), lse);
  DONE_IF(T == 0);
  CALL(attention_backward, q, k, v, o, dtype, d_o, lse, T, N, K, D, offsets, B, longest, scale, dq, dk, dv);
}

int32_t sb_kv_write(sb_context *ctx, const void *k, const void *v, int32_t dtype, int64_t T, int64_t K, int64_t D,
                    const int32_t *slots, int64_t pages, int64_t page, void *cache_k, void *cache_v) noexcept {
  SIZES(T, pages); COUNTS(K, D, page); DTYPES(dtype);
  TENSORS((T, K, D), k, v); TENSORS((T), slots); TENSORS((pages, K, page, D), cache_k, cache_v);
  CALL(kv_write, k, v, dtype, T, K, D, slots, pages, page, cache_k, cache_v);
}

int32_t sb_attention_paged(sb_context *ctx, const void *q, int32_t dtype, int64_t T, int64_t N, int64_t K, int64_t D,
                           const void *cache_k, const void *cache_v, int64_t pages, int64_t page,
                           const int32_t *tables, int64_t S, int64_t max_pages, const int32_t *sequences,
                           const int32_t *positions, double scale, void *o) noexcept {
  ATTENTION(); SIZES(pages, S, max_pages); COUNTS(page);
  TENSORS((T, N, D), q, o); TENSORS((pages, K, page, D), cache_k, cache_v); TENSORS((S, max_pages), tables);
  TENSORS((T), sequences, positions);
  DONE_IF(T == 0);
  CALL(attention_paged, q, dtype, T, N, K, D, cache_k, cache_v, pages, page, tables, S, max_pages, sequences,
       positions, scale, o);
}

int32_t sb_swiglu_forward(sb_context *ctx, const void *gate, const void *up, int32_t dtype, int64_t n,
                          void *h) noexcept {
  SIZES(n); DTYPES(dtype);
  TENSORS((n), gate, up, h);
  CALL(swiglu_forward, gate, up, dtype, n, h);
}

int32_t sb_swiglu_backward(sb_context *ctx, const void *gate, const void *up, int32_t dtype, const void *dh, int64_t n,
                           void *dgate, void *dup) noexcept {
  SIZES(n); DTYPES(dtype);
  TENSORS((n), gate, up, dh, dgate, dup);
  CALL(swiglu_backward, gate, up, dtype, dh, n, dgate, dup);
}

/* ---- adapters --------------------------------------------------------------------------------------------------- */

int32_t sb_dropout_apply(sb_context *ctx, const void *x, int32_t x_dtype, int64_t T, int64_t n, const sb_dropout *drop,
                         double beta, void *y, int32_t y_dtype) noexcept {
  SIZES(T, n); DTYPES(x_dtype, y_dtype); FINITE(beta); POINTERS(drop); DROPOUT();
  TENSORS((T, n), x, y);
  CALL(dropout_apply, x, x_dtype, T, n, drop, beta, y, y_dtype);
}

int32_t sb_gather_columns(sb_context *ctx, const void *x, int32_t x_dtype, int64_t T, int64_t n,
                          const int32_t *columns, int64_t r, const sb_dropout *drop, void *z,
                          int32_t z_dtype) noexcept {
  SIZES(T, n); UP_TO(r, n); DTYPES(x_dtype, z_dtype); DROPOUT();
  TENSORS((T, n), x); TENSORS((r), columns); TENSORS((T, r), z);
  CALL(gather_columns, x, x_dtype, T, n, columns, r, drop, z, z_dtype);
}

int32_t sb_scatter_add_columns(sb_context *ctx, const void *z, int64_t T, int64_t r, const int32_t *columns,
                               const sb_dropout *drop, double scale, void *y, int32_t y_dtype, int64_t n) noexcept {
  SIZES(T, n); UP_TO(r, n); DTYPES(y_dtype); FINITE(scale); DROPOUT();
  TENSORS((T, r), z); TENSORS((r), columns); TENSORS((T, n), y);
  CALL(scatter_add_columns, z, T, r, columns, drop, scale, y, y_dtype, n);
}

int32_t sb_gather_rows(sb_context *ctx, const void *x, int32_t dtype, int64_t n, const int32_t *rows, int64_t M,
                       void *y) noexcept {
  SIZES(n, M); DTYPES(dtype);
  TENSORS((M), rows); TENSORS((M, n), x, y);
  CALL(gather_rows, x, dtype, n, rows, M, y);
}

int32_t sb_scatter_add_rows(sb_context *ctx, const void *y, int64_t n, const int32_t *rows, int64_t M,
                            void *x) noexcept {
  SIZES(n, M);
  TENSORS((M), rows); TENSORS((M, n), y, x);
  CALL(scatter_add_rows, y, n, rows, M, x);
}

int32_t sb_scale_columns(sb_context *ctx, const void *x, const void *g, int64_t T, int64_t n, void *y) noexcept {
  SIZES(T, n);
  TENSORS((T, n), x, y); TENSORS((n), g);
  CALL(scale_columns, x, g, T, n, y);
}

int32_t sb_scale_rows(sb_context *ctx, const void *x, const void *g, int64_t T, int64_t n, void *y) noexcept {
  SIZES(T, n);
  TENSORS((T, n), x, y); TENSORS((T), g);
  CALL(scale_rows, x, g, T, n, y);
}

int32_t sb_column_dot(sb_context *ctx, const void *a, const void *b, int32_t b_dtype, int64_t T, int64_t n,
                      const void *divisor, void *out) noexcept {
  SIZES(T, n); DTYPES(b_dtype);
  TENSORS((T, n), a, b); TENSORS((n), out);
  CALL(column_dot, a, b, b_dtype, T, n, divisor, out);
}

int32_t sb_row_dot(sb_context *ctx, const void *a, const void *b, int64_t n, int64_t r, double alpha, double beta,
                   void *out) noexcept {
  SIZES(n, r); FINITE(alpha, beta);
  TENSORS((n, r), a, b); TENSORS((n), out);
  CALL(row_dot, a, b, n, r, alpha, beta, out);
}

int32_t sb_dora_gain(sb_context *ctx, const void *squares, const void *magnitude, int64_t n, void *norm,
                     void *gain) noexcept {
  SIZES(n);
  TENSORS((n), squares, magnitude, norm, gain);
  CALL(dora_gain, squares, magnitude, n, norm, gain);
}

/* ---- elementwise, optimizer, random ----------------------------------------------------------------------------- */

int32_t sb_axpby(sb_context *ctx, double alpha, const void *x, int32_t x_dtype, double beta, void *y, int32_t y_dtype,
                 int64_t n) noexcept {
  SIZES(n); DTYPES(x_dtype, y_dtype); FINITE(alpha, beta);
  TENSORS((n), x, y);
  CALL(axpby, alpha, x, x_dtype, beta, y, y_dtype, n);
}

int32_t sb_sum_squares(sb_context *ctx, const void *x, int64_t n, double *sum) noexcept {
  SIZES(n);
  TENSORS((n), x);
  POINTERS(sum);
  CALL(sum_squares, x, n, sum);
}

int32_t sb_adamw(sb_context *ctx, void *p, const void *g, void *m, void *v, int64_t n, double lr, double b1, double b2,
                 double eps, double decay, int64_t step, double gradient_scale) noexcept {
  SIZES(n); FINITE(lr, eps, decay, gradient_scale); FRACTIONS(b1, b2);
  REQUIRE(step >= 1, "step is %lld; expected 1 or more", static_cast<long long>(step));
  TENSORS((n), p, g, m, v);
  CALL(adamw, p, g, m, v, n, lr, b1, b2, eps, decay, step, gradient_scale);
}

int32_t sb_random_uniform(sb_context *ctx, uint64_t key, double low, double high, int64_t n, void *x) noexcept {
  SIZES(n); FINITE(low, high);
  TENSORS((n), x);
  CALL(random_uniform, key, low, high, n, x);
}

int32_t sb_random_normal(sb_context *ctx, uint64_t key, int64_t n, void *x) noexcept {
  SIZES(n);
  TENSORS((n), x);
  CALL(random_normal, key, n, x);
}
} // extern "C"
