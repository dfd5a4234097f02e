// Reading whole inputs.
#pragma once

#include <optional>
#include <string>

namespace tandem::cli {

// A file, or standard input for "-". On failure nothing, and `error` says why.
std::optional<std::string> read_all(const std::string& path, std::string& error);
std::optional<std::string> read_standard_input(std::string& error);

}  // namespace tandem::cli
