// Finds control and user-defined tokens in text: from the left, the longest at each place, in time
// linear in the text whatever the tokens are.
//
// Threading: immutable; const methods may be called from any thread at once.
// Ownership: owns its automaton.
// Errors: create() gives kUnsupported for more special tokens than any model has.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "text/hash_tables.h"
#include "text/token_table.h"

namespace tandem {

class SpecialMatcher {
 public:
  struct Range {
    size_t begin = 0;
    size_t end = 0;
  };
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    TokenId id = -1;
  };

  // Bounds of what is searched for; the automaton takes about a hundred bytes for each of theirs.
  static constexpr size_t kMaxBytes = size_t{1} << 20;  // of all special tokens together

  static Result<SpecialMatcher> create(const TokenTable& tokens);

  // Matches in order, none overlapping.  Control tokens are found only whole inside one of
  // `trusted` (ascending, apart from one another); user-defined ones anywhere.  Incomplete when
  // `cancel` is set.
  std::vector<Match> find(std::string_view text, std::span<const Range> trusted,
                          const CancelFlag& cancel) const;

 private:
  // An Aho-Corasick automaton over the tokens written backwards, read from the end of the text: at
  // each place it then knows every token that starts there, the longest first, without look-ahead.
  struct Node {
    uint32_t fallback = 0;  // the longest proper suffix of this node's path that is a node
    // The next nodes along the fallbacks where a token ends, and where a user-defined one does; 0: none.
    uint32_t shorter = 0, shorter_user_defined = 0;
    uint32_t length = 0;  // of the path
    TokenId id = -1;      // the token whose whole text is the path
    bool control = false;
  };

  SpecialMatcher() = default;
  uint32_t longest_within(uint32_t node, size_t n_trusted) const;
  void add(std::string_view text, TokenId id, bool control);
  void link();
  uint32_t child(uint32_t node, uint8_t byte) const;
  uint32_t step(uint32_t node, uint8_t byte) const;

  std::vector<Node> nodes_ = {Node{}};
  std::array<uint32_t, 256> root_children_{};
  PairTable children_;                               // (node, byte) -> node, but for the root's
  std::vector<std::pair<uint32_t, uint8_t>> edges_;  // of node i + 1: parent and byte
  bool has_user_defined_ = false;
};

}  // namespace tandem
