// Messages for the host program.  The library prints nothing; it calls this if the host set it.
#pragma once

#include <functional>
#include <string_view>

namespace tandem {

enum class LogLevel : int { kDebug = 0, kInfo = 1, kNote = 2, kWarning = 3 };

// May be called from any thread of the engine, never two at once for one engine.  Must not call
// back into the engine.  An empty function drops everything.
using LogCallback = std::function<void(LogLevel, std::string_view message)>;

}  // namespace tandem
