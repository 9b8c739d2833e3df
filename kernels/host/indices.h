/*
 * Checks of index arrays (ids, columns, rows, positions, slots, page tables, offsets) for the libraries whose device
 * memory the host can read (cpu, reference). An op calls them first, before it writes anything. Each returns 0, or
 * sb_fail with the function, the argument, where, the value, and what was expected.
 */
#pragma once
#include <cstdint>

/* values[n], each in [0, end). */
int32_t check_indices(const char *function, const char *name, const int32_t *values, int64_t n, int64_t end);
/* The same, and none twice. */
int32_t check_distinct(const char *function, const char *name, const int32_t *values, int64_t n, int64_t end);
/* values[n], none negative: rows of a matrix whose height the op is not told. */
int32_t check_not_negative(const char *function, const char *name, const int32_t *values, int64_t n);
/* offsets[B+1] of packed sequences: from 0 to T without gaps, none longer than `longest`. */
int32_t check_offsets(const char *function, const int32_t *offsets, int64_t B, int64_t T, int64_t longest);
/* Every row's sequence, position and the part of its page table that it reads; sequences, positions [T],
 * tables[S,max_pages] with entries in [0,pages). */
int32_t check_pages(const char *function, const int32_t *tables, int64_t S, int64_t max_pages, int64_t pages,
                    int64_t page, const int32_t *sequences, const int32_t *positions, int64_t T);
