// The instruction sets this build and this machine have, for tests that run each of them.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels_cpu/dispatch.h"

namespace tandem::cpu::testing {

inline std::vector<const KernelTable*> all_tables() {
  std::vector<const KernelTable*> tables;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512, Isa::kAmx})
    if (const KernelTable* table = table_for(isa)) tables.push_back(table);
  return tables;
}

// A fixture whose tests run once per instruction set.
class KernelTest : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kernels() const { return *GetParam(); }
};

inline std::string isa_of(const ::testing::TestParamInfo<const KernelTable*>& info) {
  return info.param->isa;
}

}  // namespace tandem::cpu::testing

#define TANDEM_FOR_EVERY_ISA(fixture)                                                 \
  INSTANTIATE_TEST_SUITE_P(Isa, fixture,                                              \
                           ::testing::ValuesIn(::tandem::cpu::testing::all_tables()), \
                           ::tandem::cpu::testing::isa_of)
