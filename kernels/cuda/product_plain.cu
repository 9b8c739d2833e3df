/* Launches products without tensor cores. */
#include "product_plain.cuh"

namespace gpu {

namespace {

PlainOperand plain(const Operand &operand, int64_t lines) {
  return {operand.data, operand.dtype, operand.stride, lines, operand.across};
}

template <class Right>
void launch_plain(Context &ctx, const Product &p, const Right &right, const Pieces &pieces) {
  const PlainProduct<Right> product{plain(p.left, p.m),
                                    plain(p.tail_left, p.m),
                                    plain(p.tail_right, p.n),
                                    plain(p.beside, p.beside_n),
                                    right,
                                    p.m,
                                    p.n,
                                    p.depth,
                                    p.tail_depth,
                                    p.beside_n,
                                    p.tail_scale,
                                    device_results(p.results),
                                    device_results(p.beside_results),
                                    p.compute == SB_BF16};
  const int64_t tiles_n = ceil_div(p.n, kPlainColumns) + ceil_div(p.beside_n, kPlainColumns);
  const auto grid = [&](int64_t rows) {
    return dim3(static_cast<unsigned>(ceil_div(p.m, rows) * tiles_n), static_cast<unsigned>(pieces.count));
  };
  if (p.m <= 16)
    launch(ctx, grid(16), kPlainThreads, 0, product_plain_kernel<1, Right>, product, pieces.depth, pieces.partial);
  else launch(ctx, grid(128), kPlainThreads, 0, product_plain_kernel<8, Right>, product, pieces.depth, pieces.partial);
}

} // namespace

void multiply_plain(Context &ctx, const Product &p, const Pieces &pieces) {
  if (p.right.nf4) launch_plain(ctx, p, PlainNf4{nf4_view(*p.right.nf4), p.right.across}, pieces);
  else launch_plain(ctx, p, plain(p.right, p.n), pieces);
}

} // namespace gpu
