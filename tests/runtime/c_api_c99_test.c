/* The whole life of a conversation through the C API, as a C99 program: compiled with -std=c99 and
 * every warning an error.  Usage: c_api_c99_test MODEL FOLDER.  Prints what failed; exits with 1
 * then. */
#define _POSIX_C_SOURCE 200809L /* poll; the header itself needs nothing beyond C99 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/c.h"

#define MAX_TOKENS 64

static void check(int good, const char* what, tandem_error* error) {
  if (good) return;
  fprintf(stderr, "failed: %s: %s\n", what, error != NULL ? error->text : "");
  exit(1);
}
#define CHECK(call) check((call) == TANDEM_OK, #call, error)
#define REQUIRE(condition) check((condition), #condition, NULL)

static int take_until_done(tandem_session* session, int fd, int32_t* tokens,
                           uint64_t* n_evaluated) {
  tandem_error* error = NULL;
  int n = 0;
  for (;;) {
    struct pollfd waiting;
    tandem_event event = TANDEM_INIT(tandem_event);
    waiting.fd = fd;
    waiting.events = POLLIN;
    waiting.revents = 0;
    REQUIRE(poll(&waiting, 1, 60000) == 1);
    CHECK(tandem_session_next_event(session, 0, &event, &error));
    REQUIRE(event.kind != TANDEM_EVENT_NONE);
    if (event.kind == TANDEM_EVENT_TOKEN) {
      REQUIRE(n < MAX_TOKENS);
      REQUIRE(event.log_probability <= 0);
      REQUIRE(strlen(event.text) == event.text_bytes);
      tokens[n++] = event.token;
    }
    if (event.kind == TANDEM_EVENT_DONE) {
      REQUIRE(event.finish == TANDEM_FINISH_LENGTH);
      REQUIRE(event.error == NULL);
      REQUIRE(event.n_generated == (uint64_t)n);
      *n_evaluated = event.n_prompt_evaluated;
      return n;
    }
  }
}

static int ask(tandem_model* model, tandem_session* session, const char* text, int32_t* tokens,
               uint64_t* n_evaluated) {
  tandem_error* error = NULL;
  tandem_sampling sampling = TANDEM_INIT(tandem_sampling);
  tandem_request request = TANDEM_INIT(tandem_request);
  int fd = -1;
  CHECK(tandem_model_default_sampling(model, &sampling, &error));
  sampling.seed = 7;
  request.text = text;
  request.text_bytes = strlen(text);
  request.max_tokens = 12;
  request.ignore_end = 1;
  request.sampling = &sampling;
  CHECK(tandem_session_event_fd(session, &fd, &error));
  CHECK(tandem_session_submit(session, &request, &error));
  return take_until_done(session, fd, tokens, n_evaluated);
}

static int count_rows(void* user, size_t index, const float* logits, size_t n_vocabulary) {
  size_t* n = (size_t*)user;
  REQUIRE(index == *n);
  REQUIRE(n_vocabulary > 0 && logits[0] == logits[0]);
  ++*n;
  return 0;
}

int main(int argc, char** argv) {
  static const char kText[] = "the sea and the sand";
  tandem_error* error = NULL;
  tandem_model* model = NULL;
  tandem_engine* engine = NULL;
  tandem_session *first = NULL, *second = NULL, *fork = NULL;
  tandem_engine_options options = TANDEM_INIT(tandem_engine_options);
  tandem_model_info info = TANDEM_INIT(tandem_model_info);
  int32_t ids[MAX_TOKENS], original[MAX_TOKENS], again[MAX_TOKENS];
  size_t n_ids = 0, n_rows = 0;
  uint64_t n_evaluated = 0;
  int n_original, n_again;
  char path[4096];
  char* text = NULL;

  REQUIRE(argc == 3);
  REQUIRE(strlen(argv[2]) < 4000);
  sprintf(path, "%s/c99.session", argv[2]);
  REQUIRE(strlen(tandem_version()) > 0);

  REQUIRE(tandem_model_open("/no/such/file", &model, &error) == TANDEM_ERROR_NOT_FOUND);
  REQUIRE(error != NULL && error->code == TANDEM_ERROR_NOT_FOUND && strlen(error->text) > 0);
  tandem_error_free(error);
  error = NULL;

  CHECK(tandem_model_open(argv[1], &model, &error));
  CHECK(tandem_model_get_info(model, &info, &error));
  REQUIRE(info.n_vocabulary > 0);
  CHECK(tandem_model_tokenize(model, kText, strlen(kText), NULL, ids, MAX_TOKENS, &n_ids, &error));
  REQUIRE(n_ids > 0 && n_ids <= MAX_TOKENS);
  CHECK(tandem_model_detokenize(model, ids, n_ids, 0, &text, NULL, &error));
  REQUIRE(strcmp(text, kText) == 0);
  tandem_string_free(text);

  options.n_threads = 2;
  options.n_context = 128;
  CHECK(tandem_engine_create(model, &options, &engine, &error));
  CHECK(tandem_session_create(engine, NULL, &first, &error));
  CHECK(tandem_session_create(engine, NULL, &second, &error));
  CHECK(tandem_session_evaluate(second, ids, n_ids, count_rows, &n_rows, &error));
  REQUIRE(n_rows == n_ids);

  /* A first turn, then the same second turn three times: by the session, by a fork and after saving
   * and loading. */
  ask(model, first, kText, original, &n_evaluated);
  REQUIRE(n_evaluated == n_ids);
  CHECK(tandem_session_save(first, path, &error));
  CHECK(tandem_session_fork(first, &fork, &error));
  n_original = ask(model, first, " and then", original, &n_evaluated);
  REQUIRE(n_evaluated < n_ids);
  n_again = ask(model, fork, " and then", again, &n_evaluated);
  REQUIRE(n_again == n_original && memcmp(again, original, sizeof(int32_t) * (size_t)n_again) == 0);
  CHECK(tandem_session_load(second, path, &error));
  n_again = ask(model, second, " and then", again, &n_evaluated);
  REQUIRE(n_again == n_original && memcmp(again, original, sizeof(int32_t) * (size_t)n_again) == 0);

  REQUIRE(remove(path) == 0);
  tandem_session_free(fork);
  tandem_session_free(second);
  tandem_session_free(first);
  tandem_engine_free(engine);
  tandem_model_free(model);
  return 0;
}
