/* AdamW: scalars in double once, elements in f32. */

int32_t adamw(sb_context *context, void *p, const void *g, void *m, void *v, int64_t n, double lr, double b1,
              double b2, double eps, double decay, int64_t step, double gradient_scale) noexcept {
  const auto scalar = [](double value) { return vf_set(static_cast<float>(value)); };
  const double count = static_cast<double>(step);
  const vf keep1 = scalar(b1), add1 = scalar(1 - b1), keep2 = scalar(b2), add2 = scalar(1 - b2);
  const vf rate = scalar(lr / (1 - pow(b1, count))), unbias = scalar(1 / sqrt(1 - pow(b2, count)));
  const vf floor = scalar(eps), shrink = scalar(lr * decay), scale = scalar(gradient_scale);
  parallel_rows(sb_cpu(context), n, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += kLanes) {
      const int64_t left = last - i;
      const vf before = load_some<SB_F32>(p, i, left), gradient = load_some<SB_F32>(g, i, left) * scale;
      const vf mean = vf_fma(keep1, load_some<SB_F32>(m, i, left), add1 * gradient);
      const vf square = vf_fma(keep2, load_some<SB_F32>(v, i, left), add2 * gradient * gradient);
      /* What p loses as one number: 1 - lr·decay would round a small decay away. */
      const vf ratio = mean / vf_fma(vf_sqrt(square), unbias, floor);
      store_part<SB_F32>(p, i, before - vf_fma(shrink, before, rate * ratio), left);
      store_part<SB_F32>(m, i, mean, left);
      store_part<SB_F32>(v, i, square, left);
    }
  });
  return 0;
}
