// "Did you mean ...?"
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tandem::cli {

// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `word`, or "" when none is near enough to be meant: at most a third of
// its letters differ, or it begins with what was typed (three letters or more).
std::string nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace tandem::cli
