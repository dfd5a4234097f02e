// kMatmul and kExpertMatmul, for every weight type.
#include "kernels_gpu/launcher.cuh"

namespace tandem::gpu {

Status launch_product(const LaunchTarget& target, const Operation& operation) {
  return select_product(CardLauncher{target}, Arguments{operation, *operation.constants});
}

Status load_products() { return select_all_products(Loader{}); }

}  // namespace tandem::gpu
