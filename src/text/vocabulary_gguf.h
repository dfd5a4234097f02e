// The vocabulary in a GGUF header (keys tokenizer.ggml.*).
//
// Threading and ownership: a pure function; the result holds copies.
// Errors: kNotFound and kCorrupt naming key and byte offset; kUnsupported naming an unknown kind of
// tokenizer and listing the known ones.  Whether the parts fit together is for Tokenizer::create().
#pragma once

#include "base/result.h"
#include "formats/gguf/gguf.h"
#include "text/vocabulary.h"

namespace tandem {

Result<VocabularyData> vocabulary_from_gguf(const GgufFile& file);

}  // namespace tandem
