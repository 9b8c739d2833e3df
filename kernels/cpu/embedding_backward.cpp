/* Rows added to rows: the embedding's gradient (ids repeat) and the transpose of gather_rows (rows.cpp). */

/* x[rows[i],:] += y[i,:], y[M,n], in the order of i. A task owns columns, so that rows may repeat. */
inline void add_rows(sb_cpu_context &ctx, const float *y, int64_t n, const int32_t *rows, int64_t M, float *x) {
  parallel_columns(ctx, M, n, [&](int64_t first, int64_t last) {
    for (int64_t i = 0; i < M; i++) {
      const float *from = y + i * n;
      float *to = x + rows[i] * n;
      for (int64_t column = first; column < last; column += kLanes) {
        const int64_t left = last - column;
        store_part<SB_F32>(to, column, load_some<SB_F32>(to, column, left) + load_some<SB_F32>(from, column, left),
                           left);
      }
    }
  });
}

int32_t embedding_backward(sb_context *context, const int32_t *ids, int64_t T, const void *dx, int64_t V, int64_t H,
                           void *dw) noexcept {
  if (check_indices("sb_embedding_backward", "ids", ids, T, V)) return 1;
  add_rows(sb_cpu(context), static_cast<const float *>(dx), H, ids, T, static_cast<float *>(dw));
  return 0;
}
