// tandem for C++: owners, strings and results over the C interface in c.h, and nothing else.
//
// Everything is inline and in namespace tandem::api: the library's own classes have the same names
// in namespace tandem (Model, Engine, Session are the words of the design), and a program that sees
// both must not violate the one-definition rule. Structs and enumerations of c.h are used as they
// are.
//
// Threading: that of the C functions; see the numbered conventions in c.h.
// Ownership: classes own what they hold, move only, and release it when they go. A moved-from
// object may only be assigned to or destroyed. They may go in any order: an Engine keeps its Model
// alive, a Session its Engine.
// Errors: calls that can fail return Expected<T>; nothing here throws by itself. A callback must
// not throw.
#ifndef TANDEM_TANDEM_HPP
#define TANDEM_TANDEM_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tandem/c.h"

namespace tandem::api {

// A struct of c.h with its size filled in and everything else at its default.
template <typename T>
T make() {
  T value{};
  value.struct_bytes = sizeof(T);
  return value;
}

// What went wrong, copied out of a tandem_error. Fields that do not apply are empty, 0 or
// TANDEM_NO_OFFSET.
struct Error {
  tandem_code code = TANDEM_ERROR_INTERNAL;
  std::string text;
  std::string file;
  std::string tensor;
  std::string suggestion;
  uint64_t offset = TANDEM_NO_OFFSET;
  uint64_t bytes_needed = 0;
  uint64_t bytes_available = 0;

  static Error copy_of(const tandem_error* error, tandem_code code) {
    Error copy;
    copy.code = code;
    if (error == nullptr) {
      copy.text = tandem_code_name(code);
      return copy;
    }
    const auto text_of = [](const char* text) { return std::string(text == nullptr ? "" : text); };
    copy.text = text_of(error->text);
    copy.file = text_of(error->file);
    copy.tensor = text_of(error->tensor);
    copy.suggestion = text_of(error->suggestion);
    copy.offset = error->offset;
    copy.bytes_needed = error->bytes_needed;
    copy.bytes_available = error->bytes_available;
    return copy;
  }

  // Copies and frees.
  static Error take(tandem_error* error, tandem_code code) {
    Error copy = copy_of(error, code);
    tandem_error_free(error);
    return copy;
  }
};

struct Nothing {};

// A value, or the Error that says why there is none.
//
// Threading and ownership: those of T.
// Requires: `*` and `->` only when it converts to true, error() only when it does not.
template <typename T = Nothing>
class [[nodiscard]] Expected {
 public:
  Expected(T value) : content_(std::in_place_index<0>, std::move(value)) {}
  Expected(Error error) : content_(std::in_place_index<1>, std::move(error)) {}

  explicit operator bool() const { return content_.index() == 0; }
  T& operator*() & { return *std::get_if<0>(&content_); }
  const T& operator*() const& { return *std::get_if<0>(&content_); }
  T&& operator*() && { return std::move(*std::get_if<0>(&content_)); }
  T* operator->() { return std::get_if<0>(&content_); }
  const T* operator->() const { return std::get_if<0>(&content_); }
  const Error& error() const { return *std::get_if<1>(&content_); }

 private:
  std::variant<T, Error> content_;
};

namespace detail {

// Calls a C function with its error last and turns the outcome into an Expected.
template <typename Function, typename... Arguments>
Expected<Nothing> call(Function function, Arguments... arguments) {
  tandem_error* error = nullptr;
  const tandem_code code = function(arguments..., &error);
  if (code != TANDEM_OK) return Error::take(error, code);
  return Nothing{};
}

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};

// Frees an object, and then what its callbacks use. (Assigning to a unique_ptr frees the old object
// before it replaces the old deleter, so the order holds there as well.)
template <auto Free, typename Kept>
struct FreerKeeping {
  Kept kept;
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};

inline std::string take_string(char* text) {
  std::string copy(text == nullptr ? "" : text);
  tandem_string_free(text);
  return copy;
}

}  // namespace detail

using ProgressFunction = std::function<void(const tandem_progress&)>;

// A flag that ends the long call it was given to.
//
// Threading: trigger() from any thread or signal handler. Ownership: must outlive the calls it was
// given to. Errors: none; when memory is short the flag is empty and the calls cannot be cancelled.
class Cancel {
 public:
  Cancel() : handle_(tandem_cancel_create()) {}
  void trigger() { tandem_cancel_trigger(handle_.get()); }
  void reset() { tandem_cancel_reset(handle_.get()); }
  tandem_cancel* get() const { return handle_.get(); }

 private:
  std::unique_ptr<tandem_cancel, detail::Freer<tandem_cancel_free>> handle_;
};

// One entry of a conversation.
struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

namespace detail {

inline std::vector<tandem_message> views_of(std::span<const Message> messages) {
  std::vector<tandem_message> views;
  views.reserve(messages.size());
  for (const Message& message : messages) {
    views.push_back({sizeof(tandem_message), message.role.c_str(), message.content.c_str()});
  }
  return views;
}

}  // namespace detail

// A model's header, tokenizer and chat template; no weights.
//
// Threading: const methods from any thread at once. Ownership: info() points into the model.
// Errors: open() names the first bad field and its byte offset.
class Model {
 public:
  static Expected<Model> open(const std::string& path) {
    tandem_model* handle = nullptr;
    auto done = detail::call(tandem_model_open, path.c_str(), &handle);
    if (!done) return done.error();
    return Model(handle);
  }

  Expected<tandem_model_info> info() const {
    auto info = make<tandem_model_info>();
    auto done = detail::call(tandem_model_get_info, get(), &info);
    if (!done) return done.error();
    return info;
  }

  Expected<std::string> json() const {
    char* text = nullptr;
    auto done = detail::call(tandem_model_json, get(), &text);
    if (!done) return done.error();
    return detail::take_string(text);
  }

  Expected<std::vector<int32_t>> tokenize(std::string_view text, bool add_special,
                                          bool parse_special, Cancel* cancel = nullptr) const {
    auto options = make<tandem_tokenize_options>();
    options.add_special = add_special;
    options.parse_special = parse_special;
    options.cancel = cancel != nullptr ? cancel->get() : nullptr;
    // Rarely more tokens than bytes; where there are, the second round has the exact count.
    std::vector<int32_t> tokens(text.size() + 8);
    for (int round = 0;; ++round) {
      size_t n_tokens = 0;
      auto done = detail::call(tandem_model_tokenize, get(), text.data(), text.size(), &options,
                               tokens.data(), tokens.size(), &n_tokens);
      if (!done) return done.error();
      const bool complete = n_tokens <= tokens.size();
      tokens.resize(n_tokens);
      if (complete || round == 1) return tokens;
    }
  }

  Expected<std::string> detokenize(std::span<const int32_t> tokens, bool with_special) const {
    char* text = nullptr;
    size_t text_bytes = 0;
    auto done = detail::call(tandem_model_detokenize, get(), tokens.data(), tokens.size(),
                             with_special ? 1 : 0, &text, &text_bytes);
    if (!done) return done.error();
    std::string copy(text, text_bytes);
    tandem_string_free(text);
    return copy;
  }

  Expected<size_t> count_tokens(std::span<const Message> messages, Cancel* cancel = nullptr) const {
    const auto views = detail::views_of(messages);
    size_t n_tokens = 0;
    auto done = detail::call(tandem_model_count_tokens, get(), views.data(), views.size(),
                             cancel != nullptr ? cancel->get() : nullptr, &n_tokens);
    if (!done) return done.error();
    return n_tokens;
  }

  Expected<std::string> render(std::span<const Message> messages) const {
    const auto views = detail::views_of(messages);
    char* text = nullptr;
    auto done = detail::call(tandem_model_render, get(), views.data(), views.size(), &text);
    if (!done) return done.error();
    return detail::take_string(text);
  }

  Expected<tandem_sampling> default_sampling() const {
    auto sampling = make<tandem_sampling>();
    auto done = detail::call(tandem_model_default_sampling, get(), &sampling);
    if (!done) return done.error();
    return sampling;
  }

  const tandem_model* get() const { return handle_.get(); }

 private:
  explicit Model(tandem_model* handle) : handle_(handle) {}
  std::unique_ptr<tandem_model, detail::Freer<tandem_model_free>> handle_;
};

struct EngineOptions {
  uint32_t n_threads = 0;  // 0: one per physical core that this process may use
  uint32_t n_context = 0;  // 0: as trained, limited by free memory
  tandem_read_mode read_mode = TANDEM_READ_AUTO;
  tandem_kv_type kv_type = TANDEM_KV_F16;
  bool force = false;
  bool expert_cache = true, split = true;
  uint32_t trace_records = 0;  // of each lane, for write_trace(); 0: nothing is measured
  // As in tandem_engine_options; "": NULL.
  std::string device, gpu_layers, cpu_experts, place_file, device_memory;
  ProgressFunction progress;  // called on the thread that loads
  Cancel* cancel = nullptr;
  // May be called as long as the engine or one of its sessions lives.
  std::function<void(tandem_log_level, std::string_view)> log;
};

// A model's weights in memory and the threads that compute.
//
// Threading: const methods from any thread at once. Ownership: keeps the log function, and so do
// its sessions; info() points into the engine. Errors: load() gives TANDEM_ERROR_OUT_OF_MEMORY with
// the numbers before anything is read.
class Engine {
 public:
  static Expected<Engine> load(const Model& model, EngineOptions options = {}) {
    const auto kept = std::make_shared<EngineOptions>(std::move(options));
    auto c_options = make<tandem_engine_options>();
    c_options.n_threads = kept->n_threads;
    c_options.n_context = kept->n_context;
    c_options.read_mode = kept->read_mode;
    c_options.kv_type = kept->kv_type;
    c_options.force = kept->force;
    const auto or_null = [](const std::string& s) { return s.empty() ? nullptr : s.c_str(); };
    c_options.no_expert_cache = kept->expert_cache ? 0 : 1;
    c_options.no_split = kept->split ? 0 : 1;
    c_options.trace_records = kept->trace_records;
    c_options.device = or_null(kept->device);
    c_options.gpu_layers = or_null(kept->gpu_layers);
    c_options.cpu_experts = or_null(kept->cpu_experts);
    c_options.place_file = or_null(kept->place_file);
    c_options.device_memory = or_null(kept->device_memory);
    c_options.cancel = kept->cancel != nullptr ? kept->cancel->get() : nullptr;
    if (kept->progress) {
      c_options.progress = [](void* user, const tandem_progress* progress) {
        static_cast<EngineOptions*>(user)->progress(*progress);
      };
      c_options.progress_user = kept.get();
    }
    if (kept->log) {
      c_options.log = [](void* user, tandem_log_level level, const char* text) {
        static_cast<EngineOptions*>(user)->log(level, text);
      };
      c_options.log_user = kept.get();
    }
    tandem_engine* handle = nullptr;
    auto done = detail::call(tandem_engine_create, model.get(), &c_options, &handle);
    if (!done) return done.error();
    return Engine({handle, {kept}});
  }

  Expected<tandem_engine_info> info() const {
    auto info = make<tandem_engine_info>();
    auto done = detail::call(tandem_engine_get_info, handle_.get(), &info);
    if (!done) return done.error();
    return info;
  }

  // Of the device's; 0: as much as at first.  Any thread, while sessions compute.
  Expected<> set_device_memory(uint64_t bytes) const {
    return detail::call(tandem_engine_set_device_memory, handle_.get(), bytes);
  }

  // As a place file; "" without a device.
  Expected<std::string> placement() const {
    char* json = nullptr;
    auto done = detail::call(tandem_engine_placement, handle_.get(), &json);
    if (!done) return done.error();
    return detail::take_string(json);
  }

  Expected<std::vector<tandem_tier_report>> memory() const {
    std::vector<tandem_tier_report> tiers(8, make<tandem_tier_report>());
    size_t n_tiers = 0;
    auto done =
        detail::call(tandem_engine_get_memory, handle_.get(), tiers.data(), tiers.size(), &n_tiers);
    if (!done) return done.error();
    if (n_tiers < tiers.size()) tiers.resize(n_tiers);
    return tiers;
  }

  // What steps took; for engines loaded with trace_records.
  Expected<std::vector<tandem_lane_report>> lanes() const {
    std::vector<tandem_lane_report> lanes(8, make<tandem_lane_report>());
    size_t n_lanes = 0;
    auto done =
        detail::call(tandem_engine_get_lanes, handle_.get(), lanes.data(), lanes.size(), &n_lanes);
    if (!done) return done.error();
    if (n_lanes < lanes.size()) lanes.resize(n_lanes);
    return lanes;
  }
  // A few lines for people.
  Expected<std::string> trace_text() const {
    char* text = nullptr;
    auto done = detail::call(tandem_engine_trace_text, handle_.get(), &text);
    if (!done) return done.error();
    return detail::take_string(text);
  }
  // For ui.perfetto.dev.
  Expected<> write_trace(const std::string& path) const {
    return detail::call(tandem_engine_write_trace, handle_.get(), path.c_str());
  }
  Expected<> clear_trace() { return detail::call(tandem_engine_clear_trace, handle_.get()); }

  tandem_engine* get() const { return handle_.get(); }

 private:
  friend class Session;
  using Options = std::shared_ptr<EngineOptions>;  // what the engine's callbacks use
  using Handle = std::unique_ptr<tandem_engine, detail::FreerKeeping<tandem_engine_free, Options>>;
  explicit Engine(Handle handle) : handle_(std::move(handle)) {}
  Handle handle_;
};

// How an answer is made; what is left alone is the default written in c.h.
struct AnswerOptions {
  std::optional<tandem_sampling> sampling;  // nothing: what the model recommends
  uint32_t max_tokens = 0;                  // 0: until the answer ends or the context is full
  std::vector<std::string> stop;
  bool parse_special = false;
  bool no_bos = false;
  bool ignore_end = false;
};

// Pointers in an event last until the next next_event() of its session.
using Event = tandem_event;
inline std::string_view text_of(const Event& event) {
  return event.text == nullptr ? std::string_view()
                               : std::string_view(event.text, event.text_bytes);
}

struct SessionOptions {
  uint32_t n_context = 0;     // 0: the engine's
  uint32_t queue_events = 0;  // events that may wait before the session pauses; 0: 256
};

// One conversation.
//
// Threading: one caller at a time (a second one gets TANDEM_ERROR_BUSY); cancel(), next_event() and
// event_fd() beside it. Ownership: events point into the session; keeps its callback and its
// engine. Errors: those of a running request come in its DONE event.
class Session {
 public:
  static Expected<Session> create(const Engine& engine, const SessionOptions& options = {}) {
    auto c_options = make<tandem_session_options>();
    c_options.n_context = options.n_context;
    c_options.queue_events = options.queue_events;
    tandem_session* handle = nullptr;
    auto done = detail::call(tandem_session_create, engine.get(), &c_options, &handle);
    if (!done) return done.error();
    return Session({handle, {{engine.handle_.get_deleter().kept, nullptr}}});
  }

  // The whole conversation so far; only what is new is evaluated.
  Expected<> submit(std::span<const Message> messages, const AnswerOptions& options = {}) {
    const auto views = detail::views_of(messages);
    auto request = make<tandem_request>();
    request.messages = views.data();
    request.n_messages = views.size();
    return submit(request, options);
  }
  // Text after what the session holds, without a template.
  Expected<> submit_text(std::string_view text, const AnswerOptions& options = {}) {
    auto request = make<tandem_request>();
    request.text = text.data();
    request.text_bytes = text.size();
    return submit(request, options);
  }
  Expected<> submit_tokens(std::span<const int32_t> tokens, const AnswerOptions& options = {}) {
    auto request = make<tandem_request>();
    request.tokens = tokens.data();
    request.n_tokens = tokens.size();
    return submit(request, options);
  }

  // Waits up to timeout_ms (-1: for ever); an event of kind TANDEM_EVENT_NONE when there is none.
  Expected<Event> next_event(int timeout_ms = -1) {
    auto event = make<tandem_event>();
    auto done = detail::call(tandem_session_next_event, handle_.get(), timeout_ms, &event);
    if (!done) return done.error();
    return event;
  }
  Expected<int> event_fd() const {
    int fd = -1;
    auto done = detail::call(tandem_session_event_fd, handle_.get(), &fd);
    if (!done) return done.error();
    return fd;
  }
  // Events go to `callback` instead of next_event(), on a thread of this session's own; an empty
  // one goes back to the queue. TANDEM_ERROR_BUSY while a request runs, and from the callback
  // itself.
  using EventFunction = std::function<void(const Event&)>;
  Expected<> set_callback(EventFunction callback) {
    auto kept = std::make_unique<EventFunction>(std::move(callback));
    tandem_event_fn forward = nullptr;
    if (*kept) {
      forward = [](void* user, const tandem_event* event) {
        (*static_cast<const EventFunction*>(user))(*event);
      };
    }
    auto done = detail::call(tandem_session_set_callback, handle_.get(), forward,
                             static_cast<void*>(kept.get()));
    if (done) handle_.get_deleter().kept.callback = std::move(kept);
    return done;
  }
  void cancel() { tandem_session_cancel(handle_.get()); }

  // visit(index, logits) for each token, on the calling thread; false stops. Blocks.
  using LogitsFunction = std::function<bool(size_t, std::span<const float>)>;
  Expected<> evaluate(std::span<const int32_t> tokens, const LogitsFunction& visit = {}) {
    const auto forward = [](void* user, size_t index, const float* logits, size_t n_vocabulary) {
      const auto& function = *static_cast<const LogitsFunction*>(user);
      return function(index, std::span(logits, n_vocabulary)) ? 0 : 1;
    };
    tandem_logits_fn callback = nullptr;
    if (visit) callback = forward;
    return detail::call(tandem_session_evaluate, handle_.get(), tokens.data(), tokens.size(),
                        callback, static_cast<void*>(const_cast<LogitsFunction*>(&visit)));
  }

  Expected<std::vector<int32_t>> tokens() const {
    std::vector<int32_t> tokens;
    size_t n_tokens = 0;
    for (int round = 0; round < 2; ++round) {
      auto done = detail::call(tandem_session_get_tokens, handle_.get(), tokens.data(),
                               tokens.size(), &n_tokens);
      if (!done) return done.error();
      tokens.resize(n_tokens);
    }
    return tokens;
  }
  Expected<> truncate(size_t n_tokens) {
    return detail::call(tandem_session_truncate, handle_.get(), n_tokens);
  }
  Expected<Session> fork() {
    tandem_session* handle = nullptr;
    auto done = detail::call(tandem_session_fork, handle_.get(), &handle);
    if (!done) return done.error();
    return Session({handle, {{handle_.get_deleter().kept.engine, nullptr}}});
  }
  Expected<> save(const std::string& path) {
    return detail::call(tandem_session_save, handle_.get(), path.c_str());
  }
  Expected<> load(const std::string& path) {
    return detail::call(tandem_session_load, handle_.get(), path.c_str());
  }
  Expected<tandem_session_info> info() const {
    auto info = make<tandem_session_info>();
    auto done = detail::call(tandem_session_get_info, handle_.get(), &info);
    if (!done) return done.error();
    return info;
  }

 private:
  struct Kept {
    Engine::Options engine;
    std::unique_ptr<EventFunction> callback;
  };
  using Handle = std::unique_ptr<tandem_session, detail::FreerKeeping<tandem_session_free, Kept>>;
  explicit Session(Handle handle) : handle_(std::move(handle)) {}

  Expected<> submit(tandem_request& request, const AnswerOptions& options) {
    std::vector<const char*> stop;
    for (const std::string& text : options.stop) stop.push_back(text.c_str());
    request.stop = stop.data();
    request.n_stop = stop.size();
    request.sampling = options.sampling ? &*options.sampling : nullptr;
    request.max_tokens = options.max_tokens;
    request.parse_special = options.parse_special;
    request.no_bos = options.no_bos;
    request.ignore_end = options.ignore_end;
    return detail::call(tandem_session_submit, handle_.get(),
                        static_cast<const tandem_request*>(&request));
  }

  Handle handle_;
};

// Measures how fast this machine reads memory; keeps its buffers between measurements.
//
// Threading: one caller at a time. Errors: create() when its two buffers do not fit; 0 bytes lets it choose for this
// machine's caches.
class Bandwidth {
 public:
  static Expected<Bandwidth> create(unsigned n_threads = 0, uint64_t buffer_bytes = 0,
                                    Cancel* cancel = nullptr) {
    tandem_bandwidth* handle = nullptr;
    auto done = detail::call(tandem_bandwidth_create, n_threads, buffer_bytes,
                             cancel != nullptr ? cancel->get() : nullptr, &handle);
    if (!done) return done.error();
    return Bandwidth(handle);
  }
  Expected<double> gb_per_s(Cancel* cancel = nullptr) {
    double rate = 0;
    auto done = detail::call(tandem_bandwidth_measure, handle_.get(),
                             cancel != nullptr ? cancel->get() : nullptr, &rate);
    if (!done) return done.error();
    return rate;
  }

 private:
  explicit Bandwidth(tandem_bandwidth* handle) : handle_(handle) {}
  std::unique_ptr<tandem_bandwidth, detail::Freer<tandem_bandwidth_free>> handle_;
};

inline Expected<std::string> machine_json() {
  char* text = nullptr;
  auto done = detail::call(tandem_machine_json, &text);
  if (!done) return done.error();
  return detail::take_string(text);
}

struct SynthOptions {
  std::string like;
  std::string type;       // empty: "q4_k"
  uint32_t n_layers = 0;  // 0: as the original
  uint64_t seed = 0;
  ProgressFunction progress;
  Cancel* cancel = nullptr;
};

// Writes a model with random weights and a public model's shape; see tandem_synthesize.
inline Expected<> synthesize(const std::string& output_path, const SynthOptions& options) {
  auto c_options = make<tandem_synth_options>();
  c_options.like = options.like.empty() ? nullptr : options.like.c_str();
  c_options.type = options.type.empty() ? nullptr : options.type.c_str();
  c_options.n_layers = options.n_layers;
  c_options.seed = options.seed;
  c_options.cancel = options.cancel != nullptr ? options.cancel->get() : nullptr;
  if (options.progress) {
    c_options.progress = [](void* user, const tandem_progress* progress) {
      (*static_cast<const ProgressFunction*>(user))(*progress);
    };
    c_options.progress_user = const_cast<ProgressFunction*>(&options.progress);
  }
  return detail::call(tandem_synthesize, output_path.c_str(),
                      static_cast<const tandem_synth_options*>(&c_options));
}

}  // namespace tandem::api

#endif  // TANDEM_TANDEM_HPP
