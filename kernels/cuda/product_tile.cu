/* Launches products on tensor cores. */
#include "product_tile.cuh"

namespace gpu {

namespace {

using Large = TileShape<128, 128, 64, 64, 3, 2>;
using LargeNf4 = TileShape<128, 128, 64, 32, 3, 1>; /* more threads: values are computed on the way */
using Small = TileShape<64, 64, 32, 32, 4, 3>;
static_assert(Large::kBytes <= kSharedAnywhere && LargeNf4::kBytes <= kSharedAnywhere);
/* Fewer large tiles than this would leave most of a device without work. */
constexpr int64_t kLargeTiles = 64;

TileOperand tile(const Operand &operand, int64_t lines) {
  return {static_cast<const bf16 *>(operand.data), operand.stride, lines};
}

template <class Shape> int64_t tiles_of(const Product &p) {
  return ceil_div(p.m, Shape::kRows) * (ceil_div(p.n, Shape::kColumns) + ceil_div(p.beside_n, Shape::kColumns));
}

template <class Shape, bool kLeftAcross, bool kRightAcross, bool kNf4>
void launch_tile(Context &ctx, const Product &p, const Pieces &pieces) {
  const TileProduct product{tile(p.left, p.m),
                            tile(p.right, p.n),
                            tile(p.tail_left, p.m),
                            tile(p.tail_right, p.n),
                            tile(p.beside, p.beside_n),
                            p.right.nf4 ? nf4_view(*p.right.nf4) : Nf4View{},
                            p.m,
                            p.n,
                            p.depth,
                            p.tail_depth,
                            p.beside_n,
                            p.tail_scale,
                            device_results(p.results),
                            device_results(p.beside_results)};
  launch(ctx, dim3(static_cast<unsigned>(tiles_of<Shape>(p)), static_cast<unsigned>(pieces.count)), Shape::kThreads,
         Shape::kBytes, product_tile_kernel<Shape, kLeftAcross, kRightAcross, kNf4>, product, pieces.depth,
         pieces.partial);
}

template <bool kLeftAcross, bool kRightAcross> void launch_dense(Context &ctx, const Product &p, const Pieces &pieces) {
  if (tiles_of<Large>(p) * pieces.count >= kLargeTiles) launch_tile<Large, kLeftAcross, kRightAcross, false>(ctx, p, pieces);
  else launch_tile<Small, kLeftAcross, kRightAcross, false>(ctx, p, pieces);
}

template <bool kRightAcross> void launch_nf4(Context &ctx, const Product &p, const Pieces &pieces) {
  if (tiles_of<LargeNf4>(p) >= kLargeTiles) launch_tile<LargeNf4, false, kRightAcross, true>(ctx, p, pieces);
  else launch_tile<Small, false, kRightAcross, true>(ctx, p, pieces);
}

} // namespace

void multiply_tiles(Context &ctx, const Product &p, const Pieces &pieces) {
  const bool right = p.right.across || (p.n == 0 && p.beside.across);
  if (p.right.nf4) return right ? launch_nf4<true>(ctx, p, pieces) : launch_nf4<false>(ctx, p, pieces);
  if (p.left.across) return right ? launch_dense<true, true>(ctx, p, pieces) : launch_dense<true, false>(ctx, p, pieces);
  return right ? launch_dense<false, true>(ctx, p, pieces) : launch_dense<false, false>(ctx, p, pieces);
}

} // namespace gpu
