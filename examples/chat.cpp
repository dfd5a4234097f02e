// A chat in 60 lines of C++:  chat MODEL.gguf
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "tandem/tandem.hpp"

namespace api = tandem::api;

static int fail(const api::Error& error) {
  std::cerr << "error: " << error.text << "\n";
  if (!error.suggestion.empty()) std::cerr << "       " << error.suggestion << "\n";
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: chat MODEL.gguf\n";
    return 2;
  }
  auto model = api::Model::open(argv[1]);
  if (!model) return fail(model.error());
  auto engine = api::Engine::load(*model);
  if (!engine) return fail(engine.error());
  auto session = api::Session::create(*engine);
  if (!session) return fail(session.error());

  std::vector<api::Message> messages;
  std::string line;
  while (std::cerr << "> ", std::getline(std::cin, line)) {
    messages.push_back({"user", line});
    // All messages each time: the session evaluates only what it does not hold yet.
    if (auto started = session->submit(messages); !started) return fail(started.error());
    std::string answer;
    while (true) {
      auto event = session->next_event();
      if (!event) return fail(event.error());
      const std::string_view text = api::text_of(*event);
      std::cout << text << std::flush;
      answer += text;
      if (event->kind != TANDEM_EVENT_DONE) continue;
      if (event->finish == TANDEM_FINISH_ERROR)
        return fail(api::Error::copy_of(event->error, event->error->code));
      break;
    }
    std::cout << "\n";
    messages.push_back({"assistant", answer});
  }
  return 0;
}
