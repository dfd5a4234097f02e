// What the processor can do and the operating system lets programs use.  x86-64 only.
//
// Threading: any thread.  Errors: none.
#pragma once

namespace tandem::cpu {

bool has_avx2();    // AVX2, FMA, F16C
bool has_avx512();  // the above and AVX-512 F, BW, VL, DQ, VNNI

}  // namespace tandem::cpu
