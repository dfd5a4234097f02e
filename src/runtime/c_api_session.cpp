// Sessions of the C API.
#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/c_api.h"

namespace tandem::c_api {

// What a tandem_event points to beside its text.
struct EventParts {
  tandem_progress progress = {};
  tandem_error error = {};
};

}  // namespace tandem::c_api

struct tandem_session {
  tandem_session(std::shared_ptr<tandem::Engine> of, std::unique_ptr<tandem::Session> s)
      : engine(std::move(of)), session(std::move(s)) {}

  const std::shared_ptr<tandem::Engine> engine;  // first: the session refers to it

  // What the last event's pointers refer to; belongs to the Consumer.  (Callbacks refer to the event that they are
  // given.)
  tandem::Event event;
  tandem::c_api::EventParts event_parts;

  std::unique_ptr<tandem::Session> session;  // last: it goes first, with the thread that calls back
};

namespace tandem::c_api {
namespace {

Result<std::vector<std::string>> read_stop(const tandem_request& request) {
  std::vector<std::string> stop;
  if (request.n_stop > 0 && request.stop == nullptr)
    return invalid_argument("request.stop is NULL");
  for (size_t i = 0; i < request.n_stop; ++i) {
    if (request.stop[i] == nullptr)
      return invalid_argument("request.stop[" + std::to_string(i) + "] is NULL");
    stop.emplace_back(request.stop[i]);
  }
  return stop;
}

// Exactly one of messages, text and tokens; a count without its array counts as given, so that it
// is found missing.
Status read_prompt(const tandem_request& in, Request& out) {
  const bool messages = in.messages != nullptr || in.n_messages > 0;
  const bool text = in.text != nullptr || in.text_bytes > 0;
  const bool tokens = in.tokens != nullptr || in.n_tokens > 0;
  if (int{messages} + int{text} + int{tokens} != 1) {
    return invalid_argument("request has " +
                            std::to_string(int{messages} + int{text} + int{tokens}) +
                            " of messages, text and tokens, expected exactly one");
  }
  if (messages) {
    out.kind = Request::Kind::kMessages;
    TANDEM_ASSIGN_OR_RETURN(out.messages, read_messages(in.messages, in.n_messages));
    return ok_status();
  }
  if (text) {
    if (in.text == nullptr) return invalid_argument("request.text is NULL");
    out.kind = Request::Kind::kText;
    out.text.assign(in.text, in.text_bytes);
    return ok_status();
  }
  if (in.tokens == nullptr) return invalid_argument("request.tokens is NULL");
  out.kind = Request::Kind::kTokens;
  TANDEM_ASSIGN_OR_RETURN(out.tokens, read_tokens(in.tokens, in.n_tokens));
  return ok_status();
}

Result<Request> read_request(const Model& model, const tandem_request* request) {
  TANDEM_ASSIGN_OR_RETURN(const tandem_request in, read_struct(request, "request"));
  Request out;
  TANDEM_RETURN_IF_ERROR(read_prompt(in, out));
  out.parse_special = in.parse_special != 0;
  out.no_bos = in.no_bos != 0;
  out.ignore_end = in.ignore_end != 0;
  out.max_tokens = in.max_tokens;
  out.sampling = model.default_sampling();
  if (in.sampling != nullptr) {
    TANDEM_ASSIGN_OR_RETURN(out.sampling, read_sampling(in.sampling));
  }
  TANDEM_ASSIGN_OR_RETURN(out.stop, read_stop(in));
  return out;
}

Result<SessionOptions> read_options(const tandem_session_options* options) {
  TANDEM_ASSIGN_OR_RETURN(const tandem_session_options in, read_struct(options, "options"));
  constexpr uint32_t kMaxQueueEvents = 1u << 20;
  if (in.queue_events > kMaxQueueEvents) {
    return invalid_argument("options.queue_events is " + std::to_string(in.queue_events) +
                            ", expected at most " + std::to_string(kMaxQueueEvents));
  }
  SessionOptions out;
  out.n_context = in.n_context;
  if (in.queue_events > 0) out.queue_events = in.queue_events;
  return out;
}

// The pointers refer to `event` and `parts`.
tandem_event event_view(const Event& event, EventParts& parts) {
  tandem_event view = {};
  view.struct_bytes = sizeof(view);
  view.kind = static_cast<tandem_event_kind>(event.kind);
  view.text = "";
  if (event.kind == EventKind::kNone) return view;  // the rest of `event` is that of an earlier one
  view.text = event.text.c_str();
  view.text_bytes = event.text.size();
  view.token = event.token;
  view.log_probability = event.log_probability;
  if (event.kind == EventKind::kProgress) {
    parts.progress = progress_of(event.progress);
    view.progress = &parts.progress;
  }
  if (event.kind != EventKind::kDone) return view;
  view.finish = static_cast<tandem_finish>(event.finish);
  if (event.finish == Finish::kError) {
    parts.error = error_view(event.error);
    view.error = &parts.error;
  }
  view.n_prompt_tokens = event.n_prompt_tokens;
  view.n_prompt_evaluated = event.n_prompt_evaluated;
  view.n_generated = event.n_generated;
  view.n_kept = event.n_kept;
  view.prompt_seconds = event.prompt_seconds;
  view.generate_seconds = event.generate_seconds;
  view.seed = event.seed;
  return view;
}

}  // namespace
}  // namespace tandem::c_api

using namespace tandem;
using namespace tandem::c_api;

extern "C" {

tandem_code tandem_session_create(tandem_engine* engine, const tandem_session_options* options,
                                  tandem_session** out, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    TANDEM_REQUIRE_ARGUMENT(out);
    TANDEM_ASSIGN_OR_RETURN(const SessionOptions read, read_options(options));
    TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<Session> session,
                            Session::create(*engine->engine, read));
    *out = new tandem_session(engine->engine, std::move(session));
    return ok_status();
  });
}

void tandem_session_free(tandem_session* session) noexcept { delete session; }

tandem_code tandem_session_submit(tandem_session* session, const tandem_request* request,
                                  tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_REQUIRE_ARGUMENT(request);
    TANDEM_ASSIGN_OR_RETURN(Request read,
                            read_request(session->session->engine().model(), request));
    return session->session->submit(std::move(read));
  });
}

tandem_code tandem_session_next_event(tandem_session* session, int timeout_ms, tandem_event* event,
                                      tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_REQUIRE_ARGUMENT(event);
    TANDEM_RETURN_IF_ERROR(check_struct_bytes(event->struct_bytes, alignof(tandem_event), "event"));
    Session::Consumer consumer(*session->session);
    TANDEM_RETURN_IF_ERROR(consumer.status());
    consumer.next(timeout_ms, session->event);
    write_struct(event_view(session->event, session->event_parts), event);
    return ok_status();
  });
}

tandem_code tandem_session_event_fd(tandem_session* session, int* fd,
                                    tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_REQUIRE_ARGUMENT(fd);
    *fd = session->session->event_descriptor();
    return ok_status();
  });
}

tandem_code tandem_session_set_callback(tandem_session* session, tandem_event_fn callback,
                                        void* user, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    if (callback == nullptr) return session->session->set_callback({});
    return session->session->set_callback([callback, user](const Event& event) {
      EventParts parts;
      const tandem_event view = event_view(event, parts);
      callback(user, &view);
    });
  });
}

void tandem_session_cancel(tandem_session* session) noexcept {
  if (session != nullptr) session->session->cancel();
}

tandem_code tandem_session_evaluate(tandem_session* session, const int32_t* tokens, size_t n_tokens,
                                    tandem_logits_fn callback, void* user,
                                    tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_REQUIRE_ARGUMENT(tokens);
    LogitsCallback give;
    if (callback != nullptr) {
      give = [callback, user](size_t index, std::span<const float> logits) {
        return callback(user, index, logits.data(), logits.size());
      };
    }
    TANDEM_ASSIGN_OR_RETURN(std::vector<TokenId> read, read_tokens(tokens, n_tokens));
    return session->session->evaluate(std::move(read), std::move(give));
  });
}

tandem_code tandem_session_get_tokens(const tandem_session* session, int32_t* tokens,
                                      size_t capacity, size_t* n_tokens,
                                      tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_ASSIGN_OR_RETURN(const std::vector<TokenId> held, session->session->tokens());
    return give_tokens(held, tokens, capacity, n_tokens);
  });
}

tandem_code tandem_session_truncate(tandem_session* session, size_t n_tokens,
                                    tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    constexpr auto kMost = static_cast<size_t>(std::numeric_limits<int64_t>::max());
    return session->session->truncate(static_cast<int64_t>(std::min(n_tokens, kMost)));
  });
}

tandem_code tandem_session_fork(tandem_session* session, tandem_session** out,
                                tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_REQUIRE_ARGUMENT(out);
    TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<Session> copy, session->session->fork());
    *out = new tandem_session(session->engine, std::move(copy));
    return ok_status();
  });
}

tandem_code tandem_session_save(tandem_session* session, const char* path,
                                tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_REQUIRE_ARGUMENT(path);
    return session->session->save(path);
  });
}

tandem_code tandem_session_load(tandem_session* session, const char* path,
                                tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_REQUIRE_ARGUMENT(path);
    return session->session->load(path);
  });
}

tandem_code tandem_session_get_info(const tandem_session* session, tandem_session_info* info,
                                    tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(session);
    TANDEM_REQUIRE_ARGUMENT(info);
    const Session& from = *session->session;
    tandem_session_info filled = {};
    filled.struct_bytes = sizeof(filled);
    filled.n_context = static_cast<uint32_t>(from.n_context());
    filled.n_tokens = static_cast<uint64_t>(from.n_tokens());
    filled.kv_bytes = from.kv_bytes();
    return fill_struct(filled, info, "info");
  });
}

}  // extern "C"
