/* DoRA's norms and gains. */

int32_t dora_gain(sb_context *context, const void *squares, const void *magnitude, int64_t n, void *norm,
                  void *gain) noexcept {
  parallel_rows(sb_cpu(context), n, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += kLanes) {
      const vf root = vf_sqrt(load_some<SB_F32>(squares, i, last - i));
      store_part<SB_F32>(gain, i, load_some<SB_F32>(magnitude, i, last - i) / root, last - i);
      store_part<SB_F32>(norm, i, root, last - i);
    }
  });
  return 0;
}
