#!/usr/bin/env bash
# Everything that only a GPU can show, in one command of at most 9 minutes without a network: builds the CUDA library, runs
# every op's tests on the device and the short ones under compute-sanitizer, then the benchmarks, and writes
# results/gpu/<card>.json (scripts/gpu-check.ts). Flags go through: see scripts/gpu-check.sh --help.
#
# Needs this folder with its node_modules, Bun ($SBORA_BUN, on the PATH, or bun.gz here: the tree that travels is small),
# g++, nvcc, a GPU. SBORA_CUDA_EMULATE=1 shows on any machine that the script works: no GPU, no nvcc, figures of no meaning.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

missing=()
bun=${SBORA_BUN:-$(command -v bun)}
if [ -z "$bun" ] && [ -f bun.gz ]; then
  bun=${TMPDIR:-/tmp}/sbora-bun-$UID/bun
  mkdir -p "$(dirname "$bun")" && gunzip -c bun.gz >"$bun" && chmod +x "$bun"
fi
[ -x "$bun" ] || missing+=("Bun: set SBORA_BUN, or put it here as bun.gz (gzip -c \"\$(command -v bun)\" > bun.gz)")
[ -d node_modules ] || missing+=("node_modules: run bun install --frozen-lockfile where there is a network, and bring the folder")
command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || missing+=("a C++ compiler: apt install g++")

if [ "${SBORA_CUDA_EMULATE:-}" != 1 ]; then
  nvidia-smi -L 2>/dev/null | grep -q GPU || missing+=("a GPU: nvidia-smi lists none")
  if [ -z "${SBORA_NVCC:-}" ] && ! command -v nvcc >/dev/null && [ ! -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then
    # NVIDIA's Python packages, which PyTorch's may have brought.
    toolkit=$(python3 -c 'import nvidia, os; print(os.path.join(list(nvidia.__path__)[0], "cu13"))' 2>/dev/null)
    if [ -x "$toolkit/bin/nvcc" ]; then export SBORA_NVCC=$toolkit; else missing+=("nvcc: set SBORA_NVCC, or CUDA_HOME"); fi
  fi
fi

if [ ${#missing[@]} -gt 0 ]; then
  echo "scripts/gpu-check.sh needs what is not here:" >&2
  printf '  %s\n' "${missing[@]}" >&2
  exit 1
fi
exec "$bun" run scripts/gpu-check.ts "$@"
