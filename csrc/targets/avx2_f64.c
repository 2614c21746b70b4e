/* avx2, double */
#if defined(__x86_64__)
#define ATTNC_ENABLE "avx2,fma"
#include "begin.h"
#define ATTNC_ISA_NAME "avx2"
#define ATTNC_TABLE attnc_avx2_f64
#define ATTNC_SIMD_H "../simd/avx2.h"
#include "../kernels/kernels.inc"
#include "end.h"
#endif
