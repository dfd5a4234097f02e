// Joining neighbours, best pair first, until no pair may be joined: the heart of both kinds of
// byte-pair tokenizer.  Equally good pairs: the leftmost first, so the result is one and the same
// whatever the method.
//
// Threading: a Merger is one caller's scratch memory, reused from word to word.
// Errors: none but being cancelled; stack use does not depend on the input.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/progress.h"

namespace tandem {

struct Symbol {
  uint32_t begin = 0;   // in the text that is merged
  uint32_t length = 0;  // bytes; 0: joined to its left neighbour
  int32_t id = -1;      // token, or -1: no token of its own
};

// What joining two neighbours gives.
struct Joined {
  static constexpr uint32_t kNever = UINT32_MAX;
  uint32_t order = kNever;  // smaller is joined first
  int32_t id = -1;
};

class Merger {
 public:
  // `cancel` outlives the Merger.
  explicit Merger(const CancelFlag& cancel) : cancel_(cancel) {}

  // join(const Symbol& left, const Symbol& right) -> Joined.  `symbols` cover adjacent text, none
  // is empty; afterwards those with length > 0 are the result, in order.  False: cancelled, and the
  // symbols are of no use.
  template <typename Join>
  bool merge(std::span<Symbol> symbols, const Join& join) {
    if (symbols.size() > kFewSymbols) return merge_many(symbols, join);
    merge_few(symbols, join);
    return true;
  }

  // The two methods, for tests that compare them.  Few: look at every pair each time, n^2 but all
  // in the first-level cache; measured faster than a heap below about 40 symbols.  Requires for
  // few: at most kFewSymbols symbols.
  template <typename Join>
  void merge_few(std::span<Symbol> symbols, const Join& join);
  // Many: a heap over a linked list, n log n; as merge().
  template <typename Join>
  bool merge_many(std::span<Symbol> symbols, const Join& join);

  static constexpr size_t kFewSymbols = 32;

 private:
  struct Candidate {
    uint64_t rank;    // order, then position of the left symbol
    uint32_t length;  // of both together; another length means that one of them has changed since
    int32_t id;
    bool operator<(const Candidate& other) const {
      return rank > other.rank;
    }  // std heaps: max first
  };

  // Looked at this seldom, the flag costs nothing; in between lie a few milliseconds.
  bool stop_at(size_t count) const { return count % 16384 == 0 && cancel_.cancelled(); }
  void sift_down(size_t at);
  bool make_heap();
  bool link(uint32_t n);

  static constexpr uint32_t kEnd = UINT32_MAX;

  const CancelFlag& cancel_;
  std::vector<Candidate> heap_;
  std::vector<uint32_t> next_, previous_;
};

// All parts of merge_many() look at the flag, because a word may be as long as the longest text:
// they also touch new memory bit by bit instead of having it moved or filled at once.
inline void Merger::sift_down(size_t at) {
  const Candidate moving = heap_[at];
  for (size_t child = 2 * at + 1; child < heap_.size(); child = 2 * at + 1) {
    if (child + 1 < heap_.size() && heap_[child] < heap_[child + 1]) ++child;
    if (!(moving < heap_[child])) break;
    heap_[at] = heap_[child];
    at = child;
  }
  heap_[at] = moving;
}

inline bool Merger::make_heap() {
  for (size_t at = heap_.size() / 2; at-- > 0;) {
    if (stop_at(at)) return false;
    sift_down(at);
  }
  return true;
}

inline bool Merger::link(uint32_t n) {
  next_.clear();
  previous_.clear();
  next_.reserve(n);
  previous_.reserve(n);
  for (uint32_t i = 0; i < n; ++i) {
    if (stop_at(i)) return false;
    next_.push_back(i + 1 < n ? i + 1 : kEnd);
    previous_.push_back(i > 0 ? i - 1 : kEnd);
  }
  return true;
}

template <typename Join>
void Merger::merge_few(std::span<Symbol> symbols, const Join& join) {
  const size_t n = symbols.size();
  Symbol live[kFewSymbols];
  Joined pairs[kFewSymbols];  // pairs[i]: live[i] with live[i + 1]
  std::copy(symbols.begin(), symbols.end(), live);
  size_t n_live = n;
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = join(live[i], live[i + 1]);
  while (n_live > 1) {
    const auto* best =
        std::min_element(pairs, pairs + n_live - 1,
                         [](const Joined& a, const Joined& b) { return a.order < b.order; });
    if (best->order == Joined::kNever) break;
    const size_t at = static_cast<size_t>(best - pairs);
    live[at].length += live[at + 1].length;
    live[at].id = best->id;
    std::copy(live + at + 2, live + n_live, live + at + 1);
    std::copy(pairs + at + 1, pairs + n_live - 1, pairs + at);
    --n_live;
    if (at > 0) pairs[at - 1] = join(live[at - 1], live[at]);
    if (at + 1 < n_live) pairs[at] = join(live[at], live[at + 1]);
  }
  std::copy(live, live + n_live, symbols.begin());
  std::fill(symbols.begin() + static_cast<std::ptrdiff_t>(n_live), symbols.end(), Symbol{});
}

template <typename Join>
bool Merger::merge_many(std::span<Symbol> symbols, const Join& join) {
  const auto n = static_cast<uint32_t>(symbols.size());
  if (!link(n)) return false;
  heap_.clear();
  heap_.reserve(size_t{2} * n);  // n - 1 pairs, and each of n - 1 joins adds one more at most
  const auto candidate = [&](uint32_t left, auto&& add) {
    const Symbol& a = symbols[left];
    const Symbol& b = symbols[next_[left]];
    const Joined joined = join(a, b);
    if (joined.order == Joined::kNever) return;
    add(Candidate{uint64_t{joined.order} << 32 | left, a.length + b.length, joined.id});
  };
  for (uint32_t i = 0; i + 1 < n; ++i) {
    if (stop_at(i)) return false;
    candidate(i, [&](const Candidate& c) { heap_.push_back(c); });
  }
  if (!make_heap()) return false;
  const auto push = [&](const Candidate& c) {
    heap_.push_back(c);
    std::push_heap(heap_.begin(), heap_.end());
  };
  for (size_t n_popped = 1; !heap_.empty(); ++n_popped) {
    if (stop_at(n_popped)) return false;
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate best = heap_.back();
    heap_.pop_back();
    const auto left = static_cast<uint32_t>(best.rank);
    const uint32_t right = next_[left];
    if (symbols[left].length == 0 || right == kEnd) continue;
    if (symbols[left].length + symbols[right].length != best.length) continue;
    symbols[left].length = best.length;
    symbols[left].id = best.id;
    symbols[right].length = 0;
    next_[left] = next_[right];
    if (next_[left] != kEnd) {
      previous_[next_[left]] = left;
      candidate(left, push);
    }
    if (previous_[left] != kEnd) candidate(previous_[left], push);
  }
  return true;
}

}  // namespace tandem
