// A Program whose attention reads keys and values that lie on both sides, page by page.
//
// Where a layer's attention was the device's, both store new keys and values, each into its own pages, and attend to their
// own pages; the CPU merges.  What crosses the link for it, per token and layer: queries and new keys and values down
// (4 bytes * (H*E + 2*G*E)), the device's partial down (4 bytes * H*(2+E) for its run of pages, whatever its length), the
// result up (4 bytes * H*E).
//
// Threading and ownership: a pure function; the result refers to nothing.
#pragma once

#include <vector>

#include "model/program.h"

namespace tandem {

struct SplitAttention {
  // Values and weights are those of the original, with further values behind.
  Program program;
  std::vector<Processor> processors;  // [ops]
  std::vector<bool> split;            // [ops] keys, values and attention of a layer that is split
};

// `processors`: [ops of the Program].
SplitAttention split_attention(const Program& program, const std::vector<Processor>& processors);

}  // namespace tandem
