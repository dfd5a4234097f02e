// The router of a mixture of experts.  Contract: Route in kernels.h.
#include <cmath>

#include "kernels_cpu/scalar.h"

namespace tandem::cpu::scalar {
namespace {

// Puts (id, p) into the list of the best so far, kept in falling order.  Later equals stay behind,
// so with ids in rising order the lower id wins.
void insert(int32_t id, float p, int64_t kept, int64_t U, int32_t* ids, float* weights) {
  int64_t place = kept < U ? kept : U - 1;
  if (kept == U && !(p > weights[place])) return;
  for (; place > 0 && p > weights[place - 1]; --place) {
    ids[place] = ids[place - 1];
    weights[place] = weights[place - 1];
  }
  ids[place] = id;
  weights[place] = p;
}

}  // namespace

void route(const float* logits, int64_t X, int64_t U, bool renormalise, int32_t* ids,
           float* weights) {
  float largest = logits[0];
  for (int64_t i = 1; i < X; ++i)
    if (logits[i] > largest) largest = logits[i];
  float sum = 0;
  for (int64_t i = 0; i < X; ++i) sum += std::exp(logits[i] - largest);
  if (!(sum > 0)) {  // NaN: there is no softmax
    for (int64_t u = 0; u < U; ++u) {
      ids[u] = static_cast<int32_t>(u);
      weights[u] = sum;
    }
    return;
  }
  for (int64_t i = 0; i < X; ++i)
    insert(static_cast<int32_t>(i), std::exp(logits[i] - largest) / sum, i < U ? i : U, U, ids,
           weights);
  if (!renormalise) return;
  float chosen = 0;
  for (int64_t u = 0; u < U; ++u) chosen += weights[u];
  for (int64_t u = 0; u < U; ++u) weights[u] /= chosen;
}

}  // namespace tandem::cpu::scalar
