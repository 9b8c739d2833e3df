/* Finds cuBLASLt, chooses one of its kernels for each shape, and says our row-major products in its columns. */
#include "cublaslt.h"

#include <compare>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <glob.h>
#include <map>
#include <string>
#include <vector>

#if defined(__CUDACC__) && __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define LT_IS(ours, theirs) static_assert(static_cast<int>(ours) == static_cast<int>(theirs))
#else
#define LT_IS(ours, theirs) static_assert(true)
#endif

namespace gpu {

/* ---- what we use of cublasLt.h (CUDA 13.0), declared here: its header is not on every machine ------------------- */

using LtHandle = struct LtHandleOpaque *;         /* cublasLtHandle_t */
using LtDescriptor = struct LtDescriptorOpaque *; /* cublasLtMatmulDesc_t */
using LtLayout = struct LtLayoutOpaque *;         /* cublasLtMatrixLayout_t */
using LtPreference = struct LtPreferenceOpaque *; /* cublasLtMatmulPreference_t */

struct LtAlgorithm { /* cublasLtMatmulAlgo_t */
  uint64_t data[8];
};
struct LtHeuristic { /* cublasLtMatmulHeuristicResult_t */
  LtAlgorithm algorithm;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

/* cublas_api.h, library_types.h, cublasLt.h. Where those are, the compiler compares. */
constexpr int kLtSuccess = 0, kLtComputeF32 = 68, kLtF32 = 0, kLtBf16 = 14;
LT_IS(kLtSuccess, CUBLAS_STATUS_SUCCESS);
LT_IS(kLtComputeF32, CUBLAS_COMPUTE_32F);
LT_IS(kLtF32, CUDA_R_32F);
LT_IS(kLtBf16, CUDA_R_16BF);
constexpr int32_t kLtAsStored = 0, kLtTransposed = 1;
LT_IS(kLtAsStored, CUBLAS_OP_N);
LT_IS(kLtTransposed, CUBLAS_OP_T);
constexpr int kLtTransposeA = 3, kLtTransposeB = 4;
LT_IS(kLtTransposeA, CUBLASLT_MATMUL_DESC_TRANSA);
LT_IS(kLtTransposeB, CUBLASLT_MATMUL_DESC_TRANSB);
constexpr int kLtMostWorkspace = 1, kLtReductions = 3, kLtAlignA = 5, kLtAlignB = 6, kLtAlignC = 7, kLtAlignD = 8;
LT_IS(kLtMostWorkspace, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
LT_IS(kLtReductions, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
LT_IS(kLtAlignA, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
LT_IS(kLtAlignB, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
LT_IS(kLtAlignC, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
LT_IS(kLtAlignD, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
constexpr uint32_t kLtOneSequence = 0; /* of the depth */
LT_IS(kLtOneSequence, CUBLASLT_REDUCTION_SCHEME_NONE);
LT_IS(sizeof(LtHeuristic), sizeof(cublasLtMatmulHeuristicResult_t));

#define LT_FUNCTIONS(F)                                                                                               \
  F(int, Create, (LtHandle *))                                                                                        \
  F(int, Destroy, (LtHandle))                                                                                         \
  F(size_t, GetVersion, ())                                                                                           \
  F(int, MatmulDescCreate, (LtDescriptor *, int compute, int scale))                                                  \
  F(int, MatmulDescDestroy, (LtDescriptor))                                                                           \
  F(int, MatmulDescSetAttribute, (LtDescriptor, int attribute, const void *value, size_t bytes))                      \
  F(int, MatrixLayoutCreate, (LtLayout *, int type, uint64_t rows, uint64_t columns, int64_t stride))                 \
  F(int, MatrixLayoutDestroy, (LtLayout))                                                                             \
  F(int, MatmulPreferenceCreate, (LtPreference *))                                                                    \
  F(int, MatmulPreferenceDestroy, (LtPreference))                                                                     \
  F(int, MatmulPreferenceSetAttribute, (LtPreference, int attribute, const void *value, size_t bytes))                \
  F(int, MatmulAlgoGetHeuristic,                                                                                      \
    (LtHandle, LtDescriptor, LtLayout a, LtLayout b, LtLayout c, LtLayout d, LtPreference, int asked, LtHeuristic *,  \
     int *found))                                                                                                     \
  F(int, Matmul,                                                                                                      \
    (LtHandle, LtDescriptor, const void *alpha, const void *a, LtLayout, const void *b, LtLayout, const void *beta,   \
     const void *c, LtLayout, void *d, LtLayout, const LtAlgorithm *, void *workspace, size_t bytes, cudaStream_t))

/* ---- one context's --------------------------------------------------------------------------------------------- */

/* D = alpha·op(A)·op(B) + beta·D in columns: everything that a kernel is chosen by. */
struct LtShape {
  int64_t transpose_a, transpose_b, rows, columns, depth, stride_a, stride_b, stride_d, f32;
  int64_t align_a, align_b, align_d; /* bytes */
  auto operator<=>(const LtShape &) const = default;
};

struct LtPlan {
  LtDescriptor descriptor;
  LtLayout a, b, d;
  LtAlgorithm algorithm;
  bool usable; /* false: no kernel for this shape */
};

struct CublasLt {
  void *library;
  LtHandle handle;
  int64_t least_rows;
  std::map<LtShape, LtPlan> plans;
#define LT_FIELD(result, name, parameters) result(*name) parameters;
  LT_FUNCTIONS(LT_FIELD)
#undef LT_FIELD
};

/* What NVIDIA asks for on Hopper; less is enough before it. */
constexpr int64_t kWorkspace = 32 << 20;
/* Shapes follow the tokens of a batch. */
constexpr size_t kMostPlans = 4096;
constexpr int64_t kLeastRows = 512;

/* ---- opening ---------------------------------------------------------------------------------------------------- */

#if defined(__CUDACC__)
/* Versioned names only: the file without one, below stubs/, is for linkers. */
static constexpr const char *kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

/* Below $variable; patterns of glob(3). */
static void add_below(std::vector<std::string> &paths, const char *variable, const char *pattern) {
  const char *root = getenv(variable);
  if (!root || !*root) return;
  for (const char *name : kNames) {
    glob_t found{};
    if (glob((std::string(root) + pattern + name).c_str(), 0, nullptr, &found) == 0)
      paths.insert(paths.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    globfree(&found);
  }
}

/* The loader's own places first, then toolkits and NVIDIA's Python packages. */
static std::vector<std::string> candidates() {
  std::vector<std::string> paths(std::begin(kNames), std::end(kNames));
  add_below(paths, "SBORA_NVCC", "/lib/");
  add_below(paths, "CUDA_HOME", "/lib64/");
  add_below(paths, "VIRTUAL_ENV", "/lib/python3*/site-packages/nvidia/*/lib/");
  for (const char *name : kNames) paths.push_back(std::string("/usr/local/cuda/lib64/") + name);
  return paths;
}
#else
/* On a CPU there is none, unless a test names one. */
static std::vector<std::string> candidates() { return {}; }
#endif

template <class Function> static bool bind(void *library, const char *name, Function &function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

/* NULL, and why. */
static CublasLt *open_library(const char *path, std::string &why) {
  if (strstr(path, "/stubs/")) return why = "a stub is for linkers", nullptr;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return why = dlerror(), nullptr;
  auto *lt = new CublasLt();
  lt->library = library;
  bool whole = true;
#define LT_BIND(result, name, parameters) whole = bind(library, "cublasLt" #name, lt->name) && whole;
  LT_FUNCTIONS(LT_BIND)
#undef LT_BIND
  if (!whole) {
    why = "functions of cuBLASLt are missing";
  } else if (const size_t major = lt->GetVersion() / 10000; major != 12 && major != 13) {
    why = "it is version " + std::to_string(major) + "; expected 12 or 13";
  } else if (const int status = lt->Create(&lt->handle); status != kLtSuccess) {
    why = "cublasLtCreate returns " + std::to_string(status);
  } else {
    return lt;
  }
  dlclose(library);
  delete lt;
  return nullptr;
}

static int32_t read_rows(int64_t &rows) {
  rows = kLeastRows;
  const char *text = getenv("SBORA_CUBLASLT_ROWS");
  if (!text || !*text) return 0;
  char *end;
  rows = strtoll(text, &end, 10);
  if (*end == 0 && rows >= 1) return 0;
  return sb_fail("sb_open: SBORA_CUBLASLT_ROWS is \"%s\"; expected a whole number from 1", text);
}

int32_t cublaslt_open(Context &ctx) {
  int64_t rows;
  if (read_rows(rows)) return 1;
  const char *given = getenv("SBORA_CUBLASLT");
  if (environment_flag("SBORA_CUDA_DETERMINISTIC") || (given && strcmp(given, "off") == 0)) return 0;
  std::string why;
  if (given && *given) {
    ctx.cublaslt = open_library(given, why);
    if (!ctx.cublaslt)
      return sb_fail("sb_open: SBORA_CUBLASLT is \"%s\", which cannot be used: %s. Unset it, or set it to \"off\"",
                     given, why.c_str());
  } else {
    for (const std::string &path : candidates())
      if ((ctx.cublaslt = open_library(path.c_str(), why))) break;
  }
  if (ctx.cublaslt) ctx.cublaslt->least_rows = rows;
  return 0;
}

static void forget(CublasLt &lt) {
  for (auto &[shape, plan] : lt.plans) {
    if (plan.descriptor) lt.MatmulDescDestroy(plan.descriptor);
    for (LtLayout layout : {plan.a, plan.b, plan.d})
      if (layout) lt.MatrixLayoutDestroy(layout);
  }
  lt.plans.clear();
}

void cublaslt_close(Context &ctx) {
  CublasLt *lt = ctx.cublaslt;
  if (!lt) return;
  forget(*lt);
  lt->Destroy(lt->handle);
  /* The library stays: it has threads and device code of its own. */
  delete lt;
  ctx.cublaslt = nullptr;
}

void cublaslt_version(const Context &ctx, char *text, size_t capacity) {
  const unsigned version = static_cast<unsigned>(ctx.cublaslt->GetVersion());
  snprintf(text, capacity, "%u.%u.%u", version / 10000, version / 100 % 100, version % 100);
}

int64_t cublaslt_workspace(const Context &ctx) { return ctx.cublaslt ? kWorkspace : 0; }

/* ---- choosing a kernel ------------------------------------------------------------------------------------------ */

/* The largest power of two up to 256 that divides an address; 256 is what cuBLASLt assumes when it is not told. */
static int64_t alignment(const void *address) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<int64_t>(bits & (~bits + 1));
}

static bool choose_algorithm(CublasLt &lt, const LtShape &s, LtPlan &plan) {
  LtPreference preference = nullptr;
  if (lt.MatmulPreferenceCreate(&preference) != kLtSuccess) return false;
  const auto prefer = [&](int attribute, auto value) {
    return lt.MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value) == kLtSuccess;
  };
  LtHeuristic best{};
  int found = 0;
  const bool asked =
      prefer(kLtMostWorkspace, static_cast<uint64_t>(kWorkspace)) && prefer(kLtReductions, kLtOneSequence) &&
      prefer(kLtAlignA, static_cast<uint32_t>(s.align_a)) && prefer(kLtAlignB, static_cast<uint32_t>(s.align_b)) &&
      prefer(kLtAlignC, static_cast<uint32_t>(s.align_d)) && prefer(kLtAlignD, static_cast<uint32_t>(s.align_d)) &&
      lt.MatmulAlgoGetHeuristic(lt.handle, plan.descriptor, plan.a, plan.b, plan.d, plan.d, preference, 1, &best,
                                &found) == kLtSuccess;
  lt.MatmulPreferenceDestroy(preference);
  plan.algorithm = best.algorithm;
  return asked && found > 0 && best.state == kLtSuccess;
}

static LtPlan make_plan(CublasLt &lt, const LtShape &s) {
  LtPlan plan{};
  const int32_t transpose_a = s.transpose_a ? kLtTransposed : kLtAsStored;
  const int32_t transpose_b = s.transpose_b ? kLtTransposed : kLtAsStored;
  const auto layout = [&](LtLayout *made, int type, int64_t rows, int64_t columns, int64_t stride, bool turned) {
    return lt.MatrixLayoutCreate(made, type, static_cast<uint64_t>(turned ? columns : rows),
                                 static_cast<uint64_t>(turned ? rows : columns), stride) == kLtSuccess;
  };
  plan.usable =
      lt.MatmulDescCreate(&plan.descriptor, kLtComputeF32, kLtF32) == kLtSuccess &&
      lt.MatmulDescSetAttribute(plan.descriptor, kLtTransposeA, &transpose_a, sizeof transpose_a) == kLtSuccess &&
      lt.MatmulDescSetAttribute(plan.descriptor, kLtTransposeB, &transpose_b, sizeof transpose_b) == kLtSuccess &&
      layout(&plan.a, kLtBf16, s.rows, s.depth, s.stride_a, s.transpose_a) &&
      layout(&plan.b, kLtBf16, s.depth, s.columns, s.stride_b, s.transpose_b) &&
      layout(&plan.d, s.f32 ? kLtF32 : kLtBf16, s.rows, s.columns, s.stride_d, false) && choose_algorithm(lt, s, plan);
  return plan;
}

/* NULL where cuBLASLt has no kernel. Good until kMostPlans other shapes were asked for. */
static const LtPlan *plan_for(CublasLt &lt, const LtShape &shape) {
  auto at = lt.plans.find(shape);
  if (at == lt.plans.end()) at = lt.plans.emplace(shape, make_plan(lt, shape)).first;
  return at->second.usable ? &at->second : nullptr;
}

/* ---- multiplying ------------------------------------------------------------------------------------------------ */

/*
 * A row-major matrix is its transpose in columns, so to[m,n] is seen as [n,m]: toᵀ = right · leftᵀ. A is the right
 * operand: [n,depth] in rows is [depth,n] in columns and has to be transposed, stored across it is as it should be. B is
 * the left one, and the other way round.
 */
static LtShape shape_of(const Product &p, const Operand &left, const Operand &right, int64_t depth) {
  return {!right.across,
          left.across,
          p.n,
          p.m,
          depth,
          right.stride,
          left.stride,
          p.results.stride,
          p.results.dtype == SB_F32,
          alignment(right.data),
          alignment(left.data),
          alignment(p.results.to)};
}

Taken multiply_cublaslt(Room &room, const Product &p) {
  Context &ctx = room.ctx;
  if (!ctx.cublaslt) return Taken::no;
  CublasLt &lt = *ctx.cublaslt;
  const bool tail = p.tail_depth > 0, f32 = p.results.dtype == SB_F32, cut = p.piece > 0 && p.depth > p.piece;
  if (p.m < lt.least_rows || p.n == 0 || p.depth == 0 || p.right.nf4 || p.results.gain || cut || (tail && !f32))
    return Taken::no;
  if (room_for(kWorkspace) > ctx.workspace_bytes - room.used) return Taken::no;
  if (lt.plans.size() + 2 > kMostPlans) forget(lt);
  const LtPlan *main = plan_for(lt, shape_of(p, p.left, p.right, p.depth));
  const LtPlan *first = tail ? plan_for(lt, shape_of(p, p.tail_left, p.tail_right, p.tail_depth)) : main;
  if (!main || !first) return Taken::no;

  const auto run = [&](const LtPlan &plan, const Operand &left, const Operand &right, float alpha, float beta) {
    unsigned char *workspace = ctx.workspace + room.used;
    return lt.Matmul(lt.handle, plan.descriptor, &alpha, right.data, plan.a, left.data, plan.b, &beta, p.results.to,
                     plan.d, p.results.to, plan.d, &plan.algorithm, workspace, static_cast<size_t>(kWorkspace),
                     ctx.stream);
  };
  float beta = p.results.beta;
  int status = kLtSuccess;
  if (tail) status = run(*first, p.tail_left, p.tail_right, p.results.alpha * p.tail_scale, beta), beta = 1;
  if (status == kLtSuccess) status = run(*main, p.left, p.right, p.results.alpha, beta);
  if (status == kLtSuccess) return Taken::yes;
  sb_fail("%s: cublasLtMatmul returns %d for [%lld,%lld] of depth %lld", room.function, status,
          static_cast<long long>(p.m), static_cast<long long>(p.n), static_cast<long long>(p.depth));
  return Taken::failed;
}

} // namespace gpu
