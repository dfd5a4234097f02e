#include "text/special_matcher.h"

#include <algorithm>
#include <string>

namespace tandem {
namespace {

constexpr size_t kBytesBetweenLooks = size_t{1} << 18;  // at the cancel flag

bool is_special(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUserDefined;
}

}  // namespace

Result<SpecialMatcher> SpecialMatcher::create(const TokenTable& tokens) {
  size_t n_bytes = 0;
  const auto n = static_cast<TokenId>(tokens.size());
  for (TokenId id = 0; id < n; ++id) {
    if (is_special(tokens.kind(id))) n_bytes += tokens.written(id).size();
  }
  if (n_bytes > kMaxBytes) {
    return unsupported("tokenizer.ggml.tokens: control and user-defined tokens of " +
                       std::to_string(n_bytes) + " bytes together, at most " +
                       std::to_string(kMaxBytes) + " are searched for");
  }
  SpecialMatcher made;
  made.children_ = PairTable(n_bytes);
  for (TokenId id = 0; id < n; ++id) {
    const std::string_view text = tokens.written(id);
    if (is_special(tokens.kind(id)) && !text.empty()) {
      made.add(text, id, tokens.kind(id) == TokenKind::kControl);
    }
  }
  made.link();
  return made;
}

void SpecialMatcher::add(std::string_view text, TokenId id, bool control) {
  uint32_t node = 0;
  for (auto byte = text.rbegin(); byte != text.rend(); ++byte) {
    const auto value = static_cast<uint8_t>(*byte);
    uint32_t next = child(node, value);
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({.length = nodes_[node].length + 1});
      edges_.emplace_back(node, value);
      if (node == 0) {
        root_children_[value] = next;
      } else {
        children_.insert(node, value, {next, 0});
      }
    }
    node = next;
  }
  nodes_[node].id = id;
  nodes_[node].control = control;
  has_user_defined_ |= !control;
}

// Fallbacks point to shorter paths, so the nodes are visited by length.
void SpecialMatcher::link() {
  std::vector<uint32_t> by_length(nodes_.size());
  for (uint32_t i = 0; i < by_length.size(); ++i) by_length[i] = i;
  std::stable_sort(by_length.begin(), by_length.end(),
                   [&](uint32_t a, uint32_t b) { return nodes_[a].length < nodes_[b].length; });
  for (const uint32_t i : by_length) {
    if (i == 0) continue;
    const auto [parent, byte] = edges_[i - 1];
    Node& node = nodes_[i];
    node.fallback = parent == 0 ? 0 : step(nodes_[parent].fallback, byte);
    const Node& fallback = nodes_[node.fallback];
    node.shorter = fallback.id >= 0 ? node.fallback : fallback.shorter;
    node.shorter_user_defined =
        fallback.id >= 0 && !fallback.control ? node.fallback : fallback.shorter_user_defined;
  }
  edges_.clear();
  edges_.shrink_to_fit();
}

uint32_t SpecialMatcher::child(uint32_t node, uint8_t byte) const {
  if (node == 0) return root_children_[byte];
  const PairTable::Value* found = children_.find(node, byte);
  return found ? found->first : 0;
}

uint32_t SpecialMatcher::step(uint32_t node, uint8_t byte) const {
  while (true) {
    const uint32_t next = child(node, byte);
    if (next != 0 || node == 0) return next;
    node = nodes_[node].fallback;
  }
}

// The node of the longest token that starts where `node` was reached: a user-defined one of any length, or a control one
// of at most n_trusted bytes.  Where nothing is trusted, one step; where something is, the template's own text is walked,
// or the end of it: only that can be reached more than once, and it is no longer than the longest token.
uint32_t SpecialMatcher::longest_within(uint32_t node, size_t n_trusted) const {
  const auto ends_here = [&](const Node& n) {
    return n.id >= 0 && (!n.control || n.length <= n_trusted);
  };
  if (ends_here(nodes_[node])) return node;
  if (n_trusted == 0) return nodes_[node].shorter_user_defined;
  uint32_t found = nodes_[node].shorter;
  while (found != 0 && !ends_here(nodes_[found])) found = nodes_[found].shorter;
  return found;
}

std::vector<SpecialMatcher::Match> SpecialMatcher::find(std::string_view text,
                                                        std::span<const Range> trusted,
                                                        const CancelFlag& cancel) const {
  std::vector<Match> matches;
  if (nodes_.size() == 1 || (trusted.empty() && !has_user_defined_)) return matches;
  uint32_t node = 0;
  size_t n_ranges = trusted.size();  // ranges that begin at or before `at`
  for (size_t at = text.size(); at-- > 0;) {
    if (at % kBytesBetweenLooks == 0 && cancel.cancelled()) break;
    node = step(node, static_cast<uint8_t>(text[at]));
    while (n_ranges > 0 && trusted[n_ranges - 1].begin > at) --n_ranges;
    const size_t trusted_end = n_ranges > 0 ? trusted[n_ranges - 1].end : 0;
    const uint32_t found = longest_within(node, trusted_end > at ? trusted_end - at : 0);
    if (found != 0) matches.push_back({at, at + nodes_[found].length, nodes_[found].id});
  }
  // Found from the right, the longest at every place; kept from the left where they do not overlap.
  std::reverse(matches.begin(), matches.end());
  size_t end = 0;
  const auto overlaps = [&](const Match& match) {
    if (match.begin < end) return true;
    end = match.end;
    return false;
  };
  matches.erase(std::remove_if(matches.begin(), matches.end(), overlaps), matches.end());
  return matches;
}

}  // namespace tandem
