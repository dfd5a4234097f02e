// Line editing and history with libedit.
#pragma once

#include <memory>

#include "line_reader.h"

namespace tandem::cli {

// Nothing when libedit cannot use this terminal.
std::unique_ptr<LineReader> make_edit_reader();

}  // namespace tandem::cli
