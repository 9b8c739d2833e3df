/* Rotary positions: the table in double through libm, the rotation in f32 over the pairs of a head. */

struct RopeScaling {
  int32_t kind; /* as sb_rope_table says */
  double factor, low_factor, high_factor, original;
};

/* theta^(-2i/D), stretched. llama3: long waves by the factor, short ones not at all, between them a blend. */
inline double rope_frequency(int64_t i, int64_t D, double theta, const RopeScaling &scaling) {
  constexpr double kTurn = 6.283185307179586476925286766559;
  const double plain = pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
  if (scaling.kind == 0) return plain;
  const double stretched = plain / scaling.factor;
  if (scaling.kind == 1) return stretched;
  const double wave = kTurn / plain;
  if (wave > scaling.original / scaling.low_factor) return stretched;
  if (wave < scaling.original / scaling.high_factor) return plain;
  const double blend = (scaling.original / wave - scaling.low_factor) / (scaling.high_factor - scaling.low_factor);
  return (1 - blend) * stretched + blend * plain;
}

int32_t rope_table(sb_context *context, int64_t P, int64_t D, double theta, int32_t scaling, double factor,
                   double low_factor, double high_factor, double original, void *cosine, void *sine) noexcept {
  const RopeScaling how = {scaling, factor, low_factor, high_factor, original};
  const int64_t half = D / 2;
  parallel_rows(sb_cpu(context), P, 16 * half, [&](int64_t first, int64_t last) {
    for (int64_t i = 0; i < half; i++) {
      const double frequency = rope_frequency(i, D, theta, how);
      for (int64_t p = first; p < last; p++) {
        const double angle = static_cast<double>(p) * frequency;
        static_cast<float *>(cosine)[p * half + i] = static_cast<float>(cos(angle));
        static_cast<float *>(sine)[p * half + i] = static_cast<float>(sin(angle));
      }
    }
  });
  return 0;
}

int32_t rope(sb_context *context, void *x, int32_t dtype, int64_t T, int64_t heads, int64_t D,
             const int32_t *positions, int64_t P, const void *cosine, const void *sine, int32_t inverse) noexcept {
  if (check_indices("sb_rope", "positions", positions, T, P)) return 1;
  const int64_t half = D / 2;
  const vf sign = vf_set(inverse ? -1.0f : 1.0f);
  with_dtype(dtype, [&](auto d) {
    parallel_rows(sb_cpu(context), T, heads * D, [&](int64_t first, int64_t last) {
      for (int64_t row = first * heads; row < last * heads; row++) {
        const int64_t angles = positions[row / heads] * half, low = row * D, high = low + half;
        for (int64_t i = 0; i < half; i += kLanes) {
          const int64_t left = half - i;
          const vf c = load_some<SB_F32>(cosine, angles + i, left);
          const vf s = load_some<SB_F32>(sine, angles + i, left) * sign;
          const vf a = load_some<d()>(x, low + i, left), b = load_some<d()>(x, high + i, left);
          store_part<d()>(x, low + i, vf_fma(a, c, -(b * s)), left);
          store_part<d()>(x, high + i, vf_fma(b, c, a * s), left);
        }
      }
    });
  });
  return 0;
}
