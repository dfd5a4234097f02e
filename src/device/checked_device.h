// A Device whose every access is checked for order, whatever device is behind it.  For tests.
//
// Threading, errors: as the device behind it.  Ownership: owns it.
#pragma once

#include <memory>

#include "device/device.h"
#include "device/order_checker.h"

namespace tandem {

class CheckedDevice : public Device {
 public:
  virtual Status check(bool at_end = true) = 0;
  // The n-th wait from now on, of a stream or the host, is left out of what is checked, as if the runtime did not make
  // it.  0: none.  To see that it is missed.  (It is waited all the same: what a program does without, it may not
  // survive.)
  virtual void delete_wait(uint64_t nth) = 0;
  virtual uint64_t n_waits() const = 0;  // since delete_wait()
  // "the wait of stream 0 for flag 1": the one that was left out; "" if none was.
  virtual std::string deleted_wait() const = 0;
};

std::unique_ptr<CheckedDevice> check_order(std::unique_ptr<Device> device);

}  // namespace tandem
