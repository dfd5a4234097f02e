// Picks the kernels for this machine's processor.
//
// Threading: all functions may be called from any thread at once; the tables are constant.
// Ownership: the tables live as long as the program.
// Errors: choose() gives kInvalidArgument for a name that is none, and kUnsupported for an
// instruction set that this build or this processor lacks; both name what there is.
#pragma once

#include <string_view>

#include "base/dtype.h"
#include "base/status.h"
#include "kernels_cpu/kernels.h"

namespace tandem::cpu {

enum class Isa { kScalar, kAvx2, kAvxVnni, kAvx512, kAmx };

// As KernelTable::isa spells it.
std::string_view name_of(Isa isa);

// Null where this build or this processor (CPUID and the state the operating system saves, XGETBV)
// lacks it, or the system does not let this process use it (AMX).
const KernelTable* table_for(Isa isa);

// The last of the enum that table_for() knows.
Isa best_isa();

// Those of a quantised format; null for the others.
const KernelTable::Quantised* quantised_of(const KernelTable& kernels, DType type);

// forced: "scalar", "avx2", "avxvnni", "avx512", "amx"; null or empty takes the best.  Programs pass
// getenv("TANDEM_CPU_ISA").  *out is set only on success.
Status choose(const char* forced, const KernelTable** out);

}  // namespace tandem::cpu
