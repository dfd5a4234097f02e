// Long texts, small stacks, many threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <chrono>
#include <functional>
#include <thread>

#include "status_matchers.h"
#include "text_fixtures.h"

namespace tandem {
namespace {

using testing::fixture_tokenizer;
using testing::is_ok;
using testing::kLongText;

constexpr const char* kVocabularies[] = {"gpt-2", "llama-bpe", "qwen2", "spm", "spm-no-prefix"};

std::string repeated(const std::string& unit, size_t n) {
  std::string text;
  text.reserve(unit.size() * n);
  for (size_t i = 0; i < n; ++i) text += unit;
  return text;
}

// As small as the system allows for a thread plus room for sanitizers; recursion per character would
// need a hundred times as much.
void run_on_a_small_stack(std::function<void()> work) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 * 1024), 0);
  pthread_t thread;
  const auto start = [](void* argument) -> void* {
    (*static_cast<std::function<void()>*>(argument))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, start, &work), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

TEST(TokenizerLimits, MillionEqualCharactersOnASmallStack) {
  const std::string units[] = {
      "a", " ", "\n", "7", "!", "\xCC\x81", "\xE4\xB8\xAD", "\xFF", std::string(1, '\0')};
  for (const char* name : kVocabularies) {
    const auto tokenizer = fixture_tokenizer(name);
    run_on_a_small_stack([&] {
      for (const std::string& unit : units) {
        const std::string text = repeated(unit, kLongText);
        const auto begin = std::chrono::steady_clock::now();
        auto ids = tokenizer->encode(text, {.parse_special = true});
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        ASSERT_THAT(ids, is_ok());
        // Measured 0.01 to 0.25 s; anything quadratic takes minutes.  The rest is for sanitizers.
        EXPECT_LT(took.count(), 20.0) << name << " " << unit;
        EXPECT_EQ(tokenizer->decode(*ids, true), text) << name << " " << unit;
      }
    });
  }
}

TEST(TokenizerLimits, SpecialTokensMadeToBeSlowAreNot) {
  auto data = testing::byte_vocabulary();
  for (size_t n = 2; n <= 300; ++n) {
    data.tokens.push_back(std::string(n, 'a') + "b");
    data.kinds.push_back(TokenKind::kUserDefined);
  }
  data.tokens.push_back(std::string(60000, 'a') + "c");
  data.kinds.push_back(TokenKind::kControl);
  auto tokenizer = Tokenizer::create(data);
  ASSERT_THAT(tokenizer, is_ok());
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_THAT((*tokenizer)->encode(repeated("a", kLongText), {.parse_special = true}), is_ok());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 20.0) << "text times the longest token would be 6e10 steps";
}

TEST(TokenizerLimits, ThreadsEncodeAtOnce) {
  const auto tokenizer = fixture_tokenizer("llama-bpe");
  const std::string text = repeated("The quick brown fox, 12345 times!\n  ", 200);
  const auto expected = tokenizer->encode(text, {});
  ASSERT_THAT(expected, is_ok());
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (size_t i = 0; i < same.size(); ++i) {
    threads.emplace_back([&, i] {
      const auto ids = tokenizer->encode(text, {});
      same[i] = ids.ok() && *ids == *expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(same, ::testing::Each(true));
}

}  // namespace
}  // namespace tandem
