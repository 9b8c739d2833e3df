/* Read-only memory-mapped files for every library: their bytes are host memory. */
#pragma once
#include "../sbora.h"

int32_t host_map(const char *path, sb_mapping **out, void **data, int64_t *bytes) noexcept;
int32_t host_unmap(sb_mapping *mapping) noexcept;
