// Joins the parts of a model into one GgufFile.
#pragma once

#include <string>
#include <vector>

#include "formats/gguf/part.h"

namespace tandem {

struct GgufFile::Builder {
  // Requires: as many paths as parts, at least one, in order.  The first part's metadata are kept.
  // Errors: kCorrupt for a tensor that stands twice.
  static Result<GgufFile> join(std::vector<std::string> paths, std::vector<GgufPart> parts);
};

}  // namespace tandem
