/*
 * Attention through a paged KV cache: what its two ways, tiles and plain, share. Position j of a sequence lies in page
 * tables[sequence, j / page], at offset j % page. A block takes some rows (token, query head) that read the same keys:
 * tokens that stand side by side in the batch and are of one sequence, and the heads of one KV head.
 */
#pragma once
#include "indices.cuh"

namespace gpu {

struct Paged {
  int64_t T, page, max_pages;
  int N, K;
  unsigned short_page; /* page, or more than any position */
  const int32_t *tables, *sequences, *positions; /* [S,max_pages] [T] [T] */
  IndexCheck check_tables, check_sequences, check_positions;
};

/* Tokens side by side that a block of `rows` rows has room for, and blocks that a token's G heads need. */
__host__ __device__ inline int tokens_a_tile(int G, int rows) { return G < rows ? rows / G : 1; }
__host__ __device__ inline int tiles_a_token(int G, int rows) { return (G + rows - 1) / rows; }
/* A block a token, part of its heads, and KV head; most have nothing to do where tokens stand side by side. */
inline unsigned paged_blocks(const Paged &p, int rows) {
  return static_cast<unsigned>(p.T * tiles_a_token(p.N / p.K, rows) * p.K);
}

/* Row r < count: token first + r / heads, query head `head` + r % heads. */
struct PagedTile {
  int64_t first;
  int count, heads, head, group, last; /* last: the largest position */
  const int32_t *table;
  int64_t sequence;

  __device__ int64_t token(int r) const { return first + r / heads; }
  /* Of [T·N, D]. */
  __device__ int64_t line(int r, int N) const { return token(r) * N + head + r % heads; }
};

/* This block's; count 0: another block has its token, or an index is wrong. The same in every thread. */
__device__ inline PagedTile find_tile(const Paged &p, int rows) {
  const int G = p.N / p.K, room = tokens_a_tile(G, rows), parts = tiles_a_token(G, rows);
  const unsigned at = blockIdx.x / static_cast<unsigned>(p.K), token = at / static_cast<unsigned>(parts);
  PagedTile tile = {};
  tile.first = token;
  tile.group = static_cast<int>(blockIdx.x % static_cast<unsigned>(p.K));
  const int first_head = static_cast<int>(at % static_cast<unsigned>(parts)) * rows;
  const int before = static_cast<int>(token % static_cast<unsigned>(room));
  tile.heads = G - first_head < rows ? G - first_head : rows;
  tile.head = tile.group * G + first_head;
  tile.sequence = p.sequences[token];
  if (!p.check_sequences.good(token, tile.sequence)) return tile;
  if (before > 0 && p.sequences[token - 1] == tile.sequence) return tile;
  tile.table = p.tables + tile.sequence * p.max_pages;
  tile.last = -1;
  int tokens = 0;
  do {
    const int32_t position = p.positions[token + tokens];
    if (p.check_positions.good(token + tokens, position) && position > tile.last) tile.last = position;
    tokens++;
  } while (before + tokens < room && token + tokens < p.T && p.sequences[token + tokens] == tile.sequence);
  if (tile.last >= 0) tile.count = tokens * tile.heads;
  return tile;
}

/* -1 for a row that is not there or whose position is wrong. */
__device__ inline int position_of(const Paged &p, const PagedTile &tile, int r) {
  if (r >= tile.count) return -1;
  const int64_t position = p.positions[tile.token(r)];
  return position >= 0 && position < p.check_positions.end ? static_cast<int>(position) : -1;
}

/* Where key j <= last lies: a row of the cache seen as [.., D]; -1 where the table is wrong. */
__device__ inline int64_t cache_line(const Paged &p, const PagedTile &tile, int j) {
  const unsigned i = static_cast<unsigned>(j) / p.short_page, offset = static_cast<unsigned>(j) % p.short_page;
  const int64_t entry = tile.table[i];
  if (!p.check_tables.good(i, entry, tile.sequence)) return -1;
  return (entry * p.K + tile.group) * p.page + offset;
}

/* ---- host ------------------------------------------------------------------------------------------------------- */

/* q[T,N,D] caches[pages][K][page][D] o[T,N,D] */
struct PagedTensors {
  const void *q, *cache_k, *cache_v;
  void *o;
  int32_t dtype;
  int64_t D, S;
  double scale;
};

void attention_paged_plain(Context &ctx, const Paged &p, const PagedTensors &tensors);
void attention_paged_tiles(Context &ctx, const Paged &p, const PagedTensors &tensors);

} // namespace gpu
