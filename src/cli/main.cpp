#include <fcntl.h>

#include <exception>
#include <new>

#include "commands.h"
#include "interrupts.h"

namespace {

// A program may be started with standard streams closed. The next file it opens would then take their numbers: a
// model could be read as what the user types, or written to as an answer. Opened for reading only, so that writing
// still fails.
void occupy_standard_streams() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDONLY) < 0) return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tandem::cli;
  occupy_standard_streams();
  interrupts::install();
  Console console;
  int code = kExitFailure;
  try {
    code = run_program(console, Arguments(argv + (argc > 0 ? 1 : 0), argv + argc));
  } catch (const std::bad_alloc&) {
    console.error("out of memory.");
  } catch (const std::exception& error) {
    console.error(error.what());
  }
  return console.finish(code);
}
