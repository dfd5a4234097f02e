// Place files.  They come from strangers as well as from to_json(): size, depth, counts, names and values are checked.

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "base/shapes.h"
#include "dispatch/block_roles.h"
#include "dispatch/placement.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using ReadJson = nlohmann::json;

constexpr size_t kMaxTextBytes = 1 << 20;
constexpr int kMaxDepth = 4;
constexpr size_t kMaxRules = 65536;
// Those with * or ? are tried on every block.  to_json() writes at most two for a layer and two for all.
constexpr size_t kMaxPatterns = 2 * kMaxLayers + 2;
constexpr size_t kMaxMatchBytes = 128;
constexpr uint64_t kMaxSlots = 1 << 20;

// ---------------------------------------------------------------- reading

Status wrong(const std::string& field, const std::string& expected, const ReadJson& found) {
  return corrupt("place file: " + field + ": expected " + expected + ", found " +
                 found.dump(-1, ' ', true, ReadJson::error_handler_t::replace).substr(0, 40));
}

// Text to JSON; a key that is there twice would hide one of its values.
Result<ReadJson> parse(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return corrupt("place file: " + format_bytes(text.size()) + ", at most " +
                   format_bytes(kMaxTextBytes) + " are read");
  }
  // JSON's reader takes a zero byte for the end.
  if (const size_t zero = text.find('\0'); zero != text.npos) {
    return corrupt("place file: not JSON at byte " + std::to_string(zero)).at_offset(zero);
  }
  bool too_deep = false;
  std::string repeated;
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, ReadJson::parse_event_t event, ReadJson& value) {
    too_deep = too_deep || depth > kMaxDepth;
    if (event == ReadJson::parse_event_t::object_start) keys.emplace_back();
    if (event == ReadJson::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == ReadJson::parse_event_t::key && !keys.empty() && repeated.empty()) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) repeated = key.substr(0, 40);
    }
    return !too_deep;
  };
  const Status deep = corrupt("place file: nested deeper than " + std::to_string(kMaxDepth));
  try {
    ReadJson json = ReadJson::parse(text, check);
    if (too_deep) return deep;
    if (!repeated.empty()) return corrupt("place file: key \"" + repeated + "\" stands twice");
    return json;
  } catch (const ReadJson::parse_error& error) {
    if (too_deep) return deep;
    const uint64_t offset = error.byte == 0 ? 0 : error.byte - 1;
    return corrupt("place file: not JSON at byte " + std::to_string(offset)).at_offset(offset);
  } catch (const ReadJson::exception&) {
    return corrupt("place file: a number is out of range");
  }
}

Status check_keys(const ReadJson& object, const std::string& field,
                  std::initializer_list<std::string_view> known) {
  if (!object.is_object()) return wrong(field.empty() ? "the whole" : field, "an object", object);
  for (const auto& item : object.items()) {
    if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
    return corrupt("place file: " + field + (field.empty() ? "" : ": ") + "unknown key \"" +
                   item.key().substr(0, 40) + "\"");
  }
  return ok_status();
}

Result<bool> read_is_device(const ReadJson& rule, const std::string& field, const char* key,
                            const char* host_name) {
  const auto found = rule.find(key);
  const std::string expected = std::string("\"") + host_name + "\" or \"device\"";
  if (found == rule.end()) return wrong(field + "." + key, expected, nullptr);
  if (found->is_string() && *found == host_name) return false;
  if (found->is_string() && *found == "device") return true;
  return wrong(field + "." + key, expected, *found);
}

Result<PlaceRule> read_rule(const ReadJson& json, const std::string& field) {
  TANDEM_RETURN_IF_ERROR(check_keys(json, field, {"match", "tier", "processor"}));
  PlaceRule rule;
  const auto match = json.find("match");
  if (match == json.end() || !match->is_string() || match->get_ref<const std::string&>().empty() ||
      match->get_ref<const std::string&>().size() > kMaxMatchBytes) {
    return wrong(field + ".match", "a text of 1 to " + std::to_string(kMaxMatchBytes) + " bytes",
                 match == json.end() ? ReadJson() : *match);
  }
  rule.match = match->get<std::string>();
  TANDEM_ASSIGN_OR_RETURN(const bool tier, read_is_device(json, field, "tier", "dram"));
  TANDEM_ASSIGN_OR_RETURN(const bool processor, read_is_device(json, field, "processor", "cpu"));
  if (tier && !processor) {
    return invalid_argument("place file: " + field + ": \"" + rule.match +
                            "\": the CPU does not compute with weights in device memory");
  }
  rule.place = tier ? kOnDevice : processor ? kStreamed : kInDram;
  return rule;
}

Result<std::vector<PlaceRule>> read_rules(const ReadJson& list) {
  if (!list.is_array() || list.size() > kMaxRules) {
    return wrong("blocks", "a list of at most " + std::to_string(kMaxRules), list);
  }
  std::vector<PlaceRule> rules;
  size_t n_patterns = 0;
  for (const ReadJson& item : list) {
    const std::string field = "blocks[" + std::to_string(rules.size()) + "]";
    TANDEM_ASSIGN_OR_RETURN(PlaceRule rule, read_rule(item, field));
    n_patterns += is_pattern(rule.match) ? 1 : 0;
    if (n_patterns > kMaxPatterns) {
      return corrupt("place file: " + field + ": more than " + std::to_string(kMaxPatterns) +
                     " rules with * or ?");
    }
    rules.push_back(std::move(rule));
  }
  return rules;
}

Result<std::vector<int64_t>> read_layers(const ReadJson& list) {
  const std::string expected = "ascending layer numbers below " + std::to_string(kMaxLayers);
  if (!list.is_array() || list.size() > static_cast<size_t>(kMaxLayers)) {
    return wrong("kv_layers", expected, list);
  }
  std::vector<int64_t> layers;
  for (const ReadJson& item : list) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() >= static_cast<uint64_t>(kMaxLayers) ||
        (!layers.empty() && item.get<int64_t>() <= layers.back())) {
      return wrong("kv_layers[" + std::to_string(layers.size()) + "]", expected, item);
    }
    layers.push_back(item.get<int64_t>());
  }
  return layers;
}

// ---------------------------------------------------------------- writing

// Collects rules that change many blocks at once, then names what is still wrong one by one.
class RuleWriter {
 public:
  RuleWriter(const Program& program, const Placement& placement)
      : program_(program),
        wanted_(placement.blocks),
        roles_(block_roles(program)),
        written_(program.blocks.size()) {}

  Json write() {
    Group all;
    Group experts;
    std::map<int64_t, Group> layers, layer_experts;
    for (BlockId b = 0; b < wanted_.size(); ++b) {
      const BlockRole& role = roles_[b];
      if (role.kind == BlockRole::Kind::kHost) continue;
      all.push_back(b);
      if (role.layer < 0) continue;
      layers[role.layer].push_back(b);
      if (role.kind != BlockRole::Kind::kExpert) continue;
      experts.push_back(b);
      layer_experts[role.layer].push_back(b);
    }
    add("*", all);
    add("blk.*.expert.*", experts);
    for (const auto& [layer, blocks] : layers) add("blk." + std::to_string(layer) + ".*", blocks);
    for (const auto& [layer, blocks] : layer_experts) {
      add("blk." + std::to_string(layer) + ".expert.*", blocks);
    }
    for (BlockId b : all) add(program_.blocks[b].name, {b});
    return std::move(rules_);
  }

 private:
  using Group = std::vector<BlockId>;

  // Adds a rule where it puts more blocks right than wrong.
  void add(const std::string& match, const Group& blocks) {
    size_t best_gain = 0;
    BlockPlace best;
    for (const BlockPlace place : {kInDram, kOnDevice, kStreamed}) {
      size_t before = 0, after = 0;
      for (BlockId b : blocks) {
        before += written_[b] == wanted_[b] ? 1 : 0;
        after += place == wanted_[b] ? 1 : 0;
      }
      const bool possible = !(place == kStreamed && has_expert(blocks));
      if (!possible || after <= before || after - before <= best_gain) continue;
      best_gain = after - before;
      best = place;
    }
    if (best_gain == 0) return;
    for (BlockId b : blocks) written_[b] = best;
    rules_.push_back({{"match", match},
                      {"tier", best.tier == Tier::kDevice ? "device" : "dram"},
                      {"processor", best.on_device() ? "device" : "cpu"}});
  }

  bool has_expert(const Group& blocks) const {
    return std::any_of(blocks.begin(), blocks.end(),
                       [&](BlockId b) { return roles_[b].kind == BlockRole::Kind::kExpert; });
  }

  const Program& program_;
  const std::vector<BlockPlace>& wanted_;
  const std::vector<BlockRole> roles_;
  std::vector<std::optional<BlockPlace>> written_;  // what the rules so far say
  Json rules_ = Json::array();
};

}  // namespace

bool is_pattern(std::string_view match) { return match.find_first_of("*?") != match.npos; }

bool matches(std::string_view pattern, std::string_view name) {
  const size_t n_stars = static_cast<size_t>(std::count(pattern.begin(), pattern.end(), '*'));
  if (pattern.size() - n_stars > name.size()) return false;
  size_t p = 0, n = 0;
  size_t star = pattern.npos, resume = 0;  // the last * and where its text may end
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != pattern.npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  return std::all_of(pattern.begin() + static_cast<ptrdiff_t>(p), pattern.end(),
                     [](char c) { return c == '*'; });
}

Result<PlaceFile> read_place_file(std::string_view text) {
  TANDEM_ASSIGN_OR_RETURN(const ReadJson json, parse(text));
  TANDEM_RETURN_IF_ERROR(check_keys(json, "", {"version", "blocks", "kv_layers", "expert_slots"}));
  const ReadJson version = json.value("version", ReadJson());
  if (!version.is_number_unsigned()) return wrong("version", "1", version);
  if (version != 1) {
    return unsupported("place file: version " + version.dump() + ", this tandem reads 1");
  }
  PlaceFile file;
  TANDEM_ASSIGN_OR_RETURN(file.rules, read_rules(json.value("blocks", ReadJson())));
  if (json.contains("kv_layers")) {
    TANDEM_ASSIGN_OR_RETURN(file.kv_layers, read_layers(json["kv_layers"]));
  }
  if (json.contains("expert_slots")) {
    const ReadJson& slots = json["expert_slots"];
    if (!slots.is_number_unsigned() || slots.get<uint64_t>() > kMaxSlots) {
      return wrong("expert_slots", "an integer from 0 to " + std::to_string(kMaxSlots), slots);
    }
    file.expert_slots = slots.get<uint64_t>();
  }
  return file;
}

std::string to_json(const Program& program, const Placement& placement) {
  Json layers = Json::array();
  for (size_t layer = 0; layer < placement.kv_on_device.size(); ++layer) {
    if (placement.kv_on_device[layer]) layers.push_back(layer);
  }
  const Json json = {{"version", 1},
                     {"blocks", RuleWriter(program, placement).write()},
                     {"kv_layers", std::move(layers)},
                     {"expert_slots", placement.n_expert_slots}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tandem
