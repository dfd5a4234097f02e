// The letters of every shape comment and kernel argument in this project.
//
//   T  tokens in this step          D  model width (n_embd)
//   H  query heads                  G  key-value heads (G divides H)
//   E  width of one head            F  feed-forward width (of one expert, where there are experts)
//   V  vocabulary                   L  layers
//   X  experts of a layer           U  experts used per token
//   C  context positions            M, N, K  rows, columns and inner length inside matrix products
//
// Shapes are written slowest dimension first: W [N,K] has N rows of K consecutive weights.
#pragma once

#include <cstdint>

namespace tandem {

// More than any model has; what reads and what makes models agree on it.
inline constexpr int64_t kMaxLayers = 1024;

}  // namespace tandem
