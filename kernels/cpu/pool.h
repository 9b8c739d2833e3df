/* The CPU context's threads; sb_parallel (context.h) hands them work. */
#pragma once
#include <cstdint>

struct sb_pool;

/* threads - 1 workers beside the caller; NULL when they cannot be started. */
sb_pool *sb_pool_create(int32_t threads) noexcept;
/* Joins the workers. No job may be running. */
void sb_pool_free(sb_pool *pool) noexcept;
