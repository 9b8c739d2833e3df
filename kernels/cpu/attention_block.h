/*
 * Attention of up to kAttentionRows rows that share a KV head, over blocks of keys with a running softmax. Of row i with
 * scores s_j = scale · q·k_j, block after block at absolute positions:
 *
 *     m' = max(m, s_j) ;  p_j = e^(s_j - m') ;  l = l·e^(m-m') + Σ p_j ;  o = o·e^(m-m') + Σ p_j v_j
 *
 * and at the end o / l. All in float32; bf16 is widened as it is loaded. A row's arithmetic does not depend on the rows
 * beside it: they only share the keys in scratch, and a key it does not see has p = 0.
 */
#pragma once
#include "attention_tile.h"

struct AttentionRows {
  int64_t count;
  int64_t line[kAttentionRows];     /* where q and o lie: rows of [T·N, D] */
  int64_t position[kAttentionRows]; /* sees keys 0..position */
};

/* Keys seen by each row among the n from key0 on. */
inline void see(const AttentionRows &rows, int64_t key0, int64_t n, int64_t *seen) {
  for (int64_t i = 0; i < rows.count; i++)
    seen[i] = product_max(product_min(rows.position[i] - key0 + 1, n), 0);
}
inline int64_t least_seen(const int64_t *seen, int64_t rows) {
  int64_t least = seen[0];
  for (int64_t i = 1; i < rows; i++) least = product_min(least, seen[i]);
  return least;
}
/* One behind the last key that any row sees. */
inline int64_t keys_of(const AttentionRows &rows) {
  int64_t last = -1;
  for (int64_t i = 0; i < rows.count; i++) last = product_max(last, rows.position[i]);
  return last + 1;
}

/* ---- to scratch --------------------------------------------------------------------------------------------- */

constexpr int64_t kAhead = 8; /* rows that are prefetched: heads lie far apart, and a task begins cold */

/* out[sheet][sheet_rows][kStep] = scale · rows line[0..n-1] of data[.., D], zeros up to a whole vector. */
inline void copy_rows(const void *data, int32_t dtype, const int64_t *line, int64_t n, int64_t D, float scale,
                      float *out, int64_t sheet_rows) {
  const vf factor = vf_set(scale);
  with_dtype(dtype, [&](auto type) {
    for (int64_t i = 0; i < n; i++) {
      const int64_t ahead = (line[product_min(i + kAhead, n - 1)] - line[i]) * D * kBytes<type()>;
      for (int64_t sheet = 0; sheet < D; sheet += kSheet) {
        const int64_t columns = product_min(D - sheet, kSheet), from = line[i] * D + sheet;
        float *to = out + (sheet / kSheet * sheet_rows + i) * kStep;
        for (int64_t d = 0; d < columns; d += kLanes) {
          prefetch(data, (from + d) * kBytes<type()> + ahead);
          vf_store(to + d, load_some<type()>(data, from + d, columns - d) * factor);
        }
      }
    }
  });
}

/* out[D][kStep], column i = row line[i] of data[.., D]; zeros up to a whole vector. */
inline void transpose_rows(const void *data, int32_t dtype, const int64_t *line, int64_t n, int64_t D, float *out) {
  with_dtype(dtype, [&](auto type) {
    for (int64_t i = 0; i < n; i += kLanes)
      for (int64_t d = 0; d < D; d += kLanes) {
        float *to = out + d * kStep + i;
        const int64_t width = D - d;
        vf block[kLanes];
        if (i + kLanes <= n && width >= kLanes) {
#pragma GCC unroll 16
          for (int64_t j = 0; j < kLanes; j++) block[j] = load_elements<type()>(data, line[i + j] * D + d);
          transpose_words(block);
#pragma GCC unroll 16
          for (int64_t j = 0; j < kLanes; j++) vf_store(to + j * kStep, block[j]);
        } else {
          for (int64_t j = 0; j < kLanes; j++)
            block[j] = i + j < n ? load_some<type()>(data, line[i + j] * D + d, width) : vf_zero();
          transpose_words(block);
          for (int64_t j = 0; j < product_min(kLanes, width); j++) vf_store(to + j * kStep, block[j]);
        }
      }
  });
}

/* Of keys first..last-1 in scratch. */
inline bool all_finite(const float *values, int64_t D, int64_t first, int64_t last) {
  vf zeros = vf_zero(); /* inf · 0 and NaN · 0 are NaN */
  for (int64_t key = first; key < last; key++)
    for (int64_t d = 0; d < D; d += kLanes)
      zeros = vf_fma(vf_load(values + (d / kSheet * kAttentionKeys + key) * kStep + d % kSheet), vf_zero(), zeros);
  return vf_sum(zeros) == 0;
}

/* The lanes below n of v, `other` in the rest. */
SB_INLINE vf first_lanes(vf v, int64_t n, vf other) {
  vi lane;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i++) lane[i] = i;
  return lane < static_cast<int32_t>(n) ? v : other;
}

/*
 * What op makes of each row's kLanes partial values, in lane order: results[rows] from partial[rows][kLanes], both with
 * room for a multiple of kLanes rows.
 */
template <class Op>
SB_INLINE void fold_lanes(float *partial, int64_t rows, float *results, const Op &op) {
  for (int64_t i = 0; i < rows; i += kLanes) {
    vf block[kLanes];
#pragma GCC unroll 16
    for (int64_t j = 0; j < kLanes; j++) block[j] = i + j < rows ? vf_load(partial + (i + j) * kLanes) : vf_zero();
    transpose_words(block);
    vf result = block[0];
#pragma GCC unroll 16
    for (int64_t j = 1; j < kLanes; j++) result = op(result, block[j]);
    vf_store(results + i, result);
  }
}
SB_INLINE vf add(vf a, vf b) { return a + b; }

/* ---- the running softmax ------------------------------------------------------------------------------------ */

struct ForwardScratch {
  float *q, *o;   /* [sheets][kAttentionRows][kStep] */
  float *keys;    /* [D][kStep] */
  float *values;  /* [sheets][kAttentionKeys][kStep] */
  float *scores;  /* [kAttentionRows][kStep], then p */
  float *totals;  /* [kAttentionRows][kLanes]: l, lane by lane */
};

inline ForwardScratch forward_scratch(float *memory, int64_t D) {
  const int64_t rows = sheets_of(D) * kAttentionRows * kStep, keys = sheets_of(D) * kAttentionKeys * kStep;
  ForwardScratch s;
  s.q = memory;
  s.o = s.q + rows;
  s.keys = s.o + rows;
  s.values = s.keys + D * kStep;
  s.scores = s.values + keys;
  s.totals = s.scores + kAttentionRows * kStep;
  return s;
}

/* Masks the scores of one row and returns the largest, lane by lane. */
SB_INLINE vf largest_scores(float *scores, int64_t seen) {
  vf most = vf_set(-INFINITY);
  for (int64_t key = 0; key < seen; key += kLanes) {
    vf s = vf_load(scores + key);
    if (key + kLanes > seen) vf_store(scores + key, s = first_lanes(s, seen - key, vf_set(-INFINITY)));
    most = vf_max(most, s);
  }
  return most;
}

/* From scores to p; largest[rows] and the sums move on. First block: first. */
inline void soften(const AttentionRows &rows, int64_t D, const int64_t *seen, int64_t n, bool first,
                   const ForwardScratch &s, float *largest) {
  float partial[kAttentionRows * kLanes], shrink[kAttentionRows], most[kAttentionRows];
  for (int64_t i = 0; i < rows.count; i++)
    vf_store(partial + i * kLanes, largest_scores(s.scores + i * kStep, seen[i]));
  fold_lanes(partial, rows.count, most, vf_max);
  for (int64_t i = 0; i < rows.count; i += kLanes) {
    const vf before = first ? vf_set(-INFINITY) : vf_load(largest + i), now = vf_max(before, vf_load(most + i));
    vf_store(largest + i, now);
    vf_store(shrink + i, vf_exp(before - now));
  }
  for (int64_t i = 0; i < rows.count; i++) {
    float *p = s.scores + i * kStep;
    const vf highest = vf_set(largest[i]), factor = vf_set(shrink[i]);
    vf total = first ? vf_zero() : vf_load(s.totals + i * kLanes) * factor;
    int64_t key = 0;
    for (; key < seen[i]; key += kLanes) {
      const vf e = vf_exp(vf_load(p + key) - highest);
      vf_store(p + key, e);
      total = total + e;
    }
    for (; key < n; key += kLanes) vf_store(p + key, vf_zero());
    vf_store(s.totals + i * kLanes, total);
    if (first || shrink[i] == 1) continue;
    for (int64_t d = 0; d < D; d += kLanes) {
      float *o = s.o + (d / kSheet * kAttentionRows + i) * kStep + d % kSheet;
      vf_store(o, vf_load(o) * factor);
    }
  }
}

/*
 * o and, where not NULL, lse of the rows. lines(key0, n, line): where keys key0..key0+n-1 lie, as rows of k and v seen
 * as [.., D].
 */
template <class Lines>
void attend(const AttentionRows &rows, const void *q, const void *k, const void *v, int32_t dtype, int64_t D,
            float scale, const Lines &lines, float *memory, void *o, float *lse) {
  const ForwardScratch s = forward_scratch(memory, D);
  const int64_t keys = keys_of(rows);
  float largest[kAttentionRows];
  copy_rows(q, dtype, rows.line, rows.count, D, scale, s.q, kAttentionRows);
  for (int64_t key0 = 0; key0 < keys; key0 += kAttentionKeys) {
    const int64_t n = product_min(keys - key0, kAttentionKeys);
    const bool first = key0 == 0;
    int64_t line[kAttentionKeys], seen[kAttentionRows];
    lines(key0, n, line);
    see(rows, key0, n, seen);
    transpose_rows(k, dtype, line, n, D, s.keys);
    copy_rows(v, dtype, line, n, D, 1, s.values, kAttentionKeys);
    multiply_by_keys(s.q, s.keys, D, seen, rows.count, n, s.scores);
    soften(rows, D, seen, n, first, s, largest);
    if (all_finite(s.values, D, least_seen(seen, rows.count), n)) {
      add_over_keys(s.scores, s.values, D, seen, 0, rows.count, s.o, first);
    } else { /* 0 · inf would reach a row that does not see the key: every row on its own */
      for (int64_t i = 0; i < rows.count; i++) add_over_keys(s.scores, s.values, D, seen, i, i + 1, s.o, first);
    }
  }
  float total[kAttentionRows];
  fold_lanes(s.totals, rows.count, total, add);
  with_dtype(dtype, [&](auto type) {
    for (int64_t i = 0; i < rows.count; i++) {
      const vf factor = vf_set(1 / total[i]);
      for (int64_t d = 0; d < D; d += kLanes) { /* + 0: -0 becomes 0, since an unseen key may or may not add a 0 */
        const vf sum = vf_load(s.o + (d / kSheet * kAttentionRows + i) * kStep + d % kSheet);
        store_part<type()>(o, rows.line[i] * D + d, sum * factor + vf_zero(), D - d);
      }
      if (lse) lse[rows.line[i]] = largest[i] + logf(total[i]);
    }
  });
}

/* ---- tasks -------------------------------------------------------------------------------------------------- */

/* body(task, scratch) for every task, on all threads where the workspace has scratch for each, else on this one. */
template <class Body>
int32_t attention_tasks(sb_cpu_context &ctx, const char *op, int64_t D, int64_t tasks, const Body &body) {
  const int64_t bytes = attention_bytes(D);
  if (bytes > ctx.workspace_bytes)
    return sb_fail("%s needs %lld bytes of workspace and %lld are reserved: call sb_reserve with width >= %lld first",
                   op, static_cast<long long>(bytes), static_cast<long long>(ctx.workspace_bytes),
                   static_cast<long long>(D));
  const auto run = [&](int64_t task, int32_t thread) {
    body(task, reinterpret_cast<float *>(ctx.workspace + thread * bytes));
  };
  if (ctx.threads * bytes <= ctx.workspace_bytes) {
    parallel(ctx, tasks, run);
  } else {
    for (int64_t task = 0; task < tasks; task++) run(task, 0);
  }
  return 0;
}
