// Matrix products of quantised weights with AVX-512 VNNI.  See tile_products.h.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_lanes.h"
#include "kernels_cpu/tile_products.h"

namespace tandem::cpu::avx512 {

void put_quantised_products(KernelTable& table) {
  Operators<Lanes, FormatQ4_0>::put_into(table.q4_0);
  Operators<Lanes, FormatQ8_0>::put_into(table.q8_0);
  Operators<Lanes, FormatQ4_K>::put_into(table.q4_k);
  Operators<Lanes, FormatQ6_K>::put_into(table.q6_k);
}

}  // namespace tandem::cpu::avx512
