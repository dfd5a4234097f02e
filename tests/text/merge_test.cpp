#include "text/merge.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace tandem {
namespace {

// A random table of pairs of ids; everything that is joined gets an id of its own.
struct Table {
  std::map<std::pair<int32_t, int32_t>, Joined> pairs;
  Joined operator()(const Symbol& left, const Symbol& right) const {
    const auto found = pairs.find({left.id, right.id});
    return found == pairs.end() ? Joined{} : found->second;
  }
};

Table random_table(std::mt19937& random, int32_t n_letters, int n_pairs) {
  Table table;
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < n_letters; ++id) ids.push_back(id);
  for (int i = 0; i < n_pairs; ++i) {
    const std::pair pair = {ids[random() % ids.size()], ids[random() % ids.size()]};
    const auto joined = static_cast<int32_t>(ids.size());
    // Few different orders, so that equally good pairs are frequent.
    if (table.pairs.emplace(pair, Joined{static_cast<uint32_t>(random() % 4), joined}).second) {
      ids.push_back(joined);
    }
  }
  return table;
}

std::vector<Symbol> random_symbols(std::mt19937& random, int32_t n_letters, size_t n) {
  std::vector<Symbol> symbols;
  for (size_t i = 0; i < n; ++i) {
    const auto id = static_cast<int32_t>(random() % static_cast<uint32_t>(n_letters));
    symbols.push_back({static_cast<uint32_t>(i), 1, id});
  }
  return symbols;
}

std::vector<std::pair<uint32_t, int32_t>> result(const std::vector<Symbol>& symbols) {
  std::vector<std::pair<uint32_t, int32_t>> live;
  for (const Symbol& symbol : symbols) {
    if (symbol.length > 0) live.emplace_back(symbol.begin, symbol.id);
  }
  return live;
}

TEST(Merger, BothMethodsGiveTheSame) {
  std::mt19937 random(3);
  const CancelFlag never;
  Merger merger(never);
  for (int round = 0; round < 20000; ++round) {
    const Table table = random_table(random, 3, 12);
    auto few = random_symbols(random, 3, random() % (Merger::kFewSymbols + 1));
    auto many = few;
    merger.merge_few(few, table);
    merger.merge_many(many, table);
    ASSERT_EQ(result(few), result(many)) << "round " << round;
  }
}

TEST(Merger, KeepsEveryByteOnce) {
  std::mt19937 random(4);
  const CancelFlag never;
  Merger merger(never);
  for (int round = 0; round < 200; ++round) {
    const Table table = random_table(random, 2, 20);
    auto symbols = random_symbols(random, 2, 1000);
    merger.merge(symbols, table);
    uint32_t next = 0;
    for (const Symbol& symbol : symbols) {
      if (symbol.length == 0) continue;
      ASSERT_EQ(symbol.begin, next);
      next += symbol.length;
    }
    ASSERT_EQ(next, 1000u);
  }
}

}  // namespace
}  // namespace tandem
