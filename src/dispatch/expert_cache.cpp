#include "dispatch/expert_cache.h"

#include <algorithm>
#include <numeric>

namespace tandem {

Result<ExpertCache> ExpertCache::create(const ExpertCacheOptions& options) {
  const auto refuse = [](const std::string& what) {
    return invalid_argument("expert cache: " + what);
  };
  if (options.n_layers < 1 || options.n_experts < 1) return refuse("no layers or no experts");
  if (options.n_experts_used < 1 || options.n_experts_used > options.n_experts) {
    return refuse(std::to_string(options.n_experts_used) + " of " +
                  std::to_string(options.n_experts) + " experts used");
  }
  if (!(options.alpha > 0 && options.alpha <= 1)) return refuse("alpha must be above 0, at most 1");
  return ExpertCache(options);
}

ExpertCache::ExpertCache(const ExpertCacheOptions& options)
    : options_(options), n_slots_(options.n_slots), slots_(options.n_slots) {
  const size_t n = static_cast<size_t>(options.n_layers * options.n_experts);
  table_.assign(n, -1);
  coming_.assign(n, -1);
  score_.assign(n, 0);
  last_use_.assign(n, 0);
  use_before_.assign(n, 0);
  layer_score_.assign(static_cast<size_t>(options.n_layers), 0);
  order_.assign(static_cast<size_t>(options.n_experts), 0);
  misses_.reserve(n);
}

void ExpertCache::begin_step() {
  ++step_;
  for (uint32_t s = 0; s < slots_.size(); ++s) {
    Slot& slot = slots_[s];
    if (!slot.arrived) continue;
    slot.arrived = false;
    slot.state = State::kResident;
    coming_[at(slot.layer, slot.expert)] = -1;
    table_[at(slot.layer, slot.expert)] = static_cast<int32_t>(s);
    ++version_;
  }
}

void ExpertCache::use(int64_t layer, std::span<const int32_t> ids, std::span<const float> weights,
                      int64_t n_tokens, std::span<const float> probabilities) {
  for (int32_t id : ids) count(layer, id);
  if (ids.empty() || options_.policy != EvictionPolicy::kMinusRecentScore) return;
  decay(layer);
  if (probabilities.empty()) {
    average_chosen(layer, ids, weights, n_tokens);
  } else {
    average_best(layer, probabilities);
  }
}

// Of an expert that several tokens of the step chose, only the first counts.
void ExpertCache::count(int64_t layer, int64_t expert) {
  const size_t i = at(layer, expert);
  if (last_use_[i] == step_) return;
  use_before_[i] = last_use_[i];
  last_use_[i] = step_;
  if (table_[i] >= 0) {
    ++counters_.hits;
    ++slots_[static_cast<size_t>(table_[i])].uses;
    return;
  }
  ++counters_.misses;
  if (coming_[i] < 0) {
    misses_.push_back({static_cast<int32_t>(layer), static_cast<int32_t>(expert), 0});
  }
}

void ExpertCache::decay(int64_t layer) {
  const float keep = 1 - options_.alpha;
  for (int64_t e = 0; e < options_.n_experts; ++e) score_[at(layer, e)] *= keep;
  layer_score_[static_cast<size_t>(layer)] *= keep;
}

void ExpertCache::average_chosen(int64_t layer, std::span<const int32_t> ids,
                                 std::span<const float> weights, int64_t n_tokens) {
  const float scale = options_.alpha / static_cast<float>(std::max<int64_t>(n_tokens, 1));
  const float equal = 1 / static_cast<float>(options_.n_experts_used);
  for (size_t i = 0; i < ids.size(); ++i) {
    const float added = scale * (weights.empty() ? equal : weights[i]);
    score_[at(layer, ids[i])] += added;
    layer_score_[static_cast<size_t>(layer)] += added;
  }
}

void ExpertCache::average_best(int64_t layer, std::span<const float> probabilities) {
  const int64_t n_best = std::min(2 * options_.n_experts_used, options_.n_experts);
  std::iota(order_.begin(), order_.end(), 0);
  std::partial_sort(order_.begin(), order_.begin() + n_best, order_.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = probabilities[static_cast<size_t>(a)];
                      const float y = probabilities[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  for (int64_t i = 0; i < n_best; ++i) {
    const int32_t expert = order_[static_cast<size_t>(i)];
    const float added = options_.alpha * probabilities[static_cast<size_t>(expert)];
    score_[at(layer, expert)] += added;
    layer_score_[static_cast<size_t>(layer)] += added;
  }
}

// Larger is better to have.  Comparable between layers where slots are.
double ExpertCache::value(int64_t layer, int64_t expert) const {
  const size_t i = at(layer, expert);
  if (options_.policy == EvictionPolicy::kLeastRecentlyUsed) {
    return static_cast<double>(last_use_[i]);
  }
  const double sum = layer_score_[static_cast<size_t>(layer)];
  return sum > 0 ? score_[i] / sum : 0;
}

// All misses of a step were used last in it: of those, the ones that were used shortly before.
double ExpertCache::value_of_miss(int64_t layer, int64_t expert) const {
  return options_.policy == EvictionPolicy::kLeastRecentlyUsed
             ? static_cast<double>(use_before_[at(layer, expert)])
             : value(layer, expert);
}

// A free slot, or the one whose expert is worth least of those that this layer does not need in this step; -1: none.
int64_t ExpertCache::find_slot_now(int64_t layer) const {
  const size_t first = options_.shared_by_layers ? 0 : static_cast<size_t>(layer);
  const size_t stride = options_.shared_by_layers ? 1 : static_cast<size_t>(options_.n_layers);
  int64_t victim = -1;
  double least = 0;
  for (size_t s = first; s < n_slots_; s += stride) {
    const Slot& slot = slots_[s];
    if (slot.state == State::kFree) return static_cast<int64_t>(s);
    if (slot.state != State::kResident) continue;
    if (slot.layer == layer && last_use_[at(slot.layer, slot.expert)] == step_) continue;
    const double worth = value(slot.layer, slot.expert);
    if (victim >= 0 && worth >= least) continue;
    least = worth;
    victim = static_cast<int64_t>(s);
  }
  return victim;
}

ExpertCache::Placed ExpertCache::place(int64_t layer, int64_t expert) {
  const size_t i = at(layer, expert);
  if (table_[i] >= 0) return {table_[i], false};
  if (coming_[i] >= 0) return {};
  const int64_t found = find_slot_now(layer);
  if (found < 0) return {};
  Slot& slot = slots_[static_cast<size_t>(found)];
  if (slot.state == State::kResident) evict(slot);
  slot.state = State::kResident;
  slot.layer = static_cast<int32_t>(layer);
  slot.expert = static_cast<int32_t>(expert);
  slot.uses = 1;
  table_[i] = static_cast<int32_t>(found);
  ++counters_.loads;
  ++version_;
  return {found, true};
}

void ExpertCache::drop(uint32_t slot) {
  TANDEM_ASSERT(slots_[slot].state == State::kResident);
  table_[at(slots_[slot].layer, slots_[slot].expert)] = -1;
  slots_[slot] = {};
  ++version_;
}

size_t ExpertCache::end_step(std::span<Load> loads) {
  for (Slot& slot : slots_) slot.uses = 0;
  std::erase_if(misses_, [this](const Miss& miss) {  // what place() has brought
    return table_[at(miss.layer, miss.expert)] >= 0;
  });
  for (Miss& miss : misses_) miss.value = value_of_miss(miss.layer, miss.expert);
  std::sort(misses_.begin(), misses_.end(), [](const Miss& a, const Miss& b) {
    if (a.value != b.value) return a.value > b.value;
    return a.layer != b.layer ? a.layer < b.layer : a.expert < b.expert;
  });
  size_t n = 0;
  for (const Miss& miss : misses_) {
    if (n == loads.size()) break;
    const int64_t slot = find_slot(miss);
    if (slot < 0) {
      if (options_.shared_by_layers) break;  // none of the rest scores more
      continue;
    }
    const uint32_t s = static_cast<uint32_t>(slot);
    if (slots_[s].state == State::kResident) evict(slots_[s]);
    start_loading(s, miss.layer, miss.expert);
    loads[n++] = {miss.layer, miss.expert, s};
  }
  misses_.clear();
  return n;
}

// A free slot, or the one whose expert is worth least and less than the miss; -1: none.
int64_t ExpertCache::find_slot(const Miss& miss) const {
  const size_t first = options_.shared_by_layers ? 0 : static_cast<size_t>(miss.layer);
  const size_t stride = options_.shared_by_layers ? 1 : static_cast<size_t>(options_.n_layers);
  const double limit = value(miss.layer, miss.expert);
  int64_t victim = -1;
  double least = limit;
  for (size_t s = first; s < n_slots_; s += stride) {
    const Slot& slot = slots_[s];
    if (slot.state == State::kFree) return static_cast<int64_t>(s);
    if (slot.state != State::kResident || slot.uses > 0) continue;
    const double worth = value(slot.layer, slot.expert);
    if (worth >= least) continue;
    least = worth;
    victim = static_cast<int64_t>(s);
  }
  return victim;
}

void ExpertCache::evict(Slot& slot) {
  table_[at(slot.layer, slot.expert)] = -1;
  slot = {};
  ++counters_.evictions;
  ++version_;
}

void ExpertCache::start_loading(uint32_t slot, int32_t layer, int32_t expert) {
  slots_[slot].state = State::kLoading;
  slots_[slot].layer = layer;
  slots_[slot].expert = expert;
  coming_[at(layer, expert)] = static_cast<int32_t>(slot);
  ++counters_.loads;
}

void ExpertCache::loaded(uint32_t slot) {
  TANDEM_ASSERT(slots_[slot].state == State::kLoading);
  if (slot >= n_slots_) return failed(slot);
  slots_[slot].arrived = true;
}

void ExpertCache::failed(uint32_t slot) {
  TANDEM_ASSERT(slots_[slot].state == State::kLoading);
  coming_[at(slots_[slot].layer, slots_[slot].expert)] = -1;
  slots_[slot] = {};
}

bool ExpertCache::reserve(int64_t layer, int64_t expert, Load* load) {
  const size_t i = at(layer, expert);
  if (table_[i] >= 0 || coming_[i] >= 0) return false;
  const size_t first = options_.shared_by_layers ? 0 : static_cast<size_t>(layer);
  const size_t stride = options_.shared_by_layers ? 1 : static_cast<size_t>(options_.n_layers);
  for (size_t s = first; s < n_slots_; s += stride) {
    if (slots_[s].state != State::kFree) continue;
    *load = {static_cast<int32_t>(layer), static_cast<int32_t>(expert), static_cast<uint32_t>(s)};
    start_loading(load->slot, load->layer, load->expert);
    return true;
  }
  return false;
}

void ExpertCache::resize(uint32_t n_slots) {
  n_slots_ = std::min(n_slots, static_cast<uint32_t>(slots_.size()));
  for (uint32_t s = n_slots_; s < slots_.size(); ++s) {
    Slot& slot = slots_[s];
    TANDEM_ASSERT(slot.uses == 0);
    if (slot.state == State::kResident) evict(slot);
    if (slot.arrived) failed(s);
  }
}

uint32_t ExpertCache::n_resident() const {
  return static_cast<uint32_t>(std::count_if(slots_.begin(), slots_.end(), [](const Slot& slot) {
    return slot.state == State::kResident;
  }));
}

}  // namespace tandem
