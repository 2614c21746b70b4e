/* begin: the functions that follow are compiled for ATTNC_ENABLE, e.g. "avx2,fma", whatever the
 * command line says; end.h ends it. Intrinsics headers come first: they need no target of their
 * own. */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#define ATTNC_STRING(x) #x
#define ATTNC_PRAGMA(x) _Pragma(ATTNC_STRING(x))
#if defined(__clang__)
ATTNC_PRAGMA(clang attribute push(__attribute__((target(ATTNC_ENABLE))), apply_to = function))
#else
#pragma GCC push_options
ATTNC_PRAGMA(GCC target(ATTNC_ENABLE))
#endif
