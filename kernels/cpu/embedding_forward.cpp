/* x[T,H] = W[ids]: one lane of a panel for every token. */

int32_t embedding_forward(sb_context *context, const sb_weight *weight, const int32_t *ids, int64_t T,
                          void *x) noexcept {
  if (check_indices("sb_embedding_forward", "ids", ids, T, weight->out)) return 1;
  return weight_read_rows(context, weight, ids, T, x); /* which does not mind a row named twice */
}
