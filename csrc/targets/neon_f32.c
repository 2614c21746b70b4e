/* neon, float: part of every AArch64, so no target is switched on */
#if defined(__aarch64__)
#define ATTNC_F32
#define ATTNC_ISA_NAME "neon"
#define ATTNC_TABLE attnc_neon_f32
#define ATTNC_SIMD_H "../simd/neon.h"
#include "../kernels/kernels.inc"
#endif
