/* avx2, float */
#if defined(__x86_64__)
#define ATTNC_ENABLE "avx2,fma,f16c"
#include "begin.h"
#define ATTNC_F32
#define ATTNC_ISA_NAME "avx2"
#define ATTNC_TABLE attnc_avx2_f32
#define ATTNC_SIMD_H "../simd/avx2.h"
#include "../kernels/kernels.inc"
#include "end.h"
#endif
