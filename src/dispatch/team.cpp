#include "dispatch/team.h"

#include <immintrin.h>  // _mm_pause, _mm_getcsr
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <string>
#include <system_error>

#include "base/thread.h"

namespace tandem {
namespace {

// Exceptions masked, round to nearest, denormals kept: what a new process has.
constexpr unsigned kDefaultFloatControl = 0x1F80;

// Restores the calling thread's floating-point environment.
class FloatEnvironment {
 public:
  FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(kDefaultFloatControl); }
  ~FloatEnvironment() { _mm_setcsr(saved_); }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  unsigned saved_;
};

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "a futex is a plain word");
static_assert(std::atomic<uint32_t>::is_always_lock_free);

// Spurious and interrupted returns are fine: callers look at the word again.
void futex_wait(const std::atomic<uint32_t>& word, uint32_t expected) {
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake_all(const std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

unsigned usable_processors() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    return static_cast<unsigned>(CPU_COUNT(&mask));
  }
  return std::thread::hardware_concurrency();
}

Status pin(pthread_t thread, int cpu) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(static_cast<size_t>(cpu), &mask);
  const int error = ::pthread_setaffinity_np(thread, sizeof(mask), &mask);
  if (error == 0) return ok_status();
  return status_from_errno(error, "pin a thread to processor " + std::to_string(cpu));
}

Status check(const Team::Options& options) {
  if (options.n_threads == 0 || options.n_threads > Team::kMaxThreads) {
    return invalid_argument("a team has 1 to " + std::to_string(Team::kMaxThreads) +
                            " threads, not " + std::to_string(options.n_threads));
  }
  if (!options.cpus.empty() && options.cpus.size() != options.n_threads) {
    return invalid_argument(std::to_string(options.cpus.size()) + " processors for " +
                            std::to_string(options.n_threads) + " threads");
  }
  for (int cpu : options.cpus) {
    if (cpu < 0 || cpu >= CPU_SETSIZE) {
      return invalid_argument("processor " + std::to_string(cpu) + " does not exist");
    }
  }
  if (options.spin && options.spin->count() < 0) return invalid_argument("negative spin time");
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<Team>> Team::create(const Options& options) {
  TANDEM_RETURN_IF_ERROR(check(options));
  const bool crowded = options.n_threads > usable_processors();
  const auto spin =
      options.spin.value_or(crowded ? std::chrono::microseconds(0) : Team::kDefaultSpin);
  std::unique_ptr<Team> team(new Team(options.n_threads, spin));
  TANDEM_RETURN_IF_ERROR(team->start_workers(options.cpus));
  return team;
}

Team::Team(unsigned n_threads, std::chrono::microseconds spin)
    : n_threads_(n_threads), spin_(spin), seats_(n_threads) {}

// Leaves the workers that did start waiting for the destructor.
Status Team::start_workers(const std::vector<int>& cpus) {
  const BlockedSignals blocked;
  workers_.reserve(n_threads_ - 1);
  for (unsigned i = 1; i < n_threads_; ++i) {
    try {
      workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error& error) {
      return out_of_memory("start thread " + std::to_string(i) + " of the team: " + error.what());
    }
    ::pthread_setname_np(workers_.back().native_handle(), ("tandem-" + std::to_string(i)).c_str());
    if (!cpus.empty()) TANDEM_RETURN_IF_ERROR(pin(workers_.back().native_handle(), cpus[i]));
  }
  return ok_status();
}

Team::~Team() {
  body_ = nullptr;
  open(start_, start_.value.load(std::memory_order_relaxed) + 1);
  for (std::thread& worker : workers_) worker.join();
}

void Team::work(unsigned thread_index) {
  _mm_setcsr(kDefaultFloatControl);
  for (uint32_t n_runs = 0;; ++n_runs) {
    wait_while(start_, n_runs);
    if (body_ == nullptr) return;
    body_(context_, thread_index);
    barrier(thread_index);
  }
}

void Team::run(Body body, void* context) {
  TANDEM_ASSERT(body != nullptr);
  [[maybe_unused]] const bool second = running_.exchange(true, std::memory_order_acquire);
  TANDEM_ASSERT(!second);
  const FloatEnvironment environment;
  body_ = body;
  context_ = context;
  if (n_threads_ > 1) open(start_, start_.value.load(std::memory_order_relaxed) + 1);
  body(context, 0);
  barrier(0);
  running_.store(false, std::memory_order_release);
}

// The last to arrive opens the gate for the others.  n_arrived_ is zero again before it does, and no
// thread can arrive at the next barrier before it has.
void Team::barrier(unsigned thread_index) {
  if (n_threads_ == 1) return;
  const uint32_t generation = seats_[thread_index].generation++;
  if (n_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads_) {
    n_arrived_.store(0, std::memory_order_relaxed);
    open(barrier_, generation + 1);
  } else {
    wait_while(barrier_, generation);
  }
}

// Sequentially consistent, as in wait_while(): either this thread sees the sleeper, or the sleeper
// sees the new value before it sleeps.  So the system call is made only when somebody sleeps.
void Team::open(Gate& gate, uint32_t value) {
  gate.value.store(value, std::memory_order_seq_cst);
  if (gate.n_sleepers.load(std::memory_order_seq_cst) != 0) futex_wake_all(gate.value);
}

void Team::wait_while(Gate& gate, uint32_t value) {
  if (!spin_while(gate, value)) return;
  gate.n_sleepers.fetch_add(1, std::memory_order_seq_cst);
  while (gate.value.load(std::memory_order_seq_cst) == value) futex_wait(gate.value, value);
  gate.n_sleepers.fetch_sub(1, std::memory_order_relaxed);
}

// Returns whether the value is still the same after the spin time.  The clock is read once in about
// two microseconds; it is no system call where the kernel's clock source is the processor's counter.
bool Team::spin_while(const Gate& gate, uint32_t value) const {
  constexpr int kPausesPerLook = 64;
  const auto changed = [&] { return gate.value.load(std::memory_order_acquire) != value; };
  if (changed()) return false;
  if (spin_.count() == 0) return true;
  const auto end = std::chrono::steady_clock::now() + spin_;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (changed()) return false;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return true;
}

}  // namespace tandem
