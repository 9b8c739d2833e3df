/*
 * Stands in for libcublasLt.so in tests: the functions that cublaslt.cu asks for, written from NVIDIA's documentation and
 * from nothing of ours. It multiplies naively, in columns, exactly what the descriptors say, refuses what cuBLASLt
 * refuses, and adds a line a product to the file $CUBLASLT_DOUBLE_LOG: "7 TN f32 beta", 7 the
 * columns of the result.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum { kSuccess = 0, kInvalid = 7, kUnsupported = 15 };
enum { kF32 = 0, kBf16 = 14, kComputeF32 = 68 };

struct Handle {
  int open = 1;
};
struct Descriptor {
  int32_t transposes[2] = {0, 0}; /* of A, B */
};
/* Column-major: element (i, j) lies at i + j·stride. */
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
};
/* What a search may ask for; an algorithm keeps it, and Matmul is held to it. */
struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = 7, align[4] = {256, 256, 256, 256};
};
struct Algorithm {
  uint64_t workspace, align[4], unused[3];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

double element(const void *data, const Layout &layout, uint64_t i, uint64_t j) {
  const uint64_t at = i + j * static_cast<uint64_t>(layout.stride);
  if (layout.type == kF32) return static_cast<const float *>(data)[at];
  const uint32_t word = static_cast<uint32_t>(static_cast<const uint16_t *>(data)[at]) << 16;
  float value;
  memcpy(&value, &word, sizeof value);
  return value;
}

void store(void *data, const Layout &layout, uint64_t i, uint64_t j, float value) {
  const uint64_t at = i + j * static_cast<uint64_t>(layout.stride);
  if (layout.type == kF32) {
    static_cast<float *>(data)[at] = value;
    return;
  }
  uint32_t word;
  memcpy(&word, &value, sizeof word);
  static_cast<uint16_t *>(data)[at] =
      value != value ? uint16_t{0x7fff} : static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

/* The shapes meet, and rows begin where 16-byte loads may. */
int agree(const Descriptor &d, const Layout &a, const Layout &b, const Layout &c) {
  const uint64_t depth_a = d.transposes[0] ? a.rows : a.columns, depth_b = d.transposes[1] ? b.columns : b.rows;
  const uint64_t rows = d.transposes[0] ? a.columns : a.rows, columns = d.transposes[1] ? b.rows : b.columns;
  if (depth_a != depth_b || rows != c.rows || columns != c.columns) return kInvalid;
  if (a.type != kBf16 || b.type != kBf16 || (c.type != kF32 && c.type != kBf16)) return kUnsupported;
  return a.stride % 8 == 0 && b.stride % 8 == 0 ? kSuccess : kUnsupported;
}

bool aligned(const void *address, uint64_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

void log(const Descriptor &d, const Layout &c, float beta) {
  const char *path = getenv("CUBLASLT_DOUBLE_LOG");
  FILE *file = path ? fopen(path, "a") : nullptr;
  if (!file) return;
  fprintf(file, "%d %c%c %s%s\n", static_cast<int>(c.columns), d.transposes[0] ? 'T' : 'N', d.transposes[1] ? 'T' : 'N', c.type == kF32 ? "f32" : "bf16",
          beta != 0 ? " beta" : "");
  fclose(file);
}

} // namespace

EXPORT size_t cublasLtGetVersion() { return 130002; }
EXPORT int cublasLtCreate(Handle **handle) { return *handle = new Handle(), kSuccess; }
EXPORT int cublasLtDestroy(Handle *handle) { return delete handle, kSuccess; }

EXPORT int cublasLtMatmulDescCreate(Descriptor **made, int compute, int scale) {
  if (compute != kComputeF32 || scale != kF32) return kInvalid;
  return *made = new Descriptor(), kSuccess;
}
EXPORT int cublasLtMatmulDescDestroy(Descriptor *descriptor) { return delete descriptor, kSuccess; }
EXPORT int cublasLtMatmulDescSetAttribute(Descriptor *descriptor, int attribute, const void *value, size_t bytes) {
  if ((attribute != 3 && attribute != 4) || bytes != sizeof(int32_t)) return kInvalid;
  memcpy(&descriptor->transposes[attribute - 3], value, bytes);
  return kSuccess;
}

EXPORT int cublasLtMatrixLayoutCreate(Layout **made, int type, uint64_t rows, uint64_t columns, int64_t stride) {
  if (stride < static_cast<int64_t>(rows) || rows == 0 || columns == 0) return kInvalid;
  return *made = new Layout{type, rows, columns, stride}, kSuccess;
}
EXPORT int cublasLtMatrixLayoutDestroy(Layout *layout) { return delete layout, kSuccess; }

EXPORT int cublasLtMatmulPreferenceCreate(Preference **made) { return *made = new Preference(), kSuccess; }
EXPORT int cublasLtMatmulPreferenceDestroy(Preference *preference) { return delete preference, kSuccess; }
EXPORT int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *value, size_t bytes) {
  void *to = attribute == 1                     ? static_cast<void *>(&preference->workspace)
             : attribute == 3                   ? &preference->reductions
             : attribute >= 5 && attribute <= 8 ? &preference->align[attribute - 5]
                                                : nullptr;
  if (!to || bytes != (attribute == 1 ? sizeof(uint64_t) : sizeof(uint32_t))) return kInvalid;
  memcpy(to, value, bytes);
  return kSuccess;
}

/* An algorithm that splits the depth comes first where reductions are allowed: it would be seen by its state. */
EXPORT int cublasLtMatmulAlgoGetHeuristic(Handle *handle, Descriptor *descriptor, Layout *a, Layout *b, Layout *c,
                                          Layout *d, Preference *preference, int asked, Heuristic *results,
                                          int *found) {
  if (!handle || asked < 1 || memcmp(c, d, sizeof *c) != 0) return kInvalid;
  *found = 0;
  if (const int status = agree(*descriptor, *a, *b, *d)) return status;
  if (preference->align[0] < 16 || preference->align[1] < 16) return kUnsupported;
  results[0] = {};
  results[0].algorithm.workspace = preference->workspace;
  for (int i = 0; i < 4; i++) results[0].algorithm.align[i] = preference->align[i];
  results[0].state = preference->reductions == 0 ? kSuccess : kUnsupported;
  *found = 1;
  return kSuccess;
}

EXPORT int cublasLtMatmul(Handle *handle, Descriptor *descriptor, const float *alpha, const void *a, Layout *layout_a,
                          const void *b, Layout *layout_b, const float *beta, const void *c, Layout *layout_c, void *d,
                          Layout *layout_d, const Algorithm *algorithm, void *workspace, size_t bytes, void *stream) {
  if (!handle || !stream || !workspace || bytes < algorithm->workspace || !aligned(workspace, 256)) return kInvalid;
  if (const int status = agree(*descriptor, *layout_a, *layout_b, *layout_d)) return status;
  const void *addresses[] = {a, b, c, d};
  for (int i = 0; i < 4; i++)
    if (!aligned(addresses[i], algorithm->align[i])) return kInvalid;
  memset(workspace, 0xff, bytes < 4096 ? bytes : 4096); /* it is nobody else's */
  const uint64_t depth = descriptor->transposes[0] ? layout_a->rows : layout_a->columns;
  for (uint64_t j = 0; j < layout_d->columns; j++)
    for (uint64_t i = 0; i < layout_d->rows; i++) {
      double sum = 0;
      for (uint64_t k = 0; k < depth; k++)
        sum += (descriptor->transposes[0] ? element(a, *layout_a, k, i) : element(a, *layout_a, i, k)) *
               (descriptor->transposes[1] ? element(b, *layout_b, j, k) : element(b, *layout_b, k, j));
      double value = *alpha * sum;
      if (*beta != 0) value += *beta * element(c, *layout_c, i, j); /* else C is not read: it may hold NaN */
      store(d, *layout_d, i, j, static_cast<float>(value));
    }
  log(*descriptor, *layout_d, *beta);
  return kSuccess;
}
