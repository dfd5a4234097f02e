// A program that knows nothing but the installed package.
#include <cstdio>
#include <tandem/tandem.hpp>

int main() {
  auto model = tandem::api::Model::open("/nowhere/model.gguf");
  std::printf("tandem %s: %s\n", tandem_version(), model ? "opened" : "not found");
  return model ? 1 : 0;
}
