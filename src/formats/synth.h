// Model files with random weights in the shape of public models: for benchmarks and tests without
// a download.  They answer nonsense, at the speed of the real model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/dtype.h"
#include "base/progress.h"
#include "base/result.h"
#include "formats/public_shapes.h"

namespace tandem {

struct SynthOptions {
  std::filesystem::path output;
  std::string like;       // a name of public_shapes()
  uint32_t n_layers = 0;  // 0: as many as the model has
  DType type =
      DType::kQ4_K;  // of every matrix, embedding and output too; norms and routers are f32
  uint64_t seed = 0;
  unsigned n_threads = 0;  // that make weights; 0: one per processor
};

// Writes one GGUF file, whole or not at all.  The same options give the same bytes, on any number
// of threads.  Names and metadata are those of llama.cpp's converter; the vocabulary has the
// model's size and is byte-level BPE without merges: 256 bytes, <|bos|>, <|eos|>, and unused
// fillers. Weights are spread with deviation 1/sqrt(row length), norms are 1: activations stay
// finite, and experts are chosen about evenly. Threading: starts threads of its own and ends them;
// `progress` counts bytes and is called on this thread. Errors: kInvalidArgument (unknown name,
// with the known ones; rows that are no whole blocks), kIo (no room, with the numbers), kCancelled;
// nothing is left behind then.
Status synthesize(const SynthOptions& options, const ProgressCallback& progress,
                  const CancelFlag& cancel);
// The same for a shape of your own; options.like is not looked at.
Status synthesize(const PublicShape& shape, const SynthOptions& options,
                  const ProgressCallback& progress, const CancelFlag& cancel);

// The size of the file that synthesize would write.
Result<uint64_t> synthesized_bytes(const SynthOptions& options);

}  // namespace tandem
