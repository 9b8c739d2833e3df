/*
 * Memory of frozen weights: few blocks of whole huge pages that many matrices share. A matrix of a small model is less
 * than a huge page; decode, which reads all of them once a token, loses a quarter of the bandwidth to page walks when
 * each lies on pages of 4 KiB.
 */
#pragma once
#include <cstdint>

struct WeightBlock;

/* 64-byte aligned, not zeroed; *block is what weight_memory_free takes. `current` is the context's block with room. NULL:
 * no memory. */
unsigned char *weight_memory(WeightBlock *&current, int64_t bytes, WeightBlock **block) noexcept;
/* Blocks are given back with their last matrix. */
void weight_memory_free(WeightBlock *&current, WeightBlock *block) noexcept;
