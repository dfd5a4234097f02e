// Runs kernels on the host: blocks and the threads of their phases one after the other, in a chosen order.
#pragma once

#include "kernels_gpu/select.h"
#include "tests/kernels_gpu/case.h"

namespace tandem::gpu::testing {

struct Emulation {
  HostOrder order = HostOrder::kForward;
  uint32_t n_blocks = 3;

  uint32_t blocks() const { return n_blocks; }

  template <typename Kernel>
  Status run(Grid grid, const Arguments& a) const {
    const int64_t n = int64_t{grid.x} * grid.y;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t place = in_order(order, i, n);
      typename Kernel::Shared shared;
      std::memset(static_cast<void*>(&shared), 0xA5, sizeof shared);
      Kernel::run(Block<Kernel::kThreads>(place % grid.x, grid.x, place / grid.x, grid.y, order),
                  shared, a);
    }
    return ok_status();
  }
};

// What the kernel leaves in the case's image, addresses zeroed.
inline Result<std::vector<std::byte>> emulated_result(const Case& a_case,
                                                      const Emulation& emulation) {
  std::vector<std::byte> memory(a_case.image.size());
  const std::vector<std::byte> placed = a_case.image_at(memory.data());
  std::memcpy(memory.data(), placed.data(), placed.size());
  const Arguments a{a_case.op_at(memory.data()), a_case.constants};
  TANDEM_RETURN_IF_ERROR(check_operation(a));
  TANDEM_RETURN_IF_ERROR(is_product(a.op) ? select_product(emulation, a)
                                          : select_row_wise(emulation, a));
  clear_addresses(a_case, memory);
  return memory;
}

}  // namespace tandem::gpu::testing
