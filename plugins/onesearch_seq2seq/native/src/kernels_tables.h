// The tables of this build, one a file.
#pragma once

#include "kernels.h"

namespace onesearch {

extern const Kernels kPlain;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvxVnni;
extern const Kernels kAvx512;
extern const Kernels kAvx512Vnni;
#endif

}  // namespace onesearch
