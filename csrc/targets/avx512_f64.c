/* avx512, double */
#if defined(__x86_64__)
#define ATTNC_ENABLE "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"
#include "begin.h"
#define ATTNC_ISA_NAME "avx512"
#define ATTNC_TABLE attnc_avx512_f64
#define ATTNC_SIMD_H "../simd/avx512.h"
#include "../kernels/kernels.inc"
#include "end.h"
#endif
