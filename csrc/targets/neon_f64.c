/* neon, double: part of every AArch64, so no target is switched on */
#if defined(__aarch64__)
#define ATTNC_ISA_NAME "neon"
#define ATTNC_TABLE attnc_neon_f64
#define ATTNC_SIMD_H "../simd/neon.h"
#include "../kernels/kernels.inc"
#endif
