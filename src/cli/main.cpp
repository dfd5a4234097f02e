#include <exception>
#include <new>

#include "commands.h"
#include "interrupts.h"

int main(int argc, char** argv) {
  using namespace tandem::cli;
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
