// The state of a session's running request, and the session's file.  Private to the session's files.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "base/clock.h"
#include "runtime/answer_text.h"
#include "runtime/session.h"

namespace tandem {

struct Session::Run {
  Run(Request r, const Model& model)
      : request(std::move(r)),
        text(request.stop),
        sampler(request.sampling, static_cast<size_t>(model.program().shape.n_vocabulary)) {
    done.kind = EventKind::kDone;
    done.text.reserve(256);
  }

  enum class Phase { kPrompt, kGenerate, kLastToken };

  Request request;
  bool evaluate_only = false;
  Status status;  // of the preparation, then of an evaluation
  Event done;     // the last event; made first, so that ending needs no memory

  Phase phase = Phase::kPrompt;
  std::vector<TokenId> pending;  // the prompt still to be evaluated is pending[n_done..]
  size_t n_done = 0;
  size_t n_chunk = 0;  // tokens of it that are being evaluated
  TokenId last = -1;   // chosen, not evaluated yet
  AnswerText text;
  Sampler sampler;

  uint64_t n_prompt_tokens = 0, n_generated = 0;
  Clock::time_point started = Clock::now();
  double prompt_seconds = 0;
  double next_progress_seconds = 0.1;
  Executor::ShareCallback on_share;  // gives progress from inside a chunk
};

// Logits of an evaluation on their way from the worker to the caller that waits in evaluate().
struct Session::LogitsHandOver {
  explicit LogitsHandOver(int64_t n_vocabulary);

  const size_t width;       // floats of a row
  const size_t max_rows;    // of one chunk
  std::vector<float> rows;  // [max_rows,width]
  // The worker fills rows while `full` is not set, the caller reads them while it is.
  std::atomic<bool> full{false};
  size_t n_rows = 0;
  size_t first_index = 0;  // of the evaluation's tokens
};

struct SessionContents {
  uint64_t model_fingerprint;
  std::span<const TokenId> tokens;
  const SequenceState& state;
};

// Errors: those of write_file_atomically.
Status save_session_file(const std::filesystem::path& path, const SessionContents& contents);
// Changes nothing unless the whole file is good and has been read.  Errors: kInvalidArgument for another model's file or
// one that does not fit the context; kCorrupt for a damaged one; kIo; kOutOfMemory for a second copy of its bytes.
Status load_session_file(const std::filesystem::path& path, const Engine& engine,
                         std::vector<TokenId>& tokens, SequenceState& state);

}  // namespace tandem
