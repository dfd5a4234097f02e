// Tokens to a tree.  The grammar is Jinja's, less inheritance, includes and recursive loops.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/template/ast.h"

namespace tandem::jinja {

inline constexpr uint32_t kMaxSyntaxDepth = 200;

// Errors: kCorrupt for what is not Jinja, kUnsupported for what is but is not done here or nests
// deeper than kMaxSyntaxDepth; both name the line.
Result<Syntax> parse_syntax(std::string_view source);

}  // namespace tandem::jinja
