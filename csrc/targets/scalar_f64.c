/* scalar, double */
#define ATTNC_ISA_NAME "scalar"
#define ATTNC_TABLE attnc_scalar_f64
#define ATTNC_SIMD_H "../simd/scalar.h"
#include "../kernels/kernels.inc"
