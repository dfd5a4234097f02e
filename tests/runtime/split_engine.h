// An engine whose device has room for the first pages of a long context alone, so that attention is split over both sides.
#pragma once

#include <optional>
#include <string>

#include "runtime/api.h"
#include "status_matchers.h"

namespace tandem::testing {

inline tandem_tier_report tier(const tandem_engine* engine, size_t index) {
  tandem_tier_report tiers[2] = {TANDEM_INIT(tandem_tier_report), TANDEM_INIT(tandem_tier_report)};
  size_t n = 0;
  EXPECT_EQ(TANDEM_OK, tandem_engine_get_memory(engine, tiers, 2, &n, nullptr));
  EXPECT_LT(index, n);
  return tiers[index];
}

// A model's engine on a mirror with all weights, and with the keys and values of a part of the context.
class SplitEngine {
 public:
  static constexpr uint32_t kContext = 1280;

  explicit SplitEngine(const std::string& model, const std::string& more_options = "")
      : model_path_(model), device_(smallest_device() + more_options) {
    tandem_engine_options options = engine_options(2, kContext);
    options.device = device_.c_str();
    const std::string place_file = (folder_ / "place.json").string();
    options.place_file = place_file.c_str();
    loaded_.emplace(model, options);
  }

  const Loaded& loaded() const { return *loaded_; }
  const tandem_engine* engine() const { return loaded_->engine.get(); }
  // That sessions have on the device now; less than a page of it may be what allocations are rounded up by.
  uint64_t device_pages() const { return tier(engine(), 1).kv_bytes / page_bytes_; }
  // That fit there.
  uint64_t most_pages() const {
    const tandem_tier_report there = tier(engine(), 1);
    return (there.kv_bytes + there.free_bytes) / page_bytes_;
  }
  // More than fit there by a page and a half.
  size_t many_tokens() const { return 64 * most_pages() + 96; }

 private:
  // Weights, work and five pages, as an engine with more than enough plans them: of the work less may be needed.  Writes its
  // placement down.
  std::string smallest_device() {
    tandem_engine_options options = engine_options(2, kContext);
    options.device = "mirror:vram=256MiB";
    options.gpu_layers = "all";
    const Loaded plenty(model_path_, options);
    char* json = nullptr;
    EXPECT_EQ(TANDEM_OK, tandem_engine_placement(plenty.engine.get(), &json, nullptr));
    std::ofstream(folder_ / "place.json") << json;
    tandem_string_free(json);
    const SessionPtr session = plenty.session();
    page_bytes_ = tier(plenty.engine.get(), 0).kv_reserved_bytes / (kContext / 64);
    const tandem_tier_report there = tier(plenty.engine.get(), 1);
    const uint64_t bytes =
        there.weight_bytes + there.work_bytes + 5 * page_bytes_ + page_bytes_ / 2;
    return "mirror:vram=" + std::to_string(bytes);
  }

  const TemporaryFolder folder_;
  const std::string model_path_;
  uint64_t page_bytes_ = 0;
  const std::string device_;
  std::optional<Loaded> loaded_;
};

}  // namespace tandem::testing
