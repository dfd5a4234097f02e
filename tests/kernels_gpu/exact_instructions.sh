#!/usr/bin/env bash
# What docs/numerics.md promises of a card, looked up in the compiled kernels: nothing approximated, nothing flushed to zero, and
# no product fused with a sum where it is not written so.
#   exact_instructions.sh NVCC SOURCE_FOLDER
set -euo pipefail
readonly nvcc=$1 source=$2

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

fail() {
  printf 'failed: %s\n' "$*" >&2
  exit 1
}

for name in products row_wise; do
  "$nvcc" -ptx -std=c++20 -O2 -arch=compute_80 --fmad=false -I "$source/src" -I "$source" \
    "$source/kernels_gpu/$name.cu" -o "$work/$name.ptx"
  if grep -nE '\.(approx|ftz)' "$work/$name.ptx"; then fail "$name has approximations"; fi
done

# kernel NAME: its instructions.
kernel() {
  awk -v name="$1" '$0 ~ "\\.entry .*" name { inside = 1 } inside { print } inside && /^}/ { exit }' "$work/row_wise.ptx"
}

for name in RopeKernel CombineKernel AddKernel BiasKernel QuantizeKernel; do
  [[ -n "$(kernel "$name")" ]] || fail "there is no kernel $name"
  if kernel "$name" | grep -nE '\bfma\.'; then fail "$name fuses a product with a sum"; fi
done
grep -q 'dp4a' "$work/products.ptx" || fail 'the quantised products do not use dp4a'
