#!/usr/bin/env bash
# Builds Horovod against the PyTorch of one Python environment and installs it there.
#
#   bash env/horovod_build/build.sh PYTHON
#
# A PyTorch built for CUDA gets NCCL. That needs a CUDA toolkit of PyTorch's major version: the one in
# CUDA_HOME, /usr/local/cuda or behind the nvcc on the PATH; where there is none, the compiler comes
# from the package index, into a temporary folder. A PyTorch without CUDA gets Gloo only.
#
# Environment: MAX_JOBS (compile jobs, default: all cores), HOROVOD_BUILD_CUDA_CC_LIST (compute
# capabilities), HOROVOD_BUILD_CXX (compiler, default g++).
set -euo pipefail
shopt -s inherit_errexit

python=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/../requirements-horovod.txt

# SASS of a capability runs on all later ones of the same major version, so these serve every GPU
# that CUDA 13 knows; nvcc's own list says which of them it can compile.
readonly CAPABILITIES="75 80 90 100 120"

scratch=$(mktemp -d "${TMPDIR:-/tmp}/horovod-build.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# Prints the folder of the toolkit behind an nvcc, which may be a wrapper that lies elsewhere.
toolkit_of_nvcc() {
    "$1" --dryrun -x cu -E /dev/null 2>&1 | sed -n 's/^#\$ *TOP=//p' | head -n 1
}

# Prints a toolkit's CUDA major version; fails where the folder holds no toolkit that can build.
toolkit_major() {
    [ -x "$1/bin/nvcc" ] && [ -f "$1/include/cuda_runtime.h" ] || return 1
    "$1/bin/nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p' | grep .
}

# Prints the folder of a toolkit on this machine that has PyTorch's major version.
find_toolkit() {
    local wanted=$1 candidate major
    local candidates=("${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda)
    if command -v nvcc >/dev/null; then
        candidates+=("$(toolkit_of_nvcc nvcc)")
    fi
    for candidate in "${candidates[@]}"; do
        [ -n "$candidate" ] || continue
        major=$(toolkit_major "$candidate") || continue
        if [ "$major" = "$wanted" ]; then
            (cd "$candidate" && pwd -P)
            return 0
        fi
        echo "passed over $candidate: CUDA $major, PyTorch wants $wanted" >&2
    done
    return 1
}

# Fetches nvcc and its headers, in the version of the CUDA packages that PyTorch itself depends on,
# and prints their folder.
fetch_toolkit() {
    local major=$1 version
    version=$("$python" -c 'from importlib.metadata import version; print(version("cuda-toolkit"))') || {
        echo "PyTorch's CUDA packages name no toolkit version: install CUDA $major and set CUDA_HOME" >&2
        return 1
    }
    "$python" -m uv pip install --python "$python" --target "$scratch/packages" \
        "cuda-toolkit[nvcc,cccl,cudart]==$version" >&2
    local toolkit=$scratch/packages/nvidia/cu$major
    ln -s lib "$toolkit/lib64"
    ln -s "libcudart.so.$major" "$toolkit/lib/libcudart.so"
    toolkit_major "$toolkit" >/dev/null
    echo "$toolkit"
}

export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1
export HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
export CXX=$here/cxx17
export CMAKE_POLICY_VERSION_MINIMUM=3.5 # CMake 4 refuses the 3.x minimum of Horovod's third parties
export MAKEFLAGS=-j${MAX_JOBS:-$(nproc)}
# The environment has a cmake of its own, from the package index.
PATH=$(dirname "$python"):$PATH

cuda_major=$("$python" -c 'import torch; print((torch.version.cuda or "").split(".")[0])')
if [ -n "$cuda_major" ]; then
    toolkit=$(find_toolkit "$cuda_major" || fetch_toolkit "$cuda_major")
    echo "Horovod with NCCL, CUDA toolkit: $toolkit"
    nccl=$("$python" -c 'import nvidia.nccl; print(next(iter(nvidia.nccl.__path__)))')
    mkdir "$scratch/nccl"
    ln -s "$nccl/lib/libnccl.so.2" "$scratch/nccl/libnccl.so"
    if [ -z "${HOROVOD_BUILD_CUDA_CC_LIST:-}" ]; then
        supported=" $("$toolkit/bin/nvcc" --list-gpu-arch | sed 's/compute_//' | tr '\n' ' ')"
        for capability in $CAPABILITIES; do
            case "$supported" in *" $capability "*) list=${list:+$list,}$capability ;; esac
        done
        export HOROVOD_BUILD_CUDA_CC_LIST=$list
    fi
    export CUDA_HOME=$toolkit HOROVOD_CUDA_HOME=$toolkit CUDAToolkit_ROOT=$toolkit
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_INCLUDE=$nccl/include HOROVOD_NCCL_LIB=$scratch/nccl
    export NVCC_APPEND_FLAGS=-std=c++17
    PATH=$toolkit/bin:$PATH
else
    echo "Horovod with Gloo: this PyTorch is built without CUDA"
fi

# Without isolation the build sees this environment's PyTorch; without a cache no wheel that was built
# against another one is taken; from source, since the index has nothing else.
"$python" -m uv pip install --python "$python" --no-build-isolation --no-cache --no-deps \
    --no-binary horovod --reinstall-package horovod -r "$requirements"
