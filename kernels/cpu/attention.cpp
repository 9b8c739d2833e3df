/*
 * Causal attention over packed sequences and its gradients. A row is a pair (position, query head) of those heads that
 * share a KV head, numbered position by position: row r of a sequence is head r mod G at position r / G, G = N / K.
 * Forward: a task is a block of rows of one sequence and KV head. Backward: see attention_backward.
 */
#include "attention_backward.h"

/*
 * All sequences cut into pieces of at most `step` rows, G rows a token. Piece numbers grow with the sequence and leave
 * gaps: sequence s begins at number offsets[s]·G / step + s, which is far enough from the next one's.
 */
struct Pieces {
  const int32_t *offsets;
  int64_t B, G, step;

  int64_t number(int64_t s) const { return offsets[s] * G / step + s; }
  int64_t count() const { return number(B); }
  /* Sequence and first row of a piece; the row may lie behind the sequence's end: then there is no such piece. */
  void find(int64_t piece, int64_t &sequence, int64_t &row) const {
    int64_t low = 0, high = B; /* number(low) <= piece < number(high) */
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (number(middle) <= piece ? low : high) = middle;
    }
    sequence = low;
    row = (piece - number(low)) * step;
  }
};

/* Up to kAttentionRows rows from `row` on of a sequence of `tokens` tokens that begins at token `start`. */
inline AttentionRows packed_rows(int64_t start, int64_t tokens, int64_t row, int64_t N, int64_t G, int64_t head) {
  AttentionRows rows;
  rows.count = product_max(product_min(tokens * G - row, kAttentionRows), 0);
  int64_t position = row / G, h = row % G;
  for (int64_t i = 0; i < rows.count; i++) {
    rows.line[i] = (start + position) * N + head * G + h;
    rows.position[i] = position;
    if (++h < G) continue;
    h = 0;
    position++;
  }
  return rows;
}

int32_t attention_forward(sb_context *context, const void *q, const void *k, const void *v, int32_t dtype, int64_t T,
                          int64_t N, int64_t K, int64_t D, const int32_t *offsets, int64_t B, int64_t longest,
                          double scale, void *o, void *lse) noexcept {
  if (check_offsets("sb_attention_forward", offsets, B, T, longest)) return 1;
  const int64_t G = N / K;
  const Pieces pieces = {offsets, B, G, kAttentionRows};
  const int64_t tasks = pieces.count() * K;
  return attention_tasks(sb_cpu(context), "sb_attention_forward", D, tasks, [&](int64_t task, float *memory) {
    /* From the last piece to the first: the longer a task, the earlier. */
    const int64_t piece = (tasks - 1 - task) / K, head = (tasks - 1 - task) % K;
    int64_t sequence, row;
    pieces.find(piece, sequence, row);
    const int64_t start = offsets[sequence], tokens = offsets[sequence + 1] - start;
    const AttentionRows rows = packed_rows(start, tokens, row, N, G, head);
    const auto lines = [&](int64_t key0, int64_t n, int64_t *line) {
      for (int64_t j = 0; j < n; j++) line[j] = (start + key0 + j) * K + head;
    };
    if (rows.count > 0)
      attend(rows, q, k, v, dtype, D, static_cast<float>(scale), lines, memory, o, static_cast<float *>(lse));
  });
}

/* ---- backward ----------------------------------------------------------------------------------------------- */

/* dk, dv = 0 for keys first..last-1 of a sequence. */
inline void clear_keys(const Backward &b, int64_t start, int64_t head, int64_t first, int64_t last) {
  for (int64_t key = first; key < last; key++) {
    const int64_t at = ((start + key) * b.K + head) * b.D;
    memset(b.dk + at, 0, b.D * sizeof(float));
    memset(b.dv + at, 0, b.D * sizeof(float));
  }
}

/*
 * Whether one task a sequence and KV head keeps the threads busy. It computes five products a block; tasks of their own
 * for dq and for dk, dv need seven, 1.4 times as much. Work grows with the square of the length; the last task begins
 * when the others end, at the latest.
 */
inline bool whole_sequences(const int32_t *offsets, int64_t B, int64_t K, int32_t threads) {
  double all = 0, most = 0;
  for (int64_t s = 0; s < B; s++) {
    const double length = offsets[s + 1] - offsets[s], work = length * length;
    all += work * static_cast<double>(K);
    most = work > most ? work : most;
  }
  return threads == 1 || most <= 0.4 * all / threads;
}

/*
 * Tasks: (sequence, KV head) for all three gradients, or, where that leaves threads idle, (sequence, block of keys, KV
 * head) for dk and dv and (sequence, block of rows, KV head) for dq. The bits are the same.
 */
int32_t attention_backward(sb_context *context, const void *q, const void *k, const void *v, const void *o,
                           int32_t dtype, const void *d_o, const void *lse, int64_t T, int64_t N, int64_t K, int64_t D,
                           const int32_t *offsets, int64_t B, int64_t longest, double scale, void *dq, void *dk,
                           void *dv) noexcept {
  if (check_offsets("sb_attention_backward", offsets, B, T, longest)) return 1;
  sb_cpu_context &ctx = sb_cpu(context);
  const int64_t G = N / K;
  const Backward b = {q,  k, v, o, dtype, static_cast<const float *>(d_o), static_cast<const float *>(lse),
                      N,  K, D, static_cast<float>(scale),
                      static_cast<float *>(dq), static_cast<float *>(dk), static_cast<float *>(dv)};
  const bool whole = whole_sequences(offsets, B, K, ctx.threads);
  const Pieces keys = {offsets, B, 1, kAttentionKeys}, blocks = {offsets, B, G, kAttentionRows};
  const int64_t key_tasks = keys.count() * K, row_tasks = blocks.count() * K;

  /* Rows from the block that holds the first one to see first_key; all, or those of one block. */
  const auto run = [&](int64_t sequence, int64_t head, int64_t first_row, int64_t last_row, int64_t first_key,
                       int64_t last_key, bool want_q, bool want_kv, float *memory) {
    const int64_t start = offsets[sequence], tokens = offsets[sequence + 1] - start;
    last_key = product_min(last_key, tokens);
    last_row = product_min(last_row, tokens * G);
    if (want_kv) clear_keys(b, start, head, first_key, last_key);
    for (int64_t row = first_row / kAttentionRows * kAttentionRows; row < last_row; row += kAttentionRows)
      backward_rows(b, packed_rows(start, tokens, row, N, G, head), start, head, first_key, last_key, want_q, want_kv,
                    memory);
  };
  return attention_tasks(ctx, "sb_attention_backward", D, whole ? B * K : key_tasks + row_tasks,
                         [&](int64_t task, float *memory) {
    int64_t sequence, at;
    if (whole) {
      run(task / K, task % K, 0, T * G, 0, T, true, true, memory);
    } else if (task < key_tasks) {
      keys.find(task / K, sequence, at);
      run(sequence, task % K, at * G, T * G, at, at + kAttentionKeys, false, true, memory);
    } else {
      task = row_tasks - 1 - (task - key_tasks); /* the longest first */
      blocks.find(task / K, sequence, at);
      run(sequence, task % K, at, at + kAttentionRows, 0, T, true, false, memory);
    }
  });
}
