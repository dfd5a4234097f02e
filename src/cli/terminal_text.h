// Text from models and files, made harmless for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace tandem::cli {

// Without control characters but newline and tab: an escape sequence in an answer or in a file's metadata could retitle
// the window, move the cursor over what stands there, or type for the user. Requires: text ends with a whole character.
std::string without_controls(std::string_view text);

// The same for one line that a file says about itself, such as a name: no newline or tab either (each becomes a space),
// nor the characters that turn the direction of writing, which could make one value look like another. (Answers keep
// them: Hebrew and Arabic are written with some.)
std::string without_steering(std::string_view text);

}  // namespace tandem::cli
