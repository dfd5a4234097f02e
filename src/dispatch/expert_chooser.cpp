#include "dispatch/expert_chooser.h"

#include <algorithm>

namespace tandem {

ExpertChooser::ExpertChooser(const Program& program, int64_t max_tokens, const Predictor* predictor)
    : program_(program), predictor_(predictor) {
  const auto n_experts = static_cast<size_t>(program.shape.n_experts);
  layers_.resize(static_cast<size_t>(program.shape.n_layers));
  for (const Op& op : program.ops) {
    if (op.kind != OpKind::kExpertMatmul) continue;
    Layer& layer = layers_[static_cast<size_t>(op.layer)];
    const Weight& weight = program.weights[op.weight];
    layer.products.push_back(&op);
    layer.expert_bytes +=
        static_cast<double>(weight.row_bytes()) * static_cast<double>(weight.rows);
  }
  n_tokens_.resize(n_experts);
  alone_.resize(static_cast<size_t>(max_tokens) + 1);
  experts_.reserve(n_experts);
  fetched_.reserve(n_experts);
  left_.reserve(n_experts);
}

void ExpertChooser::list_experts(std::span<const int32_t> ids, std::span<const int32_t> slots) {
  std::fill(n_tokens_.begin(), n_tokens_.end(), 0);
  for (const int32_t id : ids) ++n_tokens_[static_cast<size_t>(id)];
  experts_.clear();
  for (size_t e = 0; e < n_tokens_.size(); ++e) {
    if (n_tokens_[e] == 0) continue;
    experts_.push_back(
        {.expert = static_cast<int32_t>(e), .n_tokens = n_tokens_[e], .on_device = slots[e] >= 0});
  }
}

double ExpertChooser::seconds(const Layer& layer, Processor processor, int64_t n_pairs,
                              int64_t n_active) const {
  StepSize size;
  size.n_pairs = n_pairs;
  size.n_active_experts = n_active;
  double sum = 0;
  for (const Op* op : layer.products) {
    sum += predictor_->seconds(work_of(program_, *op, processor, size));
  }
  return sum;
}

// An operation computes all its experts, and what it costs to begin is paid once: the predicted time of all together is
// shared out by what each would take alone.
void ExpertChooser::predict(const Layer& layer, Processor processor,
                            double SplitExpert::*seconds_of) {
  std::fill(alone_.begin(), alone_.end(), -1.0);
  double sum = 0;
  int64_t n_pairs = 0;
  for (SplitExpert& expert : experts_) {
    double& alone = alone_[static_cast<size_t>(expert.n_tokens)];
    if (alone < 0) alone = seconds(layer, processor, expert.n_tokens, 1);
    expert.*seconds_of = alone;
    sum += alone;
    n_pairs += expert.n_tokens;
  }
  if (sum <= 0) return;
  const auto n_active = static_cast<int64_t>(experts_.size());
  const double scale = seconds(layer, processor, n_pairs, n_active) / sum;
  for (SplitExpert& expert : experts_) expert.*seconds_of *= scale;
}

bool ExpertChooser::pays_in_decode() const {
  if (predictor_ == nullptr) return true;
  const auto first = std::find_if(layers_.begin(), layers_.end(),
                                  [](const Layer& layer) { return !layer.products.empty(); });
  if (first == layers_.end()) return false;
  return predictor_->transfer_seconds(LinkDirection::kUp, first->expert_bytes) +
             seconds(*first, Processor::kDevice, 1, 1) <
         seconds(*first, Processor::kCpu, 1, 1);
}

ExpertChooser::Choice ExpertChooser::choose(int64_t layer, std::span<const int32_t> ids,
                                            std::span<const int32_t> slots) {
  const Layer& here = layers_[static_cast<size_t>(layer)];
  list_experts(ids, slots);
  SplitCosts costs;
  if (predictor_ != nullptr) {
    predict(here, Processor::kCpu, &SplitExpert::cpu_seconds);
    predict(here, Processor::kDevice, &SplitExpert::device_seconds);
    costs.transfer_seconds = predictor_->transfer_seconds(LinkDirection::kUp, here.expert_bytes);
  }
  size_t n_device = split_experts(experts_, costs).n_device;
  if (predictor_ == nullptr) n_device = experts_.size();
  fetched_.clear();
  left_.clear();
  for (size_t i = 0; i < experts_.size(); ++i) {
    const bool device = i < n_device;
    if (device && !experts_[i].on_device) fetched_.push_back(experts_[i].expert);
    if (!device && experts_[i].on_device) left_.push_back(experts_[i].expert);
  }
  return {fetched_, left_};
}

}  // namespace tandem
