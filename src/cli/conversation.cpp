#include <nlohmann/json.hpp>

#include "chat.h"

namespace tandem::cli {

using Json = nlohmann::ordered_json;

std::vector<api::Message> Conversation::messages() const {
  std::vector<api::Message> all;
  if (!system.empty()) all.push_back({"system", system});
  all.insert(all.end(), turns.begin(), turns.end());
  return all;
}

std::string Conversation::to_json(const std::string& model) const {
  Json list = Json::array();
  for (const api::Message& message : messages())
    list.push_back({{"role", message.role}, {"content", message.content}});
  const Json object = {{"tandem_conversation", 1}, {"model", model}, {"messages", list}};
  return object.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<Conversation> Conversation::from_json(std::string_view text, std::string& error) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("tandem_conversation") || !json.contains("messages") ||
      !json["messages"].is_array()) {
    error = "not a conversation that /save wrote.";
    return std::nullopt;
  }
  if (json["tandem_conversation"] != 1) {
    // Not dumped whatever it is: it may be nested without end.
    const Json& version = json["tandem_conversation"];
    error = "written by a newer tandem (version " +
            (version.is_number() ? version.dump() : std::string(version.type_name())) +
            ", expected 1).";
    return std::nullopt;
  }
  Conversation conversation;
  for (const Json& message : json["messages"]) {
    const bool whole = message.is_object() && message.contains("role") &&
                       message["role"].is_string() && message.contains("content") &&
                       message["content"].is_string();
    const std::string role = whole ? message["role"].get<std::string>() : "";
    if (role == "system" && conversation.turns.empty()) {
      conversation.system = message["content"].get<std::string>();
    } else if (role == "user" || role == "assistant") {
      conversation.turns.push_back({role, message["content"].get<std::string>()});
    } else {
      error = "message " + std::to_string(conversation.turns.size() + 1) +
              ": expected role user or assistant and a content.";
      return std::nullopt;
    }
  }
  return conversation;
}

}  // namespace tandem::cli
