/*
 * The gradients of attention, with P recomputed from lse and δ_i = Σ_d dO_id · O_id:
 *
 *     P = e^(S - lse) ;  dS = P ⊙ (dO·Vᵀ - δ) ;  dq = scale · dS·K ;  dk = dSᵀ·(scale·q) ;  dv = Pᵀ·dO
 *
 * Every gradient is one sum in order: dq over the keys, dk and dv over the rows (position, query head). Blocks of rows
 * and of keys start at multiples of their size in the sequence, so it does not matter who computes which.
 */
#pragma once
#include "attention_block.h"

struct BackwardScratch {
  float *q, *d_o, *dq; /* [sheets][kAttentionRows][kStep]; q scaled */
  float *kt, *vt;      /* [D][kStep] */
  float *k;            /* [sheets][kAttentionKeys][kStep] */
  float *p, *ds;       /* [kAttentionRows][kStep] */
};

inline BackwardScratch backward_scratch(float *memory, int64_t D) {
  const int64_t rows = sheets_of(D) * kAttentionRows * kStep;
  BackwardScratch s;
  s.q = memory;
  s.d_o = s.q + rows;
  s.dq = s.d_o + rows;
  s.kt = s.dq + rows;
  s.vt = s.kt + D * kStep;
  s.k = s.vt + D * kStep;
  s.p = s.k + sheets_of(D) * kAttentionKeys * kStep;
  s.ds = s.p + kAttentionRows * kStep;
  return s;
}

/* The op's arguments. */
struct Backward {
  const void *q, *k, *v, *o;
  int32_t dtype;
  const float *d_o, *lse;
  int64_t N, K, D;
  float scale;
  float *dq, *dk, *dv;
};

/* δ of the rows, whose dO is in scratch. */
inline void row_deltas(const Backward &b, const AttentionRows &rows, const BackwardScratch &s, float *delta) {
  float partial[kAttentionRows * kLanes];
  with_dtype(b.dtype, [&](auto type) {
    for (int64_t i = 0; i < rows.count; i++) {
      vf sum = vf_zero();
      for (int64_t d = 0; d < b.D; d += kLanes)
        sum = vf_fma(vf_load(s.d_o + (d / kSheet * kAttentionRows + i) * kStep + d % kSheet),
                     load_some<type()>(b.o, rows.line[i] * b.D + d, b.D - d), sum);
      vf_store(partial + i * kLanes, sum);
    }
  });
  fold_lanes(partial, rows.count, delta, add);
}

/* From scores in p and dO·Vᵀ in ds to P and dS; zeros where a row does not see the key. */
inline void score_gradients(const Backward &b, const AttentionRows &rows, const int64_t *seen, int64_t n,
                            const float *delta, const BackwardScratch &s) {
  for (int64_t i = 0; i < rows.count; i++) {
    float *p = s.p + i * kStep, *ds = s.ds + i * kStep;
    const vf lse = vf_set(b.lse[rows.line[i]]), minus = vf_set(delta[i]);
    int64_t key = 0;
    for (; key < seen[i]; key += kLanes) {
      vf probability = vf_exp(vf_load(p + key) - lse), gradient = probability * (vf_load(ds + key) - minus);
      if (key + kLanes > seen[i]) {
        probability = first_lanes(probability, seen[i] - key, vf_zero());
        gradient = first_lanes(gradient, seen[i] - key, vf_zero());
      }
      vf_store(p + key, probability);
      vf_store(ds + key, gradient);
    }
    for (; key < n; key += kLanes) {
      vf_store(p + key, vf_zero());
      vf_store(ds + key, vf_zero());
    }
  }
}

/*
 * What the rows and keys first_key..end_key-1 (first_key a block's border) of KV head `head` give to dq (=, if wanted)
 * and to dk and dv (+=, if wanted). start: the sequence's first token.
 */
inline void backward_rows(const Backward &b, const AttentionRows &rows, int64_t start, int64_t head, int64_t first_key,
                          int64_t end_key, bool want_q, bool want_kv, float *memory) {
  const BackwardScratch s = backward_scratch(memory, b.D);
  float delta[kAttentionRows];
  copy_rows(b.q, b.dtype, rows.line, rows.count, b.D, b.scale, s.q, kAttentionRows);
  copy_rows(b.d_o, SB_F32, rows.line, rows.count, b.D, 1, s.d_o, kAttentionRows);
  row_deltas(b, rows, s, delta);

  const int64_t keys = product_min(keys_of(rows), end_key);
  for (int64_t key0 = first_key; key0 < keys; key0 += kAttentionKeys) {
    const int64_t n = product_min(keys - key0, kAttentionKeys);
    int64_t line[kAttentionKeys], seen[kAttentionRows];
    for (int64_t j = 0; j < n; j++) line[j] = (start + key0 + j) * b.K + head;
    see(rows, key0, n, seen);
    transpose_rows(b.k, b.dtype, line, n, b.D, s.kt);
    transpose_rows(b.v, b.dtype, line, n, b.D, s.vt);
    multiply_by_keys(s.q, s.kt, b.D, seen, rows.count, n, s.p);
    multiply_by_keys(s.d_o, s.vt, b.D, seen, rows.count, n, s.ds);
    score_gradients(b, rows, seen, n, delta, s);
    if (want_q) {
      copy_rows(b.k, b.dtype, line, n, b.D, 1, s.k, kAttentionKeys);
      add_over_keys(s.ds, s.k, b.D, seen, 0, rows.count, s.dq, key0 == 0);
    }
    if (want_kv) {
      add_over_rows(s.p, s.d_o, b.D, seen, rows.count, n, b.dv + line[0] * b.D, b.K * b.D);
      add_over_rows(s.ds, s.q, b.D, seen, rows.count, n, b.dk + line[0] * b.D, b.K * b.D);
    }
  }
  if (!want_q) return;
  for (int64_t i = 0; i < rows.count; i++)
    for (int64_t d = 0; d < b.D; d += kLanes) {
      const vf sum = vf_load(s.dq + (d / kSheet * kAttentionRows + i) * kStep + d % kSheet);
      store_part<SB_F32>(b.dq, rows.line[i] * b.D + d, sum * vf_set(b.scale), b.D - d);
    }
}
