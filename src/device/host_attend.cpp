// Attention by host code: whole, or of the pages that a processor has, merged with those that another has.
//
// The order of arithmetic is the same everywhere: the first page that a token sees is taken as it is, each further one
// is folded in, in page order.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/status.h"
#include "device/host_compute.h"
#include "device/host_operands.h"

namespace tandem::host {
namespace {

// Of R query heads: what a run of pages gives.
struct Partial {
  float* maximum;  // [R]
  float* sum;      // [R]
  float* acc;      // [R,E]
};

Partial partial_over(float* memory, int64_t group) {
  return {memory, memory + group, memory + 2 * group};
}

cpu::KernelTable::AttendPage* attend_page_of(const cpu::KernelTable& kernels, KvType type) {
  switch (type) {
    case KvType::kF16:
      return kernels.attend_page_f16;
    case KvType::kF32:
      return kernels.attend_page_f32;
    case KvType::kQ8_0:
      return kernels.attend_page_q8_0;
  }
  return nullptr;
}

// One token's query heads that share a key-value head.
class Attention {
 public:
  Attention(const Operation& op, const Operand& queries, const cpu::KernelTable& kernels,
            int64_t token, int64_t kv_head, float* scratch)
      : op_(op),
        kernels_(kernels),
        attend_page_(attend_page_of(kernels, op.constants->kv_type)),
        group_(op.constants->n_heads / op.constants->n_kv_heads),
        width_(op.constants->head_width),
        n_keys_(op.step->first_position + token + 1),
        first_key_(op.constants->sliding_window > 0
                       ? std::max<int64_t>(0, n_keys_ - op.constants->sliding_window)
                       : 0),
        scale_(1.0f / std::sqrt(static_cast<float>(width_))),
        q_(row_of<const float>(queries, token) + kv_head * group_ * width_),
        head_offset_(static_cast<size_t>(kv_head) * op.constants->kv_head_bytes()),
        scores_(scratch),
        page_(partial_over(scratch + group_ * kPageTokens, group_)) {}

  int64_t first_page() const { return first_key_ / kPageTokens; }
  bool sees(int64_t page) const { return page * kPageTokens < n_keys_; }

  void attend(int64_t page, const Partial& into) const {
    const int64_t skipped = page == first_page() ? first_key_ % kPageTokens : 0;
    const int64_t n = std::min(kPageTokens, n_keys_ - page * kPageTokens) - skipped;
    const size_t row_bytes = op_.constants->kv_row_bytes();
    const std::byte* keys =
        keys_of_page(op_, page) + head_offset_ + static_cast<size_t>(skipped) * row_bytes;
    attend_page_(q_, keys, keys + op_.constants->kv_page_bytes(), n, group_, width_, scale_,
                 scores_, into.maximum, into.sum, into.acc);
  }
  void merge(const Partial& into, const Partial& from) const {
    kernels_.merge_partials(into.maximum, into.sum, into.acc, from.maximum, from.sum, from.acc,
                            group_, width_);
  }
  // Pages in order, beginning with the first.
  void fold(int64_t page, const Partial& into) const {
    if (page == first_page()) return attend(page, into);
    attend(page, page_);
    merge(into, page_);
  }
  void copy(const Partial& to, const Partial& from) const {
    std::copy_n(from.maximum, group_ * (2 + width_), to.maximum);
  }
  void finish(const Partial& total, float* out) const {
    for (int64_t r = 0; r < group_; ++r) {
      const float inverse = 1.0f / total.sum[r];
      for (int64_t i = 0; i < width_; ++i)
        out[r * width_ + i] = total.acc[r * width_ + i] * inverse;
    }
  }
  // A second place in the scratch.
  Partial total() const { return partial_over(page_.acc + group_ * width_, group_); }
  int64_t group() const { return group_; }

 private:
  const Operation& op_;
  const cpu::KernelTable& kernels_;
  cpu::KernelTable::AttendPage* const attend_page_;
  const int64_t group_, width_;       // R, E
  const int64_t n_keys_, first_key_;  // positions that the token sees
  const float scale_;
  const float* const q_;
  const size_t head_offset_;
  float* const scores_;
  const Partial page_;
};

// The slots of one token and key-value head, taken in order.
class Slots {
 public:
  Slots(const OperationConstants& c, const Operand& partials, int64_t token, int64_t kv_head)
      : group_(c.n_heads / c.n_kv_heads),
        slot_floats_(Partials::slot_floats(c.n_heads, c.head_width)),
        n_(static_cast<int64_t>(partials.row_bytes / sizeof(float)) / slot_floats_),
        next_(row_of<float>(partials, token) + kv_head * group_ * (2 + c.head_width)) {}

  bool left() const { return n_ > 0; }
  Partial take() {
    TANDEM_ASSERT(n_ > 0);
    const Partial slot = partial_over(next_, group_);
    next_ += slot_floats_;
    --n_;
    return slot;
  }

 private:
  const int64_t group_, slot_floats_;
  int64_t n_;
  float* next_;
};

void attend_whole(const Operation& op, const cpu::KernelTable& kernels, int64_t token,
                  int64_t kv_head, float* scratch, const CancelFlag& cancel) {
  const Attention attention(op, op.in[0], kernels, token, kv_head, scratch);
  const Partial total = attention.total();
  for (int64_t page = attention.first_page(); attention.sees(page); ++page) {
    if (cancel.cancelled()) return;
    attention.fold(page, total);
  }
  const int64_t first = kv_head * attention.group() * op.constants->head_width;
  attention.finish(total, row_of<float>(op.out, token) + first);
}

void attend_pages(const Operation& op, const cpu::KernelTable& kernels, int64_t token,
                  int64_t kv_head, float* scratch, const CancelFlag& cancel) {
  const Attention attention(op, op.in[0], kernels, token, kv_head, scratch);
  Slots slots(*op.constants, op.out, token, kv_head);
  int64_t page = attention.first_page();
  if (has_page(op, page)) {
    const Partial first_run = slots.take();
    for (; attention.sees(page) && has_page(op, page); ++page) {
      if (cancel.cancelled()) return;
      attention.fold(page, first_run);
    }
  }
  for (; attention.sees(page) && slots.left(); ++page) {
    if (cancel.cancelled()) return;
    if (has_page(op, page)) attention.attend(page, slots.take());
  }
}

void merge_pages(const Operation& op, const cpu::KernelTable& kernels, int64_t token,
                 int64_t kv_head, float* scratch, const CancelFlag& cancel) {
  const Attention attention(op, op.in[2], kernels, token, kv_head, scratch);
  Slots own(*op.constants, op.in[0], token, kv_head);
  Slots other(*op.constants, op.in[1], token, kv_head);
  const Partial total = attention.total();
  int64_t page = attention.first_page();
  const bool own_first = has_page(op, page);
  attention.copy(total, own_first ? own.take() : other.take());
  while (attention.sees(page) && has_page(op, page) == own_first) ++page;
  for (; attention.sees(page); ++page) {
    if (cancel.cancelled()) return;
    if (!has_page(op, page)) {
      attention.merge(total, other.take());
    } else if (own.left()) {
      attention.merge(total, own.take());
    } else {
      attention.fold(page, total);
    }
  }
  const int64_t first = kv_head * attention.group() * op.constants->head_width;
  attention.finish(total, row_of<float>(op.out, token) + first);
}

}  // namespace

// Scores [R,64] and two partials of (maximum [R], sum [R], values [R,E]).
size_t attend_scratch_floats(const OperationConstants& c) {
  const size_t group = static_cast<size_t>(c.n_heads / c.n_kv_heads);
  const size_t width = static_cast<size_t>(c.head_width);
  return align_up(group * kPageTokens + 2 * group * (2 + width), 32);
}

void compute_attend(const Operation& op, const cpu::KernelTable& kernels, int64_t token,
                    int64_t kv_head, float* scratch, const CancelFlag& cancel) {
  switch (op.kind) {
    case OpKind::kAttendPages:
      return attend_pages(op, kernels, token, kv_head, scratch, cancel);
    case OpKind::kMergePages:
      return merge_pages(op, kernels, token, kv_head, scratch, cancel);
    default:
      return attend_whole(op, kernels, token, kv_head, scratch, cancel);
  }
}

}  // namespace tandem::host
