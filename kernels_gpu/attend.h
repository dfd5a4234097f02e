// kAttend: out [T,H*E] = attention of queries in[0] [T,H*E] over the layer's pages.  Overwrites out.
// Requires: E <= 1024; every page that a token sees is there.
//
// kAttendPages: out [T,slots] = partial attention over those pages that are here, see Partials.
// Requires: E <= 1024.  Pages for which there is no slot are left out.
//
// One block per (token, query head).  Page by page, in page order: scores in float32 in order of e, their maximum,
// weights exp(score - maximum), outputs summed over positions in order; pages merged by running maximum and sum.  That is
// the scalar set's order of operations: the same bits but for exp (exp.h, 2^-22).
#pragma once

#include <cmath>

#include "kernels_gpu/exp.h"
#include "kernels_gpu/pages.h"

namespace tandem::gpu {

inline constexpr int64_t kMaxHeadWidth = 1024;  // of any model that can be opened

struct AttendKernel {
  static constexpr int kThreads = 128;
  struct Shared {
    float q[kMaxHeadWidth];
    float acc[kMaxHeadWidth];
    float weights[kPageTokens];  // scores at first
    float page_maximum, maximum, sum;
  };

  // Positions of a page that a token sees; first: nothing is folded yet.
  struct Seen {
    const std::byte* keys;
    const std::byte* values;
    int64_t n;
    bool first;
  };

  // The pages that one token sees, for one head.
  struct Sight {
    int64_t head, n_keys, first_key;
    TANDEM_DEVICE int64_t first_page() const { return first_key / kPageTokens; }
    TANDEM_DEVICE bool sees(int64_t page) const { return page * kPageTokens < n_keys; }
  };

  TANDEM_DEVICE static float score(const Shared& shared, const std::byte* keys, int64_t i,
                                   int64_t E, KvType type, float scale) {
    float sum = 0;
    for (int64_t e = 0; e < E; ++e) sum += shared.q[e] * kv_value(keys, i * E + e, type);
    return sum * scale;
  }

  TANDEM_DEVICE static float weight(float score, float maximum) {
    return score == maximum ? 1.0f : exp_f32(score - maximum);  // equal first: -inf - -inf is NaN
  }

  // Folds one page into acc, maximum and sum.
  TANDEM_DEVICE static void fold(const Block<kThreads>& block, Shared& shared, const Seen& seen,
                                 int64_t E, KvType type, float scale) {
    block.phase([&](int thread) {
      if (thread < seen.n)
        shared.weights[thread] = score(shared, seen.keys, thread, E, type, scale);
    });
    block.phase([&](int thread) {
      if (thread != 0) return;
      float maximum = -INFINITY;
      for (int64_t i = 0; i < seen.n; ++i)
        if (!(shared.weights[i] <= maximum)) maximum = shared.weights[i];
      shared.page_maximum = maximum;
    });
    block.phase([&](int thread) {
      if (thread < seen.n)
        shared.weights[thread] = weight(shared.weights[thread], shared.page_maximum);
    });
    block.phase([&](int thread) {
      const float m = shared.maximum, m2 = shared.page_maximum;
      const float largest = m >= m2 ? m : m2;
      const float a = weight(m, largest), b = weight(m2, largest);
      if (thread == 0) {
        float sum = 0;
        for (int64_t i = 0; i < seen.n; ++i) sum += shared.weights[i];
        shared.sum = seen.first ? sum : a * shared.sum + b * sum;
      }
      for (int64_t e = thread; e < E; e += kThreads) {
        float acc = 0;
        for (int64_t i = 0; i < seen.n; ++i)
          acc += shared.weights[i] * kv_value(seen.values, i * E + e, type);
        shared.acc[e] = seen.first ? acc : a * shared.acc[e] + b * acc;
      }
    });
    block.phase([&](int thread) {
      if (thread != 0) return;
      const float m = shared.maximum, m2 = shared.page_maximum;
      shared.maximum = seen.first ? m2 : m >= m2 ? m : m2;
    });
  }

  TANDEM_DEVICE static Sight sight_of(const Arguments& a, int64_t token, int64_t head) {
    const int64_t n_keys = a.op.step->first_position + token + 1;
    const int64_t window = a.c.sliding_window;
    return {head, n_keys, window > 0 ? larger<int64_t>(0, n_keys - window) : 0};
  }

  TANDEM_DEVICE static Seen seen_of(const Arguments& a, const Sight& sight, int64_t page,
                                    bool first) {
    const int64_t skipped = page == sight.first_page() ? sight.first_key % kPageTokens : 0;
    const int64_t kv_head = sight.head / (a.c.n_heads / a.c.n_kv_heads);
    const size_t row_bytes = kv_row_bytes(a.c);
    Seen seen;
    seen.keys = keys_of_page(a, page) + static_cast<size_t>(kv_head) * kv_head_bytes(a.c) +
                static_cast<size_t>(skipped) * row_bytes;
    seen.values = seen.keys + kv_page_bytes(a.c);
    seen.n = smaller<int64_t>(kPageTokens, sight.n_keys - page * kPageTokens) - skipped;
    seen.first = first;
    return seen;
  }

  TANDEM_DEVICE static void begin(const Block<kThreads>& block, Shared& shared, const float* q,
                                  int64_t E) {
    block.phase([&](int thread) {
      for (int64_t e = thread; e < E; e += kThreads) shared.q[e] = q[e];
      if (thread == 0) shared.maximum = -INFINITY;
    });
  }

  TANDEM_DEVICE static void attend_whole(const Block<kThreads>& block, Shared& shared,
                                         const Arguments& a, const Sight& sight, float* out) {
    const int64_t E = a.c.head_width;
    const KvType type = a.c.kv_type;
    const float scale = 1.0f / sqrtf(static_cast<float>(E));
    const int64_t first_page = sight.first_page();
    for (int64_t page = first_page; sight.sees(page); ++page) {
      fold(block, shared, seen_of(a, sight, page, page == first_page), E, type, scale);
    }
    block.phase([&](int thread) {
      const float inverse = 1.0f / shared.sum;
      for (int64_t e = thread; e < E; e += kThreads) out[e] = shared.acc[e] * inverse;
    });
  }

  // What is folded goes to a slot of this head's, R of which share a key-value head.
  TANDEM_DEVICE static void put(const Block<kThreads>& block, const Shared& shared, float* slot,
                                int64_t r, int64_t R, int64_t E) {
    block.phase([&](int thread) {
      if (thread == 0) {
        slot[r] = shared.maximum;
        slot[R + r] = shared.sum;
      }
      for (int64_t e = thread; e < E; e += kThreads) slot[2 * R + r * E + e] = shared.acc[e];
    });
  }

  TANDEM_DEVICE static void attend_pages(const Block<kThreads>& block, Shared& shared,
                                         const Arguments& a, const Sight& sight, float* row) {
    const int64_t E = a.c.head_width, R = a.c.n_heads / a.c.n_kv_heads;
    const KvType type = a.c.kv_type;
    const float scale = 1.0f / sqrtf(static_cast<float>(E));
    const int64_t slot_floats = a.c.n_heads * (2 + E), r = sight.head % R;
    int64_t left = static_cast<int64_t>(a.op.out.row_bytes / sizeof(float)) / slot_floats;
    float* slot = row + sight.head / R * R * (2 + E);
    const int64_t first_page = sight.first_page();
    int64_t page = first_page;
    if (has_page(a, page)) {
      for (; sight.sees(page) && has_page(a, page); ++page) {
        fold(block, shared, seen_of(a, sight, page, page == first_page), E, type, scale);
      }
      put(block, shared, slot, r, R, E);
      slot += slot_floats;
      --left;
    }
    for (; sight.sees(page) && left > 0; ++page) {
      if (!has_page(a, page)) continue;
      fold(block, shared, seen_of(a, sight, page, true), E, type, scale);
      put(block, shared, slot, r, R, E);
      slot += slot_floats;
      --left;
    }
  }

  TANDEM_DEVICE static void attend(const Block<kThreads>& block, Shared& shared, const Arguments& a,
                                   int64_t token, int64_t head) {
    const int64_t E = a.c.head_width;
    const Sight sight = sight_of(a, token, head);
    begin(block, shared, row_of<const float>(a.op.in[0], token) + head * E, E);
    float* row = row_of<float>(a.op.out, token);
    if (a.op.kind == OpKind::kAttendPages) {
      attend_pages(block, shared, a, sight, row);
    } else {
      attend_whole(block, shared, a, sight, row + head * E);
    }
  }

  // Heads along x, tokens along y.
  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared& shared, const Arguments& a) {
    for (int64_t token = block.y(), n = a.op.step->n_tokens; token < n; token += block.n_y())
      for (int64_t head = block.x(); head < a.c.n_heads; head += block.n_x())
        attend(block, shared, a, token, head);
  }
};

}  // namespace tandem::gpu
