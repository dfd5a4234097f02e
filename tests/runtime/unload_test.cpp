// The library as a plug-in's dependency: loaded, used and unloaded by a program that is not linked
// to it.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <tandem/c.h>

#include <chrono>
#include <thread>

namespace {

template <typename Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(library, name));
}

// oneTBB's threads outlive the call that started them; they need their code.
TEST(Unload, AfterWorkOnSeveralThreadsIsSafe) {
  for (int round = 0; round < 3; ++round) {
    void* library = ::dlopen(TANDEM_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(nullptr, library) << ::dlerror();
    tandem_model* model = nullptr;
    ASSERT_EQ(TANDEM_OK, symbol<decltype(tandem_model_open)>(library, "tandem_model_open")(
                             TANDEM_FIXTURES "/golden/qwen3moe.gguf", &model, nullptr));
    tandem_engine_options options = TANDEM_INIT(tandem_engine_options);
    options.n_threads = 2;
    tandem_engine* engine = nullptr;
    ASSERT_EQ(TANDEM_OK, symbol<decltype(tandem_engine_create)>(library, "tandem_engine_create")(
                             model, &options, &engine, nullptr));
    symbol<decltype(tandem_engine_free)>(library, "tandem_engine_free")(engine);
    symbol<decltype(tandem_model_free)>(library, "tandem_model_free")(model);
    EXPECT_EQ(0, ::dlclose(library));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace
