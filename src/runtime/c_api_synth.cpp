// Models with random weights, in the C API.
#include "formats/synth.h"

#include "runtime/c_api.h"

namespace tandem::c_api {
namespace {

Result<SynthOptions> read_options(const char* output_path, const tandem_synth_options& in) {
  SynthOptions out;
  out.output = output_path;
  out.like =
      in.like != nullptr ? in.like : "";  // an unknown name; the error lists those that are known
  out.n_layers = in.n_layers;
  out.seed = in.seed;
  if (in.type != nullptr) {
    const auto type = dtype_from_name(in.type);
    if (!type) {
      return unsupported("type " + std::string(in.type) + " cannot be made")
          .suggest("use f32, f16, bf16, q8_0, q4_0, q4_k or q6_k");
    }
    out.type = *type;
  }
  return out;
}

}  // namespace
}  // namespace tandem::c_api

using namespace tandem;
using namespace tandem::c_api;

extern "C" {

tandem_code tandem_synthesize(const char* output_path, const tandem_synth_options* options,
                              tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(output_path);
    TANDEM_REQUIRE_ARGUMENT(options);
    TANDEM_ASSIGN_OR_RETURN(const tandem_synth_options in, read_struct(options, "options"));
    TANDEM_ASSIGN_OR_RETURN(const SynthOptions read, read_options(output_path, in));
    const CancelFlag never;
    return synthesize(read, progress_callback(in.progress, in.progress_user),
                      in.cancel != nullptr ? in.cancel->flag : never);
  });
}

}  // extern "C"
