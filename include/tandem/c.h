/* tandem's C API.  Compiles as C99 and as C++.
 *
 * Conventions
 *  1. Every call that can fail returns a tandem_code and takes `tandem_error** error` last.  On failure, if
 *     `error` is not NULL, *error becomes an object that the caller frees with tandem_error_free.  On success
 *     *error is not touched.  Outputs are written only on success unless stated.
 *  2. Every struct starts with `struct_bytes`, set by whoever makes it to sizeof the struct; fields past what the
 *     library or the caller knows are treated as zero.  TANDEM_INIT does it:  tandem_request r = TANDEM_INIT(tandem_request);
 *     In options a zero means "the default", which is written beside the field.  Elements of an array all have the
 *     size of the first one, which is the distance between them.  A struct inside a struct is a pointer.
 *  3. Strings are UTF-8 and zero-terminated unless a length stands beside them.  A `const char*` in a struct
 *     filled by the library belongs to the object named in its comment.  What a call returns through
 *     `char**` is freed with tandem_string_free.
 *  4. Objects are opaque and freed by tandem_<noun>_free, which takes NULL, in any order: an engine keeps its model
 *     alive, a session its engine.  So weights stay in memory until their engine and all its sessions are freed.
 *  5. Threads: a model and an engine may be used from any threads at once.  A session serves one caller at a time: a
 *     second one gets TANDEM_ERROR_BUSY.  tandem_session_cancel, tandem_session_next_event and
 *     tandem_session_event_fd may be called beside any other call of the same session.
 *  6. The library never prints, never ends the process, installs no signal handler, opens no network connection and
 *     leaves the host program's global state (signals, locale, oneTBB settings) alone.
 *  7. Callbacks run on threads of the library unless stated; they must not free the object that calls them.
 */
#ifndef TANDEM_C_H
#define TANDEM_C_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TANDEM_API __attribute__((visibility("default")))
#else
#define TANDEM_API
#endif

#ifdef __cplusplus
#define TANDEM_INIT(type)                          \
  [] {                                             \
    type tandem_init_value{};                      \
    tandem_init_value.struct_bytes = sizeof(type); \
    return tandem_init_value;                      \
  }()
#define TANDEM_NOEXCEPT noexcept
extern "C" {
#else
#define TANDEM_INIT(type) \
  { .struct_bytes = sizeof(type) }
#define TANDEM_NOEXCEPT
#endif

/* ---- Errors --------------------------------------------------------------------------------------------------- */

typedef enum tandem_code {
  TANDEM_OK = 0,
  TANDEM_ERROR_INVALID_ARGUMENT = 1,
  TANDEM_ERROR_NOT_FOUND = 2,
  TANDEM_ERROR_UNSUPPORTED = 3,
  TANDEM_ERROR_CORRUPT = 4,
  TANDEM_ERROR_IO = 5,
  TANDEM_ERROR_OUT_OF_MEMORY = 6,
  TANDEM_ERROR_DEVICE = 7,
  TANDEM_ERROR_DEVICE_LOST = 8,
  TANDEM_ERROR_CANCELLED = 9,
  TANDEM_ERROR_BUSY = 10,
  TANDEM_ERROR_INTERNAL = 11
} tandem_code;

#define TANDEM_NO_OFFSET UINT64_MAX

/* Upper limits of options; more is TANDEM_ERROR_INVALID_ARGUMENT. */
#define TANDEM_MOST_THREADS 1024
#define TANDEM_MOST_CONTEXT (1 << 27)       /* tokens */
#define TANDEM_MOST_REPEAT_LAST_N (1 << 20) /* tokens */

/* Strings belong to the error; those that do not apply are "". */
typedef struct tandem_error {
  size_t struct_bytes;
  tandem_code code;
  const char* text; /* what, where, expected and found */
  const char* file;
  const char* tensor;
  const char* suggestion; /* the smallest change that would help */
  uint64_t offset;        /* byte offset in `file`, or TANDEM_NO_OFFSET */
  uint64_t bytes_needed;  /* 0 where it does not apply */
  uint64_t bytes_available;
} tandem_error;

TANDEM_API void tandem_error_free(tandem_error* error) TANDEM_NOEXCEPT;
TANDEM_API void tandem_string_free(char* text) TANDEM_NOEXCEPT;
/* "corrupt", "out_of_memory", ...; "unknown" for other numbers. */
TANDEM_API const char* tandem_code_name(tandem_code code) TANDEM_NOEXCEPT;
/* "0.1.0" */
TANDEM_API const char* tandem_version(void) TANDEM_NOEXCEPT;

/* ---- Progress and cancelling of long calls ---------------------------------------------------------------------- */

typedef enum tandem_stage {
  TANDEM_STAGE_LOAD = 0,   /* bytes */
  TANDEM_STAGE_PROMPT = 1, /* tokens */
  TANDEM_STAGE_WRITE = 2,  /* bytes */
  TANDEM_STAGE_CHECK = 3,  /* bytes: loaded weights are looked through for what is no number */
  TANDEM_STAGE_COPY = 4,   /* bytes: to the memory of a device */
  TANDEM_STAGE_PACK = 5    /* bytes: of weights put into the order that the CPU's kernels read */
} tandem_stage;

typedef struct tandem_progress {
  size_t struct_bytes;
  tandem_stage stage;
  uint64_t done, total; /* total 0: unknown */
  double eta_seconds;   /* 0: unknown */
} tandem_progress;

/* At most ten calls per second, and always a last one. */
typedef void (*tandem_progress_fn)(void* user, const tandem_progress* progress);

/* A flag that ends the long call it was given to within 100 ms; triggered from any thread or signal handler. */
typedef struct tandem_cancel tandem_cancel;
TANDEM_API tandem_cancel* tandem_cancel_create(void) TANDEM_NOEXCEPT; /* NULL: out of memory */
TANDEM_API void tandem_cancel_trigger(tandem_cancel* cancel) TANDEM_NOEXCEPT;
TANDEM_API void tandem_cancel_reset(tandem_cancel* cancel) TANDEM_NOEXCEPT;
TANDEM_API void tandem_cancel_free(tandem_cancel* cancel) TANDEM_NOEXCEPT;

/* ---- Machine ------------------------------------------------------------------------------------------------------ */

/* This machine as a machine file (docs/machine-file.md). */
TANDEM_API tandem_code tandem_machine_json(char** json, tandem_error** error) TANDEM_NOEXCEPT;

/* Measures how fast this machine reads memory; keeps its buffers, so that a measurement can stand between runs. */
typedef struct tandem_bandwidth tandem_bandwidth;
/* n_threads 0: as an engine would use.  buffer_bytes 0: twice what the largest caches hold together, at least 512 MiB.
   Two such buffers are taken; when they do not fit in free memory, TANDEM_ERROR_OUT_OF_MEMORY tells the bytes needed and
   free before any is taken.  cancel may be NULL. */
TANDEM_API tandem_code tandem_bandwidth_create(unsigned n_threads, uint64_t buffer_bytes,
                                               tandem_cancel* cancel, tandem_bandwidth** out,
                                               tandem_error** error) TANDEM_NOEXCEPT;
/* The best of page sizes and prefetch in this measurement, in GB/s (1e9 bytes).  cancel may be NULL. */
TANDEM_API tandem_code tandem_bandwidth_measure(tandem_bandwidth* bandwidth, tandem_cancel* cancel,
                                                double* gb_per_s,
                                                tandem_error** error) TANDEM_NOEXCEPT;
TANDEM_API void tandem_bandwidth_free(tandem_bandwidth* bandwidth) TANDEM_NOEXCEPT;

/* ---- Model: the header of a file, its tokenizer and its chat template; no weights -------------------------------- */

typedef struct tandem_model tandem_model;

/* Strings belong to the model. */
typedef struct tandem_model_info {
  size_t struct_bytes;
  const char* name;         /* general.name, or the file's name */
  const char* architecture; /* "qwen3moe" */
  const char* type_name;    /* the format of most weights: "q4_k" */
  uint64_t file_bytes;      /* all parts */
  uint64_t weight_bytes;    /* as resident in memory */
  uint64_t n_parameters;
  uint64_t n_active_parameters; /* per token; equal to n_parameters where there are no experts */
  uint32_t n_vocabulary, n_layers, n_context_trained;
  uint32_t n_experts, n_experts_used; /* 0, 0 for dense models */
  int has_chat_template;
  const char*
      chat_template_error; /* why the file's template cannot be used; "" where it can, or there is none */
} tandem_model_info;

TANDEM_API tandem_code tandem_model_open(const char* path, tandem_model** out,
                                         tandem_error** error) TANDEM_NOEXCEPT;
TANDEM_API void tandem_model_free(tandem_model* model) TANDEM_NOEXCEPT;
TANDEM_API tandem_code tandem_model_get_info(const tandem_model* model, tandem_model_info* info,
                                             tandem_error** error) TANDEM_NOEXCEPT;
/* {"info":{...},"warnings":["..."],"metadata":{key: value or summary},"tensors":[{"name","type","shape","bytes","file","offset"}]} */
TANDEM_API tandem_code tandem_model_json(const tandem_model* model, char** json,
                                         tandem_error** error) TANDEM_NOEXCEPT;

typedef struct tandem_tokenize_options {
  size_t struct_bytes;
  int add_special;       /* the BOS/EOS tokens that the model wants; 0: none */
  int parse_special;     /* control tokens written in the text become tokens; 0: they stay text */
  tandem_cancel* cancel; /* may be NULL */
} tandem_tokenize_options;

/* Writes min(capacity, *n_tokens) ids; *n_tokens is the whole count, so capacity 0 counts.  options may be NULL. */
TANDEM_API tandem_code tandem_model_tokenize(const tandem_model* model, const char* text,
                                             size_t text_bytes,
                                             const tandem_tokenize_options* options,
                                             int32_t* tokens, size_t capacity, size_t* n_tokens,
                                             tandem_error** error) TANDEM_NOEXCEPT;
/* The text of tokens; control tokens are written out only when with_special is set.  *text_bytes may be NULL. */
TANDEM_API tandem_code tandem_model_detokenize(const tandem_model* model, const int32_t* tokens,
                                               size_t n_tokens, int with_special, char** text,
                                               size_t* text_bytes,
                                               tandem_error** error) TANDEM_NOEXCEPT;

typedef struct tandem_message {
  size_t struct_bytes;
  const char* role; /* "system", "user", "assistant" */
  const char* content;
} tandem_message;

/* Tokens of a conversation in the model's template, ready for an answer.  Fails with TANDEM_ERROR_UNSUPPORTED when the
 * model has no template.  cancel may be NULL. */
TANDEM_API tandem_code tandem_model_count_tokens(const tandem_model* model,
                                                 const tandem_message* messages, size_t n_messages,
                                                 tandem_cancel* cancel, size_t* n_tokens,
                                                 tandem_error** error) TANDEM_NOEXCEPT;
/* The conversation as text, for people to look at: control tokens of the template and of users look the same here. */
TANDEM_API tandem_code tandem_model_render(const tandem_model* model,
                                           const tandem_message* messages, size_t n_messages,
                                           char** text, tandem_error** error) TANDEM_NOEXCEPT;

/* Sampling.  The order: penalties, top-k, top-p, min-p, temperature.  A zero turns each of them off, so that
 * TANDEM_INIT and a temperature alone draw from all tokens; what the model recommends comes from
 * tandem_model_default_sampling. */
typedef struct tandem_sampling {
  size_t struct_bytes;
  float temperature;       /* 0: always the likeliest token */
  int32_t top_k;           /* 0: off */
  float top_p;             /* 0 or 1: off */
  float min_p;             /* 0: off */
  float repeat_penalty;    /* 0 or 1: off */
  float frequency_penalty; /* 0: off */
  float presence_penalty;  /* 0: off */
  int32_t
      repeat_last_n; /* how many tokens the penalties look back; 0: none, which turns them off */
  uint64_t seed;
} tandem_sampling;

/* What the model's file recommends, else temperature 0.7, top-k 40, top-p 0.95, min-p 0.05, no penalties; seed 0. */
TANDEM_API tandem_code tandem_model_default_sampling(const tandem_model* model,
                                                     tandem_sampling* sampling,
                                                     tandem_error** error) TANDEM_NOEXCEPT;

/* ---- Engine: a model's weights in memory and the threads that compute ------------------------------------------- */

typedef struct tandem_engine tandem_engine;

typedef enum tandem_read_mode {
  TANDEM_READ_AUTO = 0,
  TANDEM_READ_BUFFERED = 1,
  TANDEM_READ_DIRECT = 2
} tandem_read_mode;
typedef enum tandem_kv_type {
  TANDEM_KV_F16 = 0,
  TANDEM_KV_F32 = 1,
  TANDEM_KV_Q8_0 = 2 /* 8.5 bits for each value; for heads whose width is a multiple of 32 */
} tandem_kv_type;

typedef enum tandem_log_level {
  TANDEM_LOG_DEBUG = 0,
  TANDEM_LOG_INFO = 1,
  TANDEM_LOG_NOTE = 2,
  TANDEM_LOG_WARNING = 3
} tandem_log_level;
typedef void (*tandem_log_fn)(void* user, tandem_log_level level, const char* text);

typedef struct tandem_engine_options {
  size_t struct_bytes;
  uint32_t n_threads; /* 0: one per physical core that this process may use */
  uint32_t
      n_context; /* context that must fit beside the weights; 0: as trained, limited by free memory */
  tandem_read_mode read_mode;  /* auto: buffered when the page cache holds the file, else direct */
  tandem_kv_type kv_type;      /* f16 */
  int force;                   /* load although the numbers say it does not fit */
  tandem_progress_fn progress; /* called on the thread that loads */
  void* progress_user;
  tandem_cancel* cancel; /* may be NULL; must outlive the call */
  tandem_log_fn
      log; /* notes about fallbacks, until the engine and its sessions are freed; may be NULL */
  void* log_user;
  /* A second processor: "none" (NULL), "auto", "cuda", "cuda:1", or "mirror:vram=4GiB,link=12GB/s,...", which stands in
   * for one with memory and threads of this computer. */
  const char* device;
  const char*
      gpu_layers; /* how many layers it takes, from the last one down: "auto" (NULL: as many as fit), "all", "12" */
  const char* cpu_experts; /* of how many layers the experts stay in RAM: "0" (NULL), "all", "12" */
  int no_expert_cache;     /* nonzero: no copies of experts in what is left of its memory */
  /* nonzero: chosen experts that it lacks are copied to it, as far as there is room, before it goes on; else the CPU
   * computes them at the same time, and in prompts some are copied where predicted times say that this is sooner. */
  int no_split;
  const char*
      place_file; /* JSON that says for patterns of blocks where they lie; goes before the two above */
  /* How many records of what tasks took are kept of each lane, the newest, for tandem_engine_write_trace; each lane takes
   * 64 bytes for each.  0: nothing is measured. */
  uint32_t trace_records;
  const char*
      device_memory; /* how much of the device's memory may be used: "6GiB"; NULL: what is free */
} tandem_engine_options;

/* What a tier holds, in bytes. */
typedef struct tandem_tier_report {
  size_t struct_bytes;
  const char* name;      /* "RAM", or the device's; the engine's */
  uint64_t free_bytes;   /* what this process may still take */
  uint64_t weight_bytes; /* huge_page_bytes of them in huge pages */
  uint64_t kv_bytes;     /* that sessions have filled */
  uint64_t work_bytes;
  uint64_t huge_page_bytes;
  uint64_t kv_reserved_bytes; /* that sessions have or may come to take: their whole contexts */
  /* The cache of experts in a device's memory: how many it has room for now, while the context takes what it takes, and how
   * often a chosen one was there or not. */
  uint64_t n_expert_slots, expert_hits, expert_misses;
  uint64_t
      budget_bytes; /* of a device's memory what may be used; 0: of RAM there is no such number */
} tandem_tier_report;

/* Loads the weights; blocks until done.  options may be NULL.
 * Errors: TANDEM_ERROR_OUT_OF_MEMORY before anything is loaded, with bytes needed and available, unless `force`. */
TANDEM_API tandem_code tandem_engine_create(const tandem_model* model,
                                            const tandem_engine_options* options,
                                            tandem_engine** out,
                                            tandem_error** error) TANDEM_NOEXCEPT;
TANDEM_API void tandem_engine_free(tandem_engine* engine) TANDEM_NOEXCEPT;

/* Strings belong to the engine. */
typedef struct tandem_engine_info {
  size_t struct_bytes;
  uint32_t n_threads;
  uint32_t n_context;    /* the context of sessions that do not ask for another */
  const char* isa;       /* kernels in use: "scalar", "avx2", "avx512" */
  const char* read_mode; /* how the weights were read and why */
  double load_seconds;
  uint64_t bytes_per_token; /* weights read from memory for one decoded token */
  const char* device;       /* the second processor's name; "" without one */
  const char* plan;         /* "all in RAM", "12 of 16 layers on mirror" */
} tandem_engine_info;
TANDEM_API tandem_code tandem_engine_get_info(const tandem_engine* engine, tandem_engine_info* info,
                                              tandem_error** error) TANDEM_NOEXCEPT;

/* Fills up to capacity reports; *n_tiers is the whole count. */
TANDEM_API tandem_code tandem_engine_get_memory(const tandem_engine* engine,
                                                tandem_tier_report* tiers, size_t capacity,
                                                size_t* n_tiers,
                                                tandem_error** error) TANDEM_NOEXCEPT;

/* How much of the device's memory may be used from the next step on, while sessions compute or not; 0: as much as at first.
 * Any thread.  Copies of experts and pages of keys and values make room, a few per step, and come back; what else is there
 * stays, so that what is used may remain above a budget that is too small.  Answers do not depend on it.
 * Errors: TANDEM_ERROR_INVALID_ARGUMENT without a device. */
TANDEM_API tandem_code tandem_engine_set_device_memory(tandem_engine* engine, uint64_t bytes,
                                                       tandem_error** error) TANDEM_NOEXCEPT;

/* Where everything lies, as a place file that gives the same placement; "" without a device. */
TANDEM_API tandem_code tandem_engine_placement(const tandem_engine* engine, char** json,
                                               tandem_error** error) TANDEM_NOEXCEPT;

/* What one lane of the steps that were computed did.  Times are of the records that are kept. */
typedef struct tandem_lane_report {
  size_t struct_bytes;
  const char* name; /* "step", "cpu", "device", "link up", "link down"; static */
  uint64_t n_records;
  double busy_seconds;   /* that its records cover */
  double window_seconds; /* from the first record of any lane to the last */
  int is_critical;       /* the busiest; "step", which spans the others, never is */
} tandem_lane_report;

/* For engines made with options.trace_records; else TANDEM_ERROR_INVALID_ARGUMENT.  Any thread; a step that runs is not in
 * there yet. */
/* Fills up to capacity reports of the lanes that have records; *n_lanes is the whole count. */
TANDEM_API tandem_code tandem_engine_get_lanes(const tandem_engine* engine,
                                               tandem_lane_report* lanes, size_t capacity,
                                               size_t* n_lanes,
                                               tandem_error** error) TANDEM_NOEXCEPT;
/* Critical lane, idle time of each, worst predictions: a few lines for people. */
TANDEM_API tandem_code tandem_engine_trace_text(const tandem_engine* engine, char** text,
                                                tandem_error** error) TANDEM_NOEXCEPT;
/* Every record, with what was predicted for it, as JSON that ui.perfetto.dev and chrome://tracing show.  Atomic: the old
 * file or the new one. */
TANDEM_API tandem_code tandem_engine_write_trace(const tandem_engine* engine, const char* path,
                                                 tandem_error** error) TANDEM_NOEXCEPT;
/* Forgets the records, not what was learned from them. */
TANDEM_API tandem_code tandem_engine_clear_trace(tandem_engine* engine,
                                                 tandem_error** error) TANDEM_NOEXCEPT;

/* ---- Session: one conversation ------------------------------------------------------------------------------------ */

typedef struct tandem_session tandem_session;

typedef struct tandem_session_options {
  size_t struct_bytes;
  uint32_t n_context;    /* 0: the engine's */
  uint32_t queue_events; /* events that may wait before the session pauses; 0: 256 */
} tandem_session_options;

/* Errors: TANDEM_ERROR_OUT_OF_MEMORY when the contexts of all sessions would not fit in what is free. */
TANDEM_API tandem_code tandem_session_create(tandem_engine* engine,
                                             const tandem_session_options* options,
                                             tandem_session** out,
                                             tandem_error** error) TANDEM_NOEXCEPT;
/* Cancels what runs, waits for it (under 100 ms) and frees; a callback still gets every event up to DONE.  Not from
 * this session's own callbacks. */
TANDEM_API void tandem_session_free(tandem_session* session) TANDEM_NOEXCEPT;

/* What to continue from: exactly one of messages, text and tokens.
 *  messages: the whole conversation so far, in the model's template.  Only what differs from what the session already
 *            holds is evaluated; user text never becomes a control token.
 *  text:     appended to what the session holds, without a template; control tokens are parsed if parse_special.
 *  tokens:   appended as they are.
 * All of it is copied before the call returns. */
typedef struct tandem_request {
  size_t struct_bytes;
  const tandem_message* messages;
  size_t n_messages;
  const char* text;
  size_t text_bytes;
  const int32_t* tokens;
  size_t n_tokens;
  int parse_special;
  int no_bos; /* with text: leave out the tokens that the model wants at the start of a context */
  int ignore_end;                  /* go on past end-of-answer tokens (benchmarks) */
  uint32_t max_tokens;             /* 0: until the answer ends or the context is full */
  const tandem_sampling* sampling; /* NULL: tandem_model_default_sampling */
  const char* const* stop;         /* the answer ends before any of these texts */
  size_t n_stop;
} tandem_request;

/* Starts the request and returns at once; its events follow. TANDEM_ERROR_BUSY while another one runs. */
TANDEM_API tandem_code tandem_session_submit(tandem_session* session, const tandem_request* request,
                                             tandem_error** error) TANDEM_NOEXCEPT;

typedef enum tandem_event_kind {
  TANDEM_EVENT_NONE = 0,     /* the time-out passed */
  TANDEM_EVENT_PROGRESS = 1, /* the prompt is being processed */
  TANDEM_EVENT_TOKEN = 2, /* one token was chosen; its text may be empty while bytes are withheld */
  TANDEM_EVENT_DONE = 3   /* the request has ended; always the last event of a request */
} tandem_event_kind;

typedef enum tandem_finish {
  TANDEM_FINISH_NONE = 0,
  TANDEM_FINISH_END = 1,     /* the model ended its answer */
  TANDEM_FINISH_STOP = 2,    /* a stop text appeared */
  TANDEM_FINISH_LENGTH = 3,  /* max_tokens */
  TANDEM_FINISH_CONTEXT = 4, /* the context is full */
  TANDEM_FINISH_CANCELLED = 5,
  TANDEM_FINISH_ERROR = 6
} tandem_finish;

/* Pointers belong to the session and last until the next tandem_session_next_event, or until the callback returns. */
typedef struct tandem_event {
  size_t struct_bytes;
  tandem_event_kind kind;
  const char* text; /* TOKEN and DONE: whole UTF-8 characters, may be "" */
  size_t text_bytes;
  int32_t token;                   /* TOKEN */
  float log_probability;           /* TOKEN: natural logarithm, before temperature and filters */
  const tandem_progress* progress; /* PROGRESS, else NULL */
  /* DONE: */
  tandem_finish finish;
  const tandem_error* error; /* with TANDEM_FINISH_ERROR, else NULL */
  uint64_t n_prompt_tokens;  /* in the prompt, whether evaluated now or kept from before */
  uint64_t n_prompt_evaluated;
  uint64_t n_generated;
  uint64_t n_kept; /* tokens that the session holds now */
  double prompt_seconds, generate_seconds;
  uint64_t seed; /* that was used */
} tandem_event;

/* Waits up to timeout_ms (-1: for ever, 0: not at all) for the next event; kind NONE when there is none. One consumer at a time. */
TANDEM_API tandem_code tandem_session_next_event(tandem_session* session, int timeout_ms,
                                                 tandem_event* event,
                                                 tandem_error** error) TANDEM_NOEXCEPT;
/* A descriptor that is readable while events wait, for poll() and event loops; owned by the session, never read it. */
TANDEM_API tandem_code tandem_session_event_fd(tandem_session* session, int* fd,
                                               tandem_error** error) TANDEM_NOEXCEPT;
/* Events go to `callback` instead of the queue, on a thread of this session's own; NULL goes back to the queue.
 * TANDEM_ERROR_BUSY while a request runs or a thread waits in tandem_session_next_event.  After an error events go to the
 * queue. */
typedef void (*tandem_event_fn)(void* user, const tandem_event* event);
TANDEM_API tandem_code tandem_session_set_callback(tandem_session* session,
                                                   tandem_event_fn callback, void* user,
                                                   tandem_error** error) TANDEM_NOEXCEPT;
/* Ends the running request within 100 ms, in any phase; its DONE event says how many tokens were kept.  From any
 * thread; nothing happens when nothing runs. */
TANDEM_API void tandem_session_cancel(tandem_session* session) TANDEM_NOEXCEPT;

/* Evaluates tokens after what the session holds and gives the logits of each, in order, on the calling thread: logits
 * [n_vocabulary], valid during the call.  A result other than 0 stops: TANDEM_ERROR_CANCELLED, and the session holds the
 * tokens up to that one.  callback may be NULL; it may use other sessions.  Blocks. */
typedef int (*tandem_logits_fn)(void* user, size_t index, const float* logits, size_t n_vocabulary);
TANDEM_API tandem_code tandem_session_evaluate(tandem_session* session, const int32_t* tokens,
                                               size_t n_tokens, tandem_logits_fn callback,
                                               void* user, tandem_error** error) TANDEM_NOEXCEPT;

/* The tokens that the session holds; capacity 0 counts. */
TANDEM_API tandem_code tandem_session_get_tokens(const tandem_session* session, int32_t* tokens,
                                                 size_t capacity, size_t* n_tokens,
                                                 tandem_error** error) TANDEM_NOEXCEPT;
/* Forgets all but the first n_tokens.  Requires n_tokens <= held. */
TANDEM_API tandem_code tandem_session_truncate(tandem_session* session, size_t n_tokens,
                                               tandem_error** error) TANDEM_NOEXCEPT;
/* A second session of the same engine that holds the same tokens.  TANDEM_ERROR_OUT_OF_MEMORY as for a new one. */
TANDEM_API tandem_code tandem_session_fork(tandem_session* session, tandem_session** out,
                                           tandem_error** error) TANDEM_NOEXCEPT;
/* The whole state with the model's fingerprint, readable by its owner; atomic: the old file or the new one.  Loading replaces
 * what the session holds; another model's or a damaged file is refused and changes nothing.  The fingerprint covers the
 * header and a part of every tensor (of 4096, where there are more): a model that was trained, merged or quantised otherwise is another one; a few bytes
 * changed on purpose are not noticed. */
TANDEM_API tandem_code tandem_session_save(tandem_session* session, const char* path,
                                           tandem_error** error) TANDEM_NOEXCEPT;
TANDEM_API tandem_code tandem_session_load(tandem_session* session, const char* path,
                                           tandem_error** error) TANDEM_NOEXCEPT;

typedef struct tandem_session_info {
  size_t struct_bytes;
  uint32_t n_context;
  uint64_t n_tokens; /* held */
  uint64_t kv_bytes; /* reserved for the whole context */
} tandem_session_info;
TANDEM_API tandem_code tandem_session_get_info(const tandem_session* session,
                                               tandem_session_info* info,
                                               tandem_error** error) TANDEM_NOEXCEPT;

/* ---- Models with random weights, for measurements ------------------------------------------------------------------ */

typedef struct tandem_synth_options {
  size_t struct_bytes;
  const char* like;  /* "llama-3.2-1b", ...; NULL lists the names in the error's text */
  const char* type;  /* "q4_k" when NULL */
  uint32_t n_layers; /* 0: as the original */
  uint64_t seed;
  tandem_progress_fn progress;
  void* progress_user;
  tandem_cancel* cancel;
} tandem_synth_options;
TANDEM_API tandem_code tandem_synthesize(const char* output_path,
                                         const tandem_synth_options* options,
                                         tandem_error** error) TANDEM_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* TANDEM_C_H */
