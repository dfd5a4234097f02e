// A number by which a saved session knows the model it belongs to.
#pragma once

#include <cstdint>

#include "base/file.h"
#include "base/progress.h"
#include "base/result.h"
#include "formats/gguf/gguf.h"

namespace tandem {

// Of every name, type, shape, place and metadata value, and of 1 KiB of every tensor (of 4096 of them, where there are
// more).  Tells apart models that were trained, merged or quantised differently; not a file in which a few
// bytes were changed on purpose.  Reads at most 4 MiB.
// Errors: those of opening and reading the files; kCancelled.
Result<uint64_t> fingerprint_of(const GgufFile& file, const OpenReadFile& open_file,
                                const CancelFlag& cancel);

}  // namespace tandem
