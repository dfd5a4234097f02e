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
  virtual uint64_t n_waits() const = 0;  // of streams and of the host, until now; without done()
  // "the wait of stream 0 for flag 1": the one that was left out; "" if none was.
  virtual std::string left_out_wait() const = 0;
};

// The n-th wait, of a stream or of the host, is not made: it is not passed on, and the host goes on at once.  0: none.
// kEveryPoll: done() says yes without asking.  To see that it is missed; whoever leaves one out may not survive it.
inline constexpr uint64_t kEveryPoll = UINT64_MAX;
std::unique_ptr<CheckedDevice> check_order(std::unique_ptr<Device> device,
                                           uint64_t left_out_wait = 0);

}  // namespace tandem
