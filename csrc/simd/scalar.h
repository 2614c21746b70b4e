/* scalar: plain C, one lane. Every other header defines the same names (README.md). */
#include <math.h>
#include <string.h>

typedef real vec;
typedef int vmask;
enum { LANES = 1, TILE_ROWS = 4, TILE_VECS = 4 };

#ifdef ATTNC_F32
typedef uint32_t real_bits;
enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127 };
#define ATTNC_ROUNDER 12582912.0f /* 1.5 * 2^23: adding it leaves no fraction bits */
#else
typedef uint64_t real_bits;
enum { MANTISSA_BITS = 52, EXPONENT_BIAS = 1023 };
#define ATTNC_ROUNDER 6755399441055744.0 /* 1.5 * 2^52 */
#endif

static inline vec v_load(const real *p) { return *p; }
static inline void v_store(real *p, vec x) { *p = x; }
static inline vec v_load_n(const real *p, ptrdiff_t n) { return n > 0 ? *p : 0; }
static inline void v_store_n(real *p, vec x, ptrdiff_t n)
{
    if (n > 0)
        *p = x;
}
static inline vec v_set1(real a) { return a; }
static inline vec v_zero(void) { return 0; }
static inline vec v_add(vec a, vec b) { return a + b; }
static inline vec v_sub(vec a, vec b) { return a - b; }
static inline vec v_mul(vec a, vec b) { return a * b; }
static inline vec v_fma(vec a, vec b, vec c) { return a * b + c; }
static inline vec v_fnma(vec a, vec b, vec c) { return c - a * b; }
static inline vec v_max(vec a, vec b) { return a > b ? a : b; }
static inline vec v_min(vec a, vec b) { return a < b ? a : b; }
static inline vec v_abs(vec x) { return sizeof x == 4 ? (real)fabsf((float)x) : (real)fabs(x); }
static inline vec v_copysign(vec x, vec s)
{
    return sizeof x == 4 ? (real)copysignf((float)x, (float)s) : (real)copysign(x, s);
}
static inline vec v_round(vec x) { return (x + ATTNC_ROUNDER) - ATTNC_ROUNDER; }
static inline real floor_of(vec x)
{
    return sizeof x == 4 ? (real)floorf((float)x) : (real)floor(x);
}
static inline vec v_fraction(vec x) { return x - floor_of(x); }
static inline vec v_scale2(vec x, vec t)
{
    /* Not every t is an int: NaN, where x is NaN too, and infinity. */
    int exponent = v_abs(t) < 2 * EXPONENT_BIAS ? (int)floor_of(t) : 0;
    real_bits bits = (real_bits)(exponent + EXPONENT_BIAS) << MANTISSA_BITS;
    real power;
    memcpy(&power, &bits, sizeof power);
    return x * power;
}
static inline vec v_rcp(vec x) { return 1 / x; }
static inline vmask v_lt(vec a, vec b) { return a < b; }
static inline vec v_select(vmask m, vec a, vec b) { return m ? a : b; }
static inline vmask v_mask_bytes(const unsigned char *p) { return *p != 0; }
static inline vmask v_mask_bytes_n(const unsigned char *p, ptrdiff_t n) { return n > 0 && *p; }
static inline real v_sum(vec x) { return x; }
static inline real v_hmax(vec x) { return x; }
static inline vec v_even(vec a, vec b) { return (void)b, a; }
static inline vec v_odd(vec a, vec b) { return (void)a, b; }
static inline void v_transpose(const real *src, ptrdiff_t ld, real *dst, ptrdiff_t ldd)
{
    (void)ld, (void)ldd;
    *dst = *src;
}
