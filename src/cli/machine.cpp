#include <algorithm>
#include <nlohmann/json.hpp>

#include "commands.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::ordered_json;

// "bytes" and what ends in it are sizes; everything else is shown as it stands.
std::string shown(const std::string& name, const Json& value) {
  if (name.ends_with("bytes") && value.is_number_unsigned())
    return format_bytes(value.get<uint64_t>());
  if (value.is_string()) return value.get<std::string>();
  return value.dump();
}

std::string spaced(std::string name) {
  if (name.ends_with("_bytes")) name.resize(name.size() - 6);
  for (char& c : name) {
    if (c == '_') c = ' ';
  }
  return name;
}

std::string in_one_line(const std::string& name, const Json& value) {
  std::string text;
  if (value.is_array()) {
    for (const Json& item : value) text += (text.empty() ? "" : ", ") + in_one_line(name, item);
    return text;
  }
  if (!value.is_object()) return shown(name, value);
  for (const auto& [key, item] : value.items()) {
    const std::string line = in_one_line(key, item);
    if (item.is_null() || line.empty()) continue;
    text += (text.empty() ? "" : "  ") + (key == "bytes" ? line : spaced(key) + " " + line);
  }
  return text;
}

// Lists with one line per run of equal items, so that 64 equal cores are one line.
void print_list(std::string& text, const std::string& heading, const Json& list) {
  size_t at = 0;
  while (at < list.size()) {
    const std::string line = in_one_line(heading, list[at]);
    size_t count = 1;
    while (at + count < list.size() && in_one_line(heading, list[at + count]) == line) ++count;
    text += "  " + (count > 1 ? std::to_string(count) + " x  " : std::string()) + line + "\n";
    at += count;
  }
}

std::string table_of(const Json& machine) {
  std::string text;
  for (const auto& [key, value] : machine.items()) {
    const bool is_version = key == "tandem_machine";
    if (is_version || value.is_null() || (value.is_structured() && value.empty())) continue;
    if (value.is_array() && value[0].is_object()) {
      text += spaced(key) + "\n";
      print_list(text, key, value);
    } else {
      std::string name = spaced(key);
      name.resize(std::max<size_t>(name.size() + 2, 16), ' ');
      text += name + in_one_line(key, value) + "\n";
    }
  }
  return text;
}

}  // namespace

int run_machine(Console& console, const Arguments& arguments) {
  bool json = false;
  CommandLine line(
      "machine",
      "What this machine has: processors, caches, memory, drives, and the limits it sets.",
      "tandem machine\ntandem machine --json > workstation.json", "");
  line.group("Output");
  line.flag("--json", json, "as a machine file");
  if (const auto code = line.parse(console, arguments)) return *code;
  if (!line.all_taken(console)) return kExitUsage;

  const auto text = api::machine_json();
  if (!text) return console.fail(text.error());
  const Json machine = Json::parse(*text, nullptr, false);
  if (json || !machine.is_object()) {
    console.out(text->ends_with("\n") ? *text : *text + "\n");
  } else {
    console.out(table_of(machine));
  }
  return kExitOk;
}

}  // namespace tandem::cli
