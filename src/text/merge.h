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
  explicit Merger(const CancelFlag& cancel) : cancel_(cancel) {}

  // join(const Symbol& left, const Symbol& right) -> Joined.  `symbols` cover adjacent text, none is
  // empty; afterwards those with length > 0 are the result, in order.  False when cancelled.
  template <typename Join>
  bool merge(std::span<Symbol> symbols, const Join& join) {
    if (symbols.size() > kFewSymbols) return merge_many(symbols, join);
    merge_few(symbols, join);
    return true;
  }

  // The two methods, for tests that compare them.  Few: look at every pair each time, n^2 but all in
  // the first-level cache; measured faster than a heap below about 40 symbols.  Requires for few:
  // at most kFewSymbols symbols.
  template <typename Join>
  void merge_few(std::span<Symbol> symbols, const Join& join);
  // Many: a heap over a linked list, n log n.
  template <typename Join>
  bool merge_many(std::span<Symbol> symbols, const Join& join);

  static constexpr size_t kFewSymbols = 32;

 private:
  struct Candidate {
    uint64_t rank;    // order, then position of the left symbol
    uint32_t length;  // of both together; another length means that one of them has changed since
    int32_t id;
    bool operator<(const Candidate& other) const { return rank > other.rank; }  // std heaps: max first
  };

  // Looking at the flag costs little beside a step, but it is another processor's cache line.
  bool stop_now(size_t step) const { return step % 4096 == 0 && cancel_.cancelled(); }

  const CancelFlag& cancel_;
  std::vector<Candidate> heap_;
  std::vector<uint32_t> next_, previous_;
};

template <typename Join>
void Merger::merge_few(std::span<Symbol> symbols, const Join& join) {
  const size_t n = symbols.size();
  Symbol live[kFewSymbols];
  Joined pairs[kFewSymbols];  // pairs[i]: live[i] with live[i + 1]
  std::copy(symbols.begin(), symbols.end(), live);
  size_t n_live = n;
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = join(live[i], live[i + 1]);
  while (n_live > 1) {
    const auto* best = std::min_element(
        pairs, pairs + n_live - 1, [](const Joined& a, const Joined& b) { return a.order < b.order; });
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
  constexpr uint32_t kEnd = UINT32_MAX;
  next_.resize(n);
  previous_.resize(n);
  for (uint32_t i = 0; i < n; ++i) {
    next_[i] = i + 1 < n ? i + 1 : kEnd;
    previous_[i] = i > 0 ? i - 1 : kEnd;
  }
  heap_.clear();
  const auto candidate = [&](uint32_t left, auto&& add) {
    const Symbol& a = symbols[left];
    const Symbol& b = symbols[next_[left]];
    const Joined joined = join(a, b);
    if (joined.order == Joined::kNever) return;
    add(Candidate{uint64_t{joined.order} << 32 | left, a.length + b.length, joined.id});
  };
  const auto push = [&](const Candidate& c) {
    heap_.push_back(c);
    std::push_heap(heap_.begin(), heap_.end());
  };
  // One by one: with equal ranks, the common case of very long words, each stays where it is put.
  for (uint32_t i = 0; i + 1 < n; ++i) {
    if (stop_now(i)) return false;
    candidate(i, push);
  }
  for (size_t step = 1; !heap_.empty(); ++step) {
    if (stop_now(step)) return false;
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
