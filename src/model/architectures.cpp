#include "model/architectures.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <vector>

namespace tandem {
namespace {

constexpr std::array<Architecture, 4> kArchitectures = {{
    {.name = "llama", .rope = RopeStyle::kNormal},
    {.name = "qwen2", .rope = RopeStyle::kNeox, .qkv_bias = true},
    {.name = "qwen3", .rope = RopeStyle::kNeox, .head_norm = true},
    {.name = "qwen3moe", .rope = RopeStyle::kNeox, .head_norm = true, .experts_required = true},
}};

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

std::string_view nearest(std::string_view name) {
  return std::min_element(kArchitectures.begin(), kArchitectures.end(),
                          [name](const Architecture& a, const Architecture& b) {
                            return edit_distance(a.name, name) < edit_distance(b.name, name);
                          })
      ->name;
}

}  // namespace

Result<const Architecture*> find_architecture(std::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
  }
  const std::string shown(name.substr(0, 64));
  std::string supported;
  for (const Architecture& architecture : kArchitectures) {
    supported += (supported.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return unsupported("architecture '" + shown +
                     "' is not supported; its nearest supported relative is '" +
                     std::string(nearest(shown)) + "' (supported: " + supported + ")");
}

}  // namespace tandem
