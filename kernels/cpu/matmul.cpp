/*
 * c[m,n] = beta·c + alpha·op(a)·op(b). The shorter side of c becomes the left operand, which is packed once; the longer
 * one is packed panel by panel where it is used. So the factor gradients (m = out, n = r) and x·Aᵀ (m = T, n = r) fill
 * the vectors whatever r is. Which side is left changes no bit: each sum runs along k either way.
 */

/* Sums to the transpose: panel columns are rows of c. */
struct ColumnSink {
  void *c;
  int32_t dtype;
  int64_t ld, rows_of_c; /* c points at the column of c that is the left operand's row 0 */
  float alpha, beta;

  bool begin(int64_t, int64_t, int64_t, float *) const { return false; }
  void end(int64_t panel, int64_t row, int64_t rows, const float *sums) const {
    const int64_t columns = product_min(rows_of_c - panel * kPanel, kPanel);
    for (int64_t i = 0; i < rows; i += kPanel) {
      alignas(64) float turned[kPanel * kPanel];
      const int64_t n = product_min(rows - i, kPanel);
      pack_transposed(n, kPanel, turned, kPanel,
                      [&](int64_t j, int64_t column) { return vf_load(sums + (i + j) * kPanel + column); });
      for (int64_t column = 0; column < columns; column++) {
        const int64_t at = (panel * kPanel + column) * ld + row + i;
        if (dtype == SB_F32)
          store_sums<SB_F32>(static_cast<float *>(c) + at, n, turned + column * kPanel, alpha, nullptr, beta);
        else
          store_sums<SB_BF16>(static_cast<uint16_t *>(c) + at, n, turned + column * kPanel, alpha, nullptr, beta);
      }
    }
  }
};

int32_t matmul(sb_context *context, int32_t transpose_a, int32_t transpose_b, int64_t m, int64_t n, int64_t k,
               double alpha, const void *a, int32_t a_dtype, int64_t lda, const void *b, int32_t b_dtype, int64_t ldb,
               double beta, void *c, int32_t c_dtype, int64_t ldc, int32_t compute) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  const Form form = form_of(compute);
  const Operand rows_of_a = {a, a_dtype, transpose_a != 0, lda, m, k, form};
  const Operand columns_of_b = {b, b_dtype, transpose_b == 0, ldb, n, k, form};
  const bool swapped = n < m;
  const Operand &left_operand = swapped ? columns_of_b : rows_of_a;
  const PackedRight right = {swapped ? rows_of_a : columns_of_b};
  const int64_t depth = words_of(form, k), rows = left_operand.rows, pass = left_rows(rows, depth);
  Workspace workspace;
  if (take_workspace(ctx, "sb_matmul", product_bytes(ctx.threads, rows, depth), rows, product_max(k, rows), workspace))
    return 1;
  for (int64_t row = 0; row < rows; row += pass) {
    const Left left = {reinterpret_cast<float *>(workspace.rest), product_min(pass, rows - row), depth};
    pack_left(ctx, left, nullptr, left_operand, row);
    unsigned char *to = static_cast<unsigned char *>(c) + row * (swapped ? 1 : ldc) * (c_dtype == SB_F32 ? 4 : 2);
    const float scale = static_cast<float>(alpha), keep = static_cast<float>(beta);
    if (swapped)
      multiply(ctx, left, panels_of(right.matrix.rows), right, ColumnSink{to, c_dtype, ldc, m, scale, keep},
               workspace);
    else
      multiply(ctx, left, panels_of(right.matrix.rows), right, RowSink{to, c_dtype, ldc, n, scale, nullptr, keep},
               workspace);
  }
  return 0;
}
