// Text from models and files, made harmless for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace tandem::cli {

// Without control characters but newline and tab: an escape sequence in an answer or in a file's metadata could retitle
// the window, move the cursor over what stands there, or type for the user. Requires: text ends with a whole character.
std::string without_controls(std::string_view text);

}  // namespace tandem::cli
