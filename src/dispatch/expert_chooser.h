// In the middle of a step: which of the experts that a layer's router chose the device computes, whether it has them or
// not.
//
// Either all of them (what it lacks is copied to it), or as predicted times say, by split_experts().
//
// Threading: one caller at a time.
// Ownership: allocates when made; program and predictor outlive it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dispatch/expert_split.h"
#include "dispatch/predictor.h"
#include "model/program.h"

namespace tandem {

class ExpertChooser {
 public:
  // Null: all go to the device.
  ExpertChooser(const Program& program, int64_t max_tokens, const Predictor* predictor);

  struct Choice {
    std::span<const int32_t>
        fetched;  // that the device lacks and is to compute; in the order of copying
    std::span<const int32_t> left;  // that the device has and leaves to the CPU
  };
  // `ids` [T,U] of the layer's router; `slots` [X]: not negative where the device has the expert.  The spans are good until
  // the next call.
  // Whether copying an expert that one token chose, and computing it there, is done sooner than the CPU: then choosing is
  // worth the wait for it in decode too.
  bool pays_in_decode() const;
  Choice choose(int64_t layer, std::span<const int32_t> ids, std::span<const int32_t> slots);

 private:
  struct Layer {
    std::vector<const Op*> products;
    double expert_bytes = 0;
  };
  void list_experts(std::span<const int32_t> ids, std::span<const int32_t> slots);
  void predict(const Layer& layer, Processor processor, double SplitExpert::*seconds);
  double seconds(const Layer& layer, Processor processor, int64_t n_pairs, int64_t n_active) const;

  const Program& program_;
  const Predictor* predictor_;
  std::vector<Layer> layers_;
  std::vector<int32_t> n_tokens_;     // [X] of the step that chose an expert
  std::vector<double> alone_;         // [T + 1] seconds of one expert; negative: not known yet
  std::vector<SplitExpert> experts_;  // that were chosen
  std::vector<int32_t> fetched_, left_;
};

}  // namespace tandem
