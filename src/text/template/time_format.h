// strftime() without a locale: English names, as Python prints them in the C locale.
#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "base/result.h"

namespace tandem::jinja {

// Errors: kUnsupported for a directive that is not known here, kInvalidArgument for a result over
// 4096 bytes.
Result<std::string> format_time(std::string_view format, const std::tm& time);

}  // namespace tandem::jinja
