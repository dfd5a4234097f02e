/* A chat in C99:  chat_c MODEL.gguf */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/c.h"

enum { MAX_MESSAGES = 200, MAX_BYTES = 1 << 16 };

static int fail(tandem_error* error) {
  fprintf(stderr, "error: %s\n       %s\n", error->text, error->suggestion);
  tandem_error_free(error);
  return 1;
}

static tandem_message message(const char* role, const char* text) {
  tandem_message result = TANDEM_INIT(tandem_message);
  char* copy = malloc(strlen(text) + 1);
  result.role = role;
  result.content = copy == NULL ? NULL : strcpy(copy, text);
  return result;
}

/* Prints the answer's pieces and collects them; 0 when the session fails. */
static int answer(tandem_session* session, char* text, tandem_error** error) {
  tandem_event event = TANDEM_INIT(tandem_event);
  size_t length = 0;
  do {
    if (tandem_session_next_event(session, -1, &event, error) != TANDEM_OK) return 0;
    if (event.text_bytes == 0 || length + event.text_bytes >= MAX_BYTES) continue;
    memcpy(text + length, event.text, event.text_bytes);
    fwrite(event.text, 1, event.text_bytes, stdout);
    fflush(stdout);
    length += event.text_bytes;
  } while (event.kind != TANDEM_EVENT_DONE);
  text[length] = '\0';
  puts(event.finish == TANDEM_FINISH_ERROR ? event.error->text : "");
  return 1;
}

int main(int argc, char** argv) {
  tandem_error* error = NULL;
  tandem_model* model = NULL;
  tandem_engine* engine = NULL;
  tandem_session* session = NULL;
  static tandem_message messages[MAX_MESSAGES];
  static char text[MAX_BYTES];
  size_t n = 0;
  if (argc != 2) return fprintf(stderr, "usage: chat_c MODEL.gguf\n"), 2;
  if (tandem_model_open(argv[1], &model, &error) != TANDEM_OK ||
      tandem_engine_create(model, NULL, &engine, &error) != TANDEM_OK ||
      tandem_session_create(engine, NULL, &session, &error) != TANDEM_OK) {
    return fail(error);
  }
  while (n + 2 <= MAX_MESSAGES && fputs("> ", stderr) >= 0 &&
         fgets(text, sizeof text, stdin) != NULL) {
    tandem_request request = TANDEM_INIT(tandem_request);
    text[strcspn(text, "\n")] = '\0';
    messages[n++] = message("user", text);
    /* All of them: the session evaluates only what it does not hold yet. */
    request.messages = messages;
    request.n_messages = n;
    if (tandem_session_submit(session, &request, &error) != TANDEM_OK) return fail(error);
    if (!answer(session, text, &error)) return fail(error);
    messages[n++] = message("assistant", text);
  }
  while (n > 0) free((char*)messages[--n].content);
  tandem_session_free(session);
  tandem_engine_free(engine);
  tandem_model_free(model);
  return 0;
}
