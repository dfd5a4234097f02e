// Whether this process may use AMX.
//
// Linux saves tile registers for those processes only that asked: they make signal frames of all its
// threads 8 KiB larger.  A thread with a smaller alternate signal stack makes the system refuse.
#pragma once

namespace tandem::cpu {

// Asks the first time.  Any thread.  Requires: the processor has AMX and the system saves its state.
bool may_use_amx();

}  // namespace tandem::cpu
