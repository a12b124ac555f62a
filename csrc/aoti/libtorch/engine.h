#pragma once

// The libtorch engine: runs packages through libtorch's own package loader.

#include <aoti/engine/engine.h>

namespace aoti::libtorch {

// Lives as long as the process.
const AotiEngine* engine() noexcept;

}  // namespace aoti::libtorch
