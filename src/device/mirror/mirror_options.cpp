#include "device/mirror/mirror_options.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/bytes.h"
#include "base/file.h"

namespace tandem::mirror {
namespace {

using Json = nlohmann::json;
constexpr uint64_t kMaxProfileBytes = 1 << 20;
constexpr double kMaxNumber = 1e9;
constexpr double kLeastGbPerS = 1e-3, kMostLatencyUs = 1e5;

Status wrong(std::string_view field, std::string_view expected, std::string_view found) {
  return invalid_argument("mirror device: " + std::string(field) + " is '" +
                          std::string(found.substr(0, 64)) + "', expected " +
                          std::string(expected));
}

std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(value >= 0 && value <= kMaxNumber)) return std::nullopt;
  return value;
}

// "12GB/s" with unit "GB/s".
std::optional<double> number_with_unit(std::string_view text, std::string_view unit) {
  if (text.ends_with(unit)) text.remove_suffix(unit.size());
  return number(text);
}

// Digits alone, of 64 bits.
std::optional<uint64_t> whole_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Status read_memory(std::string_view value, MirrorOptions& options) {
  const Result<uint64_t> bytes = parse_bytes(value);
  if (!bytes.ok() || *bytes == 0 || *bytes > (uint64_t{1} << 46)) {
    return wrong("vram", "a size like 4GiB", value);
  }
  options.memory_bytes = *bytes;
  return ok_status();
}

Status read_order(std::string_view value, MirrorOptions& options) {
  constexpr std::string_view kRandom = "random:";
  if (value == "threads") {
    options.order = Order::kThreads;
  } else if (value == "lazy") {
    options.order = Order::kLazy;
  } else if (value.starts_with(kRandom)) {
    const auto seed = whole_number(value.substr(kRandom.size()));
    if (!seed) return wrong("order", "random:SEED with a whole number of at most 64 bits", value);
    options.order = Order::kRandom;
    options.seed = *seed;
  } else {
    return wrong("order", "threads, lazy or random:SEED", value);
  }
  return ok_status();
}

Status read_timed(std::string_view path, MirrorOptions& options) {
  if (path.empty()) return wrong("timed", "a profile's file", path);
  TANDEM_ASSIGN_OR_RETURN(const auto file, ReadFile::open(std::string(path)));
  if (file->size_bytes() > kMaxProfileBytes) {
    return corrupt("a profile has at most " + format_bytes(kMaxProfileBytes) + ", this has " +
                   format_bytes(file->size_bytes()))
        .named_after_file(std::string(path));
  }
  std::string text(file->size_bytes(), '\0');
  TANDEM_RETURN_IF_ERROR(file->read_at(0, std::as_writable_bytes(std::span(text))));
  Result<Profile> profile = read_profile(text);
  if (!profile.ok()) return profile.status().named_after_file(std::string(path));
  options.profile = std::move(*profile);
  options.timed = true;
  return ok_status();
}

Status read_link(std::string_view value, MirrorOptions& options) {
  const auto rate = number_with_unit(value, "GB/s");
  // A copy cannot be stopped on its way: a slower link would not let go of anybody for seconds.
  if (!rate || (*rate != 0 && *rate < kLeastGbPerS)) {
    return wrong("link", "a rate like 12GB/s, at least 0.001GB/s", value);
  }
  options.link_gb_per_s = *rate;
  return ok_status();
}

Status read_latency(std::string_view value, MirrorOptions& options) {
  const auto time = number_with_unit(value, "us");
  if (!time || *time > kMostLatencyUs) {
    return wrong("latency", "a time like 10us, at most 100000us", value);
  }
  options.latency_us = *time;
  return ok_status();
}

Status read_count(std::string_view name, std::string_view value, uint64_t& count) {
  const auto found = whole_number(value);
  if (!found || *found == 0) return wrong(name, "a whole number from 1 on", value);
  count = *found;
  return ok_status();
}

Status read_field(std::string_view name, std::string_view value, MirrorOptions& options) {
  if (name == "vram") return read_memory(value, options);
  if (name == "order") return read_order(value, options);
  if (name == "timed") return read_timed(value, options);
  if (name == "link") return read_link(value, options);
  if (name == "latency") return read_latency(value, options);
  if (name == "depth") return read_count(name, value, options.depth);
  if (name == "fail-allocation") return read_count(name, value, options.faults.allocation);
  if (name == "fail-copy") return read_count(name, value, options.faults.copy);
  if (name == "fail-operation") return read_count(name, value, options.faults.operation);
  if (name == "refuse") return read_count(name, value, options.faults.submission);
  if (name == "lost-after") return read_count(name, value, options.faults.lost_after_commands);
  return invalid_argument(
      "mirror device: '" + std::string(name.substr(0, 64)) +
      "' is no option, expected vram, link, latency, timed, order, depth, poison, "
      "fail-allocation, fail-copy, fail-operation, refuse or lost-after");
}

// What stands between two commas.
Status read_option(std::string_view option, MirrorOptions& options) {
  const size_t equals = option.find('=');
  const std::string_view name = option.substr(0, equals);
  const bool has_value = equals != std::string_view::npos;
  if (name == "poison") {
    if (has_value) return wrong(name, "the word alone, without a value", option);
    options.poison = true;
    return ok_status();
  }
  return read_field(name, has_value ? option.substr(equals + 1) : std::string_view(), options);
}

Result<double> time_field(const std::string& operation, const std::string& name,
                          const Json& value) {
  const double found = value.is_number() ? value.get<double>() : -1;
  if (found >= 0 && found <= kMaxNumber) return found;
  // Not what it holds: a value may be nested without end.
  const std::string text = value.is_number() ? value.dump() : value.type_name();
  return corrupt("profile: " + operation + "." + name + " is " + text +
                 ", expected a number from 0 to 1e9");
}

Result<OperationTime> read_time(const std::string& operation, const Json& fields) {
  if (!fields.is_object()) return corrupt("profile: " + operation + " is no object");
  OperationTime time;
  for (const auto& [name, value] : fields.items()) {
    TANDEM_ASSIGN_OR_RETURN(const double found, time_field(operation, name, value));
    if (name == "fixed_us") {
      time.fixed_us = found;
    } else if (name == "ns_per_row") {
      time.ns_per_row = found;
    } else if (name == "gb_per_s") {
      time.gb_per_s = found;
    } else {
      return corrupt("profile: " + operation + "." + name.substr(0, 64) +
                     " is unknown, expected fixed_us, ns_per_row or gb_per_s");
    }
  }
  return time;
}

std::optional<OpKind> kind_named(std::string_view name) {
  for (int i = 0; i < kNumOpKinds; ++i) {
    const auto kind = static_cast<OpKind>(i);
    if (operation_name(kind) == name) return kind;
  }
  return std::nullopt;
}

}  // namespace

Result<Profile> read_profile(std::string_view json) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return corrupt("profile: expected a JSON object");
  if (!root.contains("version") || root["version"] != 1) {
    return corrupt("profile: expected \"version\": 1");
  }
  if (!root.contains("operations") || !root["operations"].is_object()) {
    return corrupt("profile: expected an object \"operations\"");
  }
  Profile profile;
  for (const auto& [name, fields] : root["operations"].items()) {
    const auto kind = kind_named(name);
    if (!kind) return corrupt("profile: '" + name.substr(0, 64) + "' is no operation");
    TANDEM_ASSIGN_OR_RETURN(profile.times[*kind], read_time(name, fields));
  }
  return profile;
}

Result<MirrorOptions> parse_mirror_options(std::string_view text) {
  MirrorOptions options;
  std::map<std::string_view, std::string_view> given;  // name -> the whole option
  for (bool more = !text.empty(); more;) {
    const size_t comma = text.find(',');
    const std::string_view option = text.substr(0, comma);
    more = comma != std::string_view::npos;
    if (more) text.remove_prefix(comma + 1);
    if (option.empty()) {
      return invalid_argument(
          "mirror device: '' is no option, expected one before and behind each comma");
    }
    TANDEM_RETURN_IF_ERROR(read_option(option, options));
    const auto [first, is_new] = given.emplace(option.substr(0, option.find('=')), option);
    if (!is_new) {
      return invalid_argument("mirror device: '" + std::string(first->second.substr(0, 64)) +
                              "' and '" + std::string(option.substr(0, 64)) +
                              "' are both given, expected " + std::string(first->first) + " once");
    }
  }
  return options;
}

}  // namespace tandem::mirror
