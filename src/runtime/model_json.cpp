// A model's header as JSON, for tandem_model_json and `tandem inspect`.
#include <nlohmann/json.hpp>

#include "runtime/model.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLongestValue = 200;  // bytes of one metadata value that are shown

Json value_of(const GgufFile& file, const MetadataEntry& entry) {
  switch (entry.type) {
    case MetadataType::kBool:
      if (const auto value = file.get_bool(entry.key); value.ok()) return *value;
      break;
    case MetadataType::kF32:
    case MetadataType::kF64:
      if (const auto value = file.get_float(entry.key); value.ok()) return *value;
      break;
    case MetadataType::kString:
      if (const auto value = file.get_string(entry.key); value.ok()) return std::string(*value);
      break;
    case MetadataType::kArray:
      return entry.printable(kLongestValue);
    default:
      if (const auto value = file.get_int(entry.key); value.ok()) return *value;
      if (const auto value = file.get_uint(entry.key); value.ok()) return *value;
  }
  return entry.printable(kLongestValue);
}

Json info_json(const ModelInfo& info, bool has_chat_template, const std::string& template_error) {
  return Json{{"name", info.name},
              {"architecture", info.architecture},
              {"type", info.type_name},
              {"file_bytes", info.file_bytes},
              {"weight_bytes", info.weight_bytes},
              {"n_parameters", info.n_parameters},
              {"n_active_parameters", info.n_active_parameters},
              {"n_vocabulary", info.n_vocabulary},
              {"n_layers", info.n_layers},
              {"n_context_trained", info.n_context_trained},
              {"n_experts", info.n_experts},
              {"n_experts_used", info.n_experts_used},
              {"has_chat_template", has_chat_template},
              {"chat_template_error", template_error}};
}

Json tensor_json(const TensorInfo& tensor) {
  Json shape = Json::array();
  for (uint32_t i = 0; i < tensor.n_dims; ++i) shape.push_back(tensor.dims[i]);
  return Json{{"name", std::string(tensor.name)}, {"type", std::string(tensor.type.name)},
              {"shape", std::move(shape)},        {"bytes", tensor.bytes},
              {"file", tensor.extent.file_index}, {"offset", tensor.extent.offset}};
}

// Text from the file may be any bytes; what is not UTF-8 becomes U+FFFD.
std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// In the order of the file, which has each key once.  Written here, because an ordered object of the JSON library
// compares each key with all before it, and a file may have tens of thousands.
std::string metadata_text(const GgufFile& file) {
  std::string text = "{";
  for (const MetadataEntry& entry : file.metadata()) {
    if (text.size() > 1) text += ',';
    text += text_of(std::string(entry.key)) + ':' + text_of(value_of(file, entry));
  }
  return text + '}';
}

}  // namespace

std::string Model::to_json() const {
  Json tensors = Json::array();
  for (const TensorInfo& tensor : file_.tensors()) tensors.push_back(tensor_json(tensor));
  return R"({"info":)" +
         text_of(info_json(info_, has_chat_template(), template_status_.message())) +
         R"(,"files":)" + text_of(file_.paths()) + R"(,"warnings":)" +
         text_of(tokenizer_->warnings()) + R"(,"metadata":)" + metadata_text(file_) +
         R"(,"tensors":)" + text_of(tensors) + "}";
}

}  // namespace tandem
