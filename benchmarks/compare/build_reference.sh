#!/usr/bin/env bash
# Builds llama-bench of a reference engine into FOLDER, unless it is there:  build_reference.sh FOLDER [REPOSITORY]
# REPOSITORY is a git address or a folder; the default is ik_llama.cpp, the fastest one known on CPUs.
set -euo pipefail

[[ $# -ge 1 ]] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
readonly folder=$1 repository=${2:-https://github.com/ikawrakow/ik_llama.cpp}
readonly bench=$folder/build/bin/llama-bench

if [[ ! -x $bench ]]; then
  [[ -d $folder/.git ]] || git clone --quiet --depth 1 "$repository" "$folder"
  cmake -S "$folder" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_CUDA=OFF \
        -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF >&2
  cmake --build "$folder/build" --target llama-bench --parallel "$(nproc)" >&2
fi
echo "$bench"
git -C "$folder" log -1 --format='%H' >&2
