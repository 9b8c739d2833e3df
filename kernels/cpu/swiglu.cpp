/* h = silu(gate) ⊙ up and its gradients; an element is read whole before it is written, so the aliases are safe. */

int32_t swiglu_forward(sb_context *context, const void *gate, const void *up, int32_t dtype, int64_t n,
                       void *h) noexcept {
  with_dtype(dtype, [&](auto d) {
    parallel_rows(sb_cpu(context), n, 4, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; i += kLanes) {
        const vf x = load_some<d()>(gate, i, last - i);
        store_part<d()>(h, i, x * vf_sigmoid(x) * load_some<d()>(up, i, last - i), last - i);
      }
    });
  });
  return 0;
}

int32_t swiglu_backward(sb_context *context, const void *gate, const void *up, int32_t dtype, const void *dh,
                        int64_t n, void *dgate, void *dup) noexcept {
  with_dtype(dtype, [&](auto d) {
    parallel_rows(sb_cpu(context), n, 4, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; i += kLanes) {
        const vf x = load_some<d()>(gate, i, last - i), logistic = vf_sigmoid(x), one = vf_set(1);
        const vf gradient = load_some<SB_F32>(dh, i, last - i), scaled = gradient * logistic;
        const vf inner = scaled * load_some<d()>(up, i, last - i) * vf_fma(x, one - logistic, one);
        store_part<SB_F32>(dgate, i, inner, last - i);
        store_part<SB_F32>(dup, i, scaled * x, last - i);
      }
    });
  });
  return 0;
}
