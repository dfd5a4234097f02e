#include "kernels_cpu/dispatch.h"

#include <cstdlib>
#include <set>
#include <string>

#include "status_matchers.h"
#include "tests/kernels_cpu/tables.h"

namespace tandem::cpu {
namespace {

using ::tandem::testing::fails_with;
using ::tandem::testing::is_ok;
using ::testing::HasSubstr;

TEST(DispatchTest, ScalarIsAlwaysThereAndNamesItself) {
  ASSERT_NE(table_for(Isa::kScalar), nullptr);
  EXPECT_STREQ(table_for(Isa::kScalar)->isa, "scalar");
}

TEST(DispatchTest, ForcedSetIsTheOneThatIsGiven) {
  for (const KernelTable* table : testing::all_tables()) {
    const KernelTable* chosen = nullptr;
    ASSERT_THAT(choose(table->isa, &chosen), is_ok());
    EXPECT_EQ(chosen, table);
    EXPECT_STREQ(chosen->isa, table->isa);
  }
}

TEST(DispatchTest, EverySetHasItsOwnMatrixProducts) {
  std::set<const void*> functions;
  for (const KernelTable* table : testing::all_tables())
    functions.insert(reinterpret_cast<const void*>(table->q4_k.matmul));
  EXPECT_EQ(functions.size(), testing::all_tables().size());
}

TEST(DispatchTest, NothingForcedGivesTheBest) {
  for (const char* forced : {static_cast<const char*>(nullptr), ""}) {
    const KernelTable* chosen = nullptr;
    ASSERT_THAT(choose(forced, &chosen), is_ok());
    EXPECT_EQ(chosen, table_for(best_isa()));
    EXPECT_EQ(chosen, testing::all_tables().back());
  }
}

TEST(DispatchTest, UnknownNamesAreRefusedWithThoseThatExist) {
  for (const char* forced : {"sse9", "AVX2", "avx2 ", "avx51"}) {
    const KernelTable* chosen = nullptr;
    EXPECT_THAT(choose(forced, &chosen), fails_with(Code::kInvalidArgument, HasSubstr("scalar")));
    EXPECT_EQ(chosen, nullptr);
  }
}

#if defined(TANDEM_VECTOR_KERNELS)
// A misspelt name would only be slow.
TEST(DispatchTest, EverySetThatTheProcessorHasIsOffered) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  EXPECT_EQ(table_for(Isa::kAvx2) != nullptr, avx2);
  EXPECT_EQ(table_for(Isa::kAvx512) != nullptr, avx512);
}
#endif

TEST(DispatchTest, SetsThatAreMissingAreRefused) {
  int missing = 0;
  for (const auto& [isa, name] : {std::pair{Isa::kAvx2, "avx2"},
                                  {Isa::kAvxVnni, "avxvnni"},
                                  {Isa::kAvx512, "avx512"},
                                  {Isa::kAmx, "amx"}}) {
    if (table_for(isa) != nullptr) continue;
    ++missing;
    const KernelTable* chosen = nullptr;
    EXPECT_THAT(choose(name, &chosen), fails_with(Code::kUnsupported, HasSubstr(name)));
    EXPECT_EQ(chosen, nullptr);
  }
  if (missing == 0) GTEST_SKIP() << "this build and machine have every instruction set";
}

}  // namespace
}  // namespace tandem::cpu
