#include "attention_workspace.h"
#include "context.h"

/* Attention alone: the other ops of a block work in place. */
int64_t sb_block_workspace(int32_t threads, int64_t, int64_t width) { return attention_workspace(threads, width); }
