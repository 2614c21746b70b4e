/* scalar, float */
#define ATTNC_F32
#define ATTNC_ISA_NAME "scalar"
#define ATTNC_TABLE attnc_scalar_f32
#define ATTNC_SIMD_H "../simd/scalar.h"
#include "../kernels/kernels.inc"
