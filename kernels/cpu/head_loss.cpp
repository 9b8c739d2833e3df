/*
 * Head and cross-entropy by blocks of head_rows(V) rows: logits of one block over the whole vocabulary, the loss, then
 * dlogits in place, from which dx and dw are made before the next block overwrites them.
 */

/* loss of one row; with gradient, logits become weight·(softmax - onehot). width: V padded to whole panels. */
float cross_entropy_row(float *logits, int64_t V, int64_t width, int32_t target, bool gradient, float weight) {
  for (int64_t i = V; i < width; i++) logits[i] = -INFINITY;
  vf largest = vf_set(-INFINITY);
  for (int64_t i = 0; i < width; i += kLanes) largest = vf_max(largest, vf_load(logits + i));
  float lanes[kLanes];
  vf_store(lanes, largest);
  float most = lanes[0];
  for (int64_t lane = 1; lane < kLanes; lane++) most = lanes[lane] > most ? lanes[lane] : most;

  double total = 0; /* lanes in f32 over 1024 columns, those sums in double: V = 128k loses nothing */
  for (int64_t i = 0; i < width;) {
    const int64_t end = product_min(i + 1024, width);
    vf sum = vf_zero();
    for (; i < end; i += kLanes) sum = sum + vf_exp(vf_load(logits + i) - vf_set(most));
    vf_store(lanes, sum);
    for (int64_t lane = 0; lane < kLanes; lane++) total += lanes[lane];
  }
  const float log_sum = static_cast<float>(most + log(total)), loss = log_sum - logits[target];
  if (gradient) {
    for (int64_t i = 0; i < width; i += kLanes)
      vf_store(logits + i, vf_exp(vf_load(logits + i) - vf_set(log_sum)) * vf_set(weight));
    logits[target] -= weight;
  }
  return loss;
}

/* Adds to what an earlier chunk of the vocabulary left in dx, so that a sum runs through all of it in order. */
struct ResumingSink {
  RowSink rows;
  bool resume;

  bool begin(int64_t panel, int64_t row, int64_t count, float *sums) const {
    const int64_t column = panel * kPanel, n = product_min(rows.columns - column, kPanel);
    if (!resume) return false;
    for (int64_t i = 0; i < count; i++)
      memcpy(sums + i * kPanel, static_cast<float *>(rows.y) + (row + i) * rows.ld + column, n * sizeof(float));
    return true;
  }
  void end(int64_t panel, int64_t row, int64_t count, const float *sums) const { rows.end(panel, row, count, sums); }
};

int32_t head_loss(sb_context *context, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t M,
                  const int32_t *targets, const void *weights, void *loss, void *dx, void *dw) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  const CpuWeight &w = settled_weight(context, weight);
  const int64_t V = w.out, H = w.in, width = panels_of(V) * kPanel, step = head_rows(V);
  const Form form = form_of(w.compute);
  const ForwardRight forward = {w, held_format(w), {}, 0, 1, false};
  const int64_t words = forward.held == Format::bf16 ? (H + 1) / 2 * 2 : words_of(form, H);
  if (check_indices("sb_head_loss", "targets", targets, M, V)) return 1;
  Workspace workspace;
  if (take_workspace(ctx, "sb_head_loss", head_bytes(ctx.threads, M, H, V), M, H, workspace)) return 1;
  float *logits = reinterpret_cast<float *>(workspace.rest);
  float *packed = reinterpret_cast<float *>(workspace.rest + head_logits_bytes(M, V));

  for (int64_t row = 0; row < M; row += step) {
    const int64_t rows = product_min(step, M - row);
    const unsigned char *block = static_cast<const unsigned char *>(x) + row * H * (x_dtype == SB_F32 ? 4 : 2);
    const Left left = {packed, rows, words};
    pack_left(ctx, left, nullptr, {block, x_dtype, false, H, rows, H, form}, 0);
    multiply(ctx, left, panels_of(w.out), forward, RowSink{logits, SB_F32, width, V, 1, nullptr, 0}, workspace);

    parallel(ctx, rows, [&](int64_t i, int32_t) {
      const float scale = weights ? static_cast<const float *>(weights)[row + i] : 1;
      static_cast<float *>(loss)[row + i] =
          cross_entropy_row(logits + i * width, V, width, targets[row + i], dx || dw, scale);
    });

    for (int64_t first = 0; dx && first < V; first += kHeadChunk) {
      const int64_t count = product_min(kHeadChunk, V - first);
      const Left gradient = {packed, rows, words_of(form, count)};
      pack_left(ctx, gradient, nullptr, {logits + first, SB_F32, false, width, rows, count, form}, 0);
      const BackwardRight right = {w, form, first / kPanel, panels_of(H), {}};
      multiply(ctx, gradient, panels_of(H), right,
               ResumingSink{{static_cast<float *>(dx) + row * H, SB_F32, H, H, 1, nullptr, 0}, first > 0}, workspace);
    }

    if (dw) { /* dw[V,H] = dlogitsᵀ·x with x on the left: dlogits are read as they lie */
      const Left inputs = {packed, H, words_of(form, rows)};
      pack_left(ctx, inputs, nullptr, {block, x_dtype, true, H, H, rows, form}, 0);
      multiply(ctx, inputs, panels_of(V), PackedRight{{logits, SB_F32, true, width, V, rows, form}},
               ColumnSink{dw, SB_F32, H, V, 1, 1}, workspace);
    }
  }
  return 0;
}
