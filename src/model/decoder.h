// Builds the Program of a decoder-only transformer from a model file's header.
#pragma once

#include "base/result.h"
#include "model/program.h"

namespace tandem {

class GgufFile;

// Errors: those of read_model_shape; kCorrupt naming a missing tensor or both shapes of a wrong one; kUnsupported
// naming a tensor whose type is known but not computed.
Result<Program> build_decoder(const GgufFile& file);

}  // namespace tandem
