// What a mirror device is to look like.
//
// Threading and ownership: plain data.
// Errors: kInvalidArgument that quotes the field, what was expected and what stood there; those of reading the profile.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "device/operation.h"

namespace tandem::mirror {

// How long an operation of a timed mirror takes: fixed + rows * per_row + weight bytes / rate.
struct OperationTime {
  double fixed_us = 0;
  double ns_per_row = 0;
  double gb_per_s = 0;  // of weights; 0: they cost nothing
};

struct Profile {
  std::map<OpKind, OperationTime> times;  // those that are missing take no time
};

// {"version": 1, "operations": {"matmul": {"fixed_us": 5, "ns_per_row": 0, "gb_per_s": 400}, ...}}; names as
// operation_name() gives them.
Result<Profile> read_profile(std::string_view json);

// In which order streams go on.  All are orders that a real device may choose.
enum class Order : uint8_t {
  kThreads,  // each stream has a thread
  kLazy,  // as late as possible: only while a host thread waits, and then only what that needs next
  kRandom,  // one command at a time, of a stream chosen at random; some of them at every call
};

// What goes wrong, for tests; 0: nothing.  The n-th of its kind.
struct Faults {
  uint64_t allocation = 0, copy = 0, operation = 0;
  uint64_t submission = 0;  // refused, as nothing else is: by the call itself
  uint64_t lost_after_commands = 0;
};

struct MirrorOptions {
  uint64_t memory_bytes = uint64_t{4} << 30;
  double link_gb_per_s = 0;  // each way; 0: as fast as this machine copies
  double latency_us = 0;     // of each copy over the link
  bool timed = false;  // operations take the profile's time and leave stand-ins (timed_operation.h)
  Profile profile;
  Order order = Order::kThreads;
  uint64_t seed = 0;    // kRandom
  // Commands that a stream takes before it goes on, as cards take some thousand; 0: any number.  Who submits more waits a
  // second for it, then is refused: a card would let him wait for ever.
  uint64_t depth = 0;
  bool poison = false;  // memory is overwritten when it is given and when it is taken back
  Faults faults;
};

// "vram=4GiB,link=12GB/s,latency=10us,timed=FILE,order=threads|lazy|random:SEED,depth=N,poison", and for tests
// "fail-allocation=N,fail-copy=N,fail-operation=N,refuse=N,lost-after=N"; every part may be left out, none given twice.
Result<MirrorOptions> parse_mirror_options(std::string_view text);

}  // namespace tandem::mirror
