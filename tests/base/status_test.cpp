#include "base/status.h"

#include <cerrno>

#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;

TEST(Status, DefaultIsOkAndHasNoText) {
  EXPECT_TRUE(Status().ok());
  EXPECT_EQ(Status().message(), "");
}

TEST(Status, DetailsAreKeptBesideTheMessage) {
  const Status status = corrupt("tensor too long").in_file("m.gguf").at_offset(24).in_tensor("w");
  EXPECT_THAT(status, fails_with(Code::kCorrupt, "tensor too long"));
  EXPECT_EQ(status.file(), "m.gguf");
  EXPECT_EQ(status.offset(), 24u);
  EXPECT_EQ(status.tensor(), "w");
}

TEST(Status, AddingADetailLeavesTheOriginalAlone) {
  const Status original = io_error("read");
  const Status detailed = original.with_bytes(10, 4);
  EXPECT_EQ(original.bytes_needed(), 0u);
  EXPECT_EQ(detailed.bytes_needed(), 10u);
  EXPECT_EQ(detailed.bytes_available(), 4u);
}

TEST(Status, OkStaysOkWhenADetailIsAdded) { EXPECT_TRUE(Status().in_file("x").ok()); }

TEST(Status, ErrnoKeepsItsMeaningAndText) {
  EXPECT_THAT(status_from_errno(ENOENT, "m.gguf"),
              fails_with(Code::kNotFound, HasSubstr("m.gguf: No such file")));
  EXPECT_EQ(status_from_errno(EIO, "x").code(), Code::kIo);
  EXPECT_EQ(status_from_errno(ENOMEM, "x").code(), Code::kOutOfMemory);
}

}  // namespace
}  // namespace tandem
