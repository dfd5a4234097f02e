// Matrix products of quantised weights with AVX-VNNI.  See tile_products.h.
#define TANDEM_AVX_VNNI
#include "kernels_cpu/avx2_lanes.h"
#include "kernels_cpu/avxvnni.h"
#include "kernels_cpu/tile_products.h"

namespace tandem::cpu::avxvnni {

void put_quantised_products(KernelTable& table) {
  using avx2::Lanes;
  Operators<Lanes, FormatQ4_0>::put_into(table.q4_0);
  Operators<Lanes, FormatQ8_0>::put_into(table.q8_0);
  Operators<Lanes, FormatQ4_K>::put_into(table.q4_k);
  Operators<Lanes, FormatQ6_K>::put_into(table.q6_k);
}

}  // namespace tandem::cpu::avxvnni
