// Two lookup tables that are filled once and then only read: text -> token, pair of numbers -> value.
// Open addressing with linear probing, at most half full.  std::unordered_map costs three times the
// memory and a pointer chase per probe, and merging words is little else than probing.
//
// Threading: const methods may be called from any thread at once.
// Ownership: TextIndex keeps views; their bytes outlive it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

namespace tandem {

inline uint64_t mix_bits(uint64_t x) {
  x ^= x >> 32;
  x *= 0x9E3779B97F4A7C15ull;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9ull;
  return x ^ (x >> 32);
}

// Another number for every table: which keys collide cannot be known to whoever wrote the file.  What a table answers
// does not depend on it.
inline uint64_t random_seed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

// Two secret words: the seed alone would be cancelled by the mixing, which can be run backwards.
struct HashSecret {
  uint64_t add = random_seed();
  uint64_t multiply = random_seed() | 1;

  uint64_t mix(uint64_t x) const {
    const auto product = static_cast<unsigned __int128>(x ^ add) * multiply;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
};

inline uint64_t hash_text(std::string_view text, const HashSecret& secret) {
  uint64_t hash = text.size() * 0x9E3779B97F4A7C15ull;
  size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + at, 8);
    hash = secret.mix(hash ^ word);
  }
  if (at == text.size()) return hash;
  uint64_t rest = 0;
  std::memcpy(&rest, text.data() + at, text.size() - at);
  return secret.mix(hash ^ rest);
}

class TextIndex {
 public:
  explicit TextIndex(size_t max_entries = 0) : slots_(std::bit_ceil(2 * max_entries + 2)) {}

  // An entry with the same text is replaced.  Requires: no more entries than announced.
  void insert(std::string_view text, int32_t value) { slots_[slot_of(text)] = {text, value}; }

  int32_t find(std::string_view text, int32_t otherwise = -1) const {
    const Slot& slot = slots_[slot_of(text)];
    return slot.value == kEmpty ? otherwise : slot.value;
  }

 private:
  static constexpr int32_t kEmpty = INT32_MIN;
  struct Slot {
    std::string_view text;
    int32_t value = kEmpty;
  };

  size_t slot_of(std::string_view text) const {
    const size_t mask = slots_.size() - 1;
    size_t at = mix_bits(hash_text(text, secret_)) & mask;
    while (slots_[at].value != kEmpty && slots_[at].text != text) at = (at + 1) & mask;
    return at;
  }

  HashSecret secret_;
  std::vector<Slot> slots_;
};

class PairTable {
 public:
  struct Value {
    uint32_t first = 0;
    int32_t second = 0;
  };

  explicit PairTable(size_t max_entries = 0) : slots_(std::bit_ceil(2 * max_entries + 2)) {}

  // False, and nothing changed, when the pair is there already.  Requires: as TextIndex::insert, and
  // a and b are not both UINT32_MAX.
  bool insert(uint32_t a, uint32_t b, Value value) {
    Slot& slot = slots_[slot_of(key_of(a, b))];
    if (slot.key != kEmpty) return false;
    slot = {key_of(a, b), value};
    return true;
  }

  const Value* find(uint32_t a, uint32_t b) const {
    const Slot& slot = slots_[slot_of(key_of(a, b))];
    return slot.key == kEmpty ? nullptr : &slot.value;
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    Value value;
  };

  static uint64_t key_of(uint32_t a, uint32_t b) { return uint64_t{a} << 32 | b; }

  size_t slot_of(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t at = mix_bits(secret_.mix(key)) & mask;
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask;
    return at;
  }

  HashSecret secret_;
  std::vector<Slot> slots_;
};

}  // namespace tandem
