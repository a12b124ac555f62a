#pragma once

// What a forked child inherits: locks that nobody holds, models that are idle or known not to be,
// and no team of OpenMP threads that is not there any more. Done in the forking thread, with or
// without the GIL; nobody who holds one of these locks waits for the GIL.

#include <mutex>

namespace aoti {

// Held around `AotiEngine::open`. libtorch parses metadata into a function-local static then: eight
// threads doing it at once crash (pytorch PR 194128). A fork takes the lock too, so that neither
// libtorch nor the dynamic loader is caught halfway.
std::mutex& construction_mutex() noexcept;

// Installs the handlers, once per process, before anything runs. Children inherit them.
void handle_forks() noexcept;

}  // namespace aoti
