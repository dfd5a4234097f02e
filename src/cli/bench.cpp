#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "answer.h"
#include "commands.h"
#include "interrupts.h"
#include "loading.h"

namespace tandem::cli {
namespace {

struct BenchFlags {
  LoadFlags load;
  uint32_t n_prompt = 512, n_decode = 64, repeats = 5;
  std::string depths = "0";
  bool json = false;
};

// All repeats at one depth (tokens that the context holds before the measurement).
struct DepthResult {
  int32_t depth = 0;
  std::vector<double> prompt, decode, bandwidth;
};

class Bench {
 public:
  Bench(Console& console, Loaded& loaded, const BenchFlags& flags, std::vector<int32_t> depths)
      : console_(console), loaded_(loaded), flags_(flags), depths_(std::move(depths)) {}

  int run();

 private:
  // One line of standard error per repeat. Nothing when it went well.
  std::optional<api::Error> measure(api::Session& session, DepthResult& result);
  std::optional<api::Error> measure_prompt(api::Session& session, DepthResult& result);
  std::optional<api::Error> measure_decode(api::Session& session, DepthResult& result);
  std::optional<api::Error> fill(api::Session& session, int32_t depth);
  api::Expected<Answer> request(api::Session& session, std::span<const int32_t> tokens,
                                uint32_t n_tokens);
  std::vector<int32_t> some_tokens(size_t count);
  nlohmann::ordered_json json_of(const DepthResult& result) const;
  void print(const DepthResult& result) const;
  double gb_per_token() const {
    return static_cast<double>(loaded_.engine_info.bytes_per_token) / 1e9;
  }

  Console& console_;
  Loaded& loaded_;
  const BenchFlags& flags_;
  std::vector<int32_t> depths_;
  api::Cancel cancel_;  // before what it is given to
  std::optional<api::Bandwidth> bandwidth_;
  std::mt19937 random_{1};
};

std::vector<int32_t> Bench::some_tokens(size_t count) {
  std::uniform_int_distribution<int32_t> any(
      0, static_cast<int32_t>(loaded_.model_info.n_vocabulary) - 1);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = any(random_);
  return tokens;
}

api::Expected<Answer> Bench::request(api::Session& session, std::span<const int32_t> tokens,
                                     uint32_t n_tokens) {
  api::AnswerOptions options;
  options.max_tokens = n_tokens;
  options.ignore_end = true;
  auto sampling = loaded_.model.default_sampling();
  if (!sampling) return sampling.error();
  sampling->temperature = 0;
  options.sampling = *sampling;
  const auto submitted = session.submit_tokens(tokens, options);
  if (!submitted) return submitted.error();
  Answer answer = receive(console_, session, false);
  if (answer.finish == TANDEM_FINISH_ERROR) return answer.error;
  if (answer.finish == TANDEM_FINISH_CANCELLED) {
    api::Error error;
    error.code = TANDEM_ERROR_CANCELLED;
    return error;
  }
  return answer;
}

std::optional<api::Error> Bench::fill(api::Session& session, int32_t depth) {
  const auto held = session.info();
  if (!held) return held.error();
  const auto wanted = static_cast<uint64_t>(depth);
  if (held->n_tokens > wanted) {
    const auto truncated = session.truncate(wanted);
    if (!truncated) return truncated.error();
  }
  if (held->n_tokens < wanted) {
    const auto filled = session.evaluate(some_tokens(static_cast<size_t>(wanted - held->n_tokens)));
    if (!filled) return filled.error();
  }
  return std::nullopt;
}

std::optional<api::Error> Bench::measure_prompt(api::Session& session, DepthResult& result) {
  if (flags_.n_prompt == 0) return std::nullopt;
  if (auto error = fill(session, result.depth)) return error;
  const auto answer = request(session, some_tokens(flags_.n_prompt), 1);
  if (!answer) return answer.error();
  result.prompt.push_back(answer->prompt_tokens_per_s());
  return std::nullopt;
}

std::optional<api::Error> Bench::measure_decode(api::Session& session, DepthResult& result) {
  if (flags_.n_decode == 0) return std::nullopt;
  if (auto error = fill(session, result.depth)) return error;
  const auto answer = request(session, some_tokens(1), flags_.n_decode);
  if (!answer) return answer.error();
  // Here each token is evaluated, so that even one is a measurement.
  result.decode.push_back(static_cast<double>(answer->n_generated) / answer->generate_seconds);
  return std::nullopt;
}

std::optional<api::Error> Bench::measure(api::Session& session, DepthResult& result) {
  // Between the runs, because a shared machine's bandwidth changes while we measure.
  if (bandwidth_) {
    const auto rate = bandwidth_->gb_per_s(&cancel_);
    if (!rate) return rate.error();
    result.bandwidth.push_back(*rate);
  }
  if (auto error = measure_prompt(session, result)) return error;
  return measure_decode(session, result);
}

nlohmann::ordered_json json_of(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  const Spread spread = spread_of(values);
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

std::vector<double> scaled(std::vector<double> values, double factor) {
  for (double& value : values) value *= factor;
  return values;
}

// Each run against the bandwidth measured just before it; none where that was not measured.
std::vector<double> shares(const DepthResult& result, double gb_per_token) {
  std::vector<double> values;
  for (size_t i = 0; i < std::min(result.decode.size(), result.bandwidth.size()); ++i) {
    values.push_back(result.decode[i] * gb_per_token / result.bandwidth[i]);
  }
  return values;
}

nlohmann::ordered_json Bench::json_of(const DepthResult& result) const {
  return {{"depth", result.depth},
          {"prompt_tokens_per_s", cli::json_of(result.prompt)},
          {"decode_tokens_per_s", cli::json_of(result.decode)},
          {"decode_gb_per_s", cli::json_of(scaled(result.decode, gb_per_token()))},
          {"read_bandwidth_gb_per_s", cli::json_of(result.bandwidth)},
          {"decode_share_of_bandwidth", cli::json_of(shares(result, gb_per_token()))}};
}

void Bench::print(const DepthResult& result) const {
  const auto row = [&](const char* name, const std::vector<double>& values, const char* unit) {
    if (values.empty()) return;
    const Spread spread = spread_of(values);
    console_.out(std::string(name) + format_rate(spread.median) + unit + "  (" +
                 format_rate(spread.min) + " to " + format_rate(spread.max) + ")\n");
  };
  console_.out("depth           " + std::to_string(result.depth) + " tokens\n");
  row("prompt          ", result.prompt, " tok/s");
  row("decode          ", result.decode, " tok/s");
  row("decode reads    ", scaled(result.decode, gb_per_token()), " GB/s");
  row("read bandwidth  ", result.bandwidth, " GB/s");
  row("share           ", scaled(shares(result, gb_per_token()), 100), " %");
}

int Bench::run() {
  const interrupts::CancelOnInterrupt cancelled(cancel_);
  std::vector<DepthResult> results;
  const auto failed = [&](const api::Error& error) {
    if (error.code != TANDEM_ERROR_CANCELLED) return console_.fail(error);
    console_.line("interrupted: " + std::to_string(results.size()) + " of " +
                  std::to_string(depths_.size()) + " depths were measured.");
    return kExitInterrupted;
  };
  auto bandwidth = api::Bandwidth::create(loaded_.engine_info.n_threads, 0, &cancel_);
  if (bandwidth) {
    bandwidth_ = std::move(*bandwidth);
  } else if (bandwidth.error().code == TANDEM_ERROR_OUT_OF_MEMORY) {
    console_.note("the read bandwidth is not measured: " + bandwidth.error().text);
  } else {
    return failed(bandwidth.error());
  }
  auto session = api::Session::create(loaded_.engine);
  if (!session) return console_.fail(session.error());
  const interrupts::ActOnInterrupt stop([&session] { session->cancel(); });

  for (const int32_t depth : depths_) {
    DepthResult result, warm_up;
    result.depth = warm_up.depth = depth;
    std::optional<api::Error> error = measure(*session, warm_up);
    for (uint32_t i = 0; i < flags_.repeats && !error; ++i) error = measure(*session, result);
    if (error) return failed(*error);
    if (!flags_.json) print(result);
    results.push_back(std::move(result));
  }
  if (!flags_.json) return kExitOk;
  nlohmann::ordered_json object = {{"model", loaded_.model_info.name},
                                   {"type", loaded_.model_info.type_name},
                                   {"threads", loaded_.engine_info.n_threads},
                                   {"isa", loaded_.engine_info.isa},
                                   {"n_prompt", flags_.n_prompt},
                                   {"n_decode", flags_.n_decode},
                                   {"repeats", flags_.repeats},
                                   {"bytes_per_token", loaded_.engine_info.bytes_per_token},
                                   {"load_seconds", loaded_.engine_info.load_seconds}};
  // The first depth stands at the top, so that one figure is one look-up.
  object.update(json_of(results.front()));
  for (const DepthResult& result : results) object["depths"].push_back(json_of(result));
  console_.out(object.dump() + "\n");
  return kExitOk;
}

}  // namespace

int run_bench(Console& console, const Arguments& arguments) {
  BenchFlags flags;
  CommandLine line(
      "bench",
      "Tokens per second of a prompt and of decoding, as the median with the lowest and highest of "
      "the\n"
      "repeats after one that is not counted. The memory's read bandwidth is measured between the "
      "runs, and\n"
      "decoding is set against it: bytes of weights per token times tokens per second.",
      "tandem bench model.gguf\ntandem bench model.gguf -p 512 -n 128 -d 0,4096 --json", "MODEL");
  line.group("What is measured");
  line.whole("-p,--prompt", flags.n_prompt, 0, 1 << 24,
             "tokens of the prompt (512), 0: not measured");
  line.whole("-n,--predict,--n-predict", flags.n_decode, 0, 1 << 24,
             "tokens decoded (64), 0: not measured");
  line.text("-d,--depth", flags.depths, "DEPTH,...", "tokens in the context before (0)");
  line.whole("-r,--repeats", flags.repeats, 1, 1000, "repeats (5)");
  line.group("Output");
  line.flag("--json", flags.json, "as a JSON object");
  flags.load.add_to(line);
  flags.load.add_trace_to(line);
  if (const auto code = line.parse(console, arguments)) return *code;
  const auto path = line.take_model(console, flags.load.model);
  if (!path || !line.all_taken(console)) return kExitUsage;
  if (flags.n_prompt == 0 && flags.n_decode == 0) {
    return line.usage_error(console, "--prompt 0 and --predict 0 leave nothing to measure.");
  }
  const auto depths = parse_ids(flags.depths);
  if (!depths || depths->empty()) {
    return line.usage_error(
        console, "--depth: expected tokens such as 0,4096, found '" + flags.depths + "'");
  }
  const auto deepest = static_cast<uint64_t>(*std::max_element(depths->begin(), depths->end()));
  const uint64_t needed = deepest + std::max<uint64_t>(flags.n_prompt + 1, flags.n_decode + 2);
  if (flags.load.n_context == 0)
    flags.load.n_context = static_cast<uint32_t>(std::min<uint64_t>(needed, UINT32_MAX));
  if (flags.load.n_context < needed) {
    return line.usage_error(
        console, "--ctx: the runs need " + std::to_string(needed) + " tokens of context.");
  }
  int code = kExitOk;
  auto loaded = load(console, *path, flags.load, code);
  if (!loaded) return code;
  for (const std::string& note : loaded->notes) console.note(note);
  code = Bench(console, *loaded, flags, *depths).run();
  print_trace(console, *loaded);
  return finish_trace(console, *loaded, code);
}

}  // namespace tandem::cli
