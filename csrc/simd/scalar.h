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
static inline vec v_load1(const real *p) { return *p; }
static inline vec v_set1(real a) { return a; }
static inline vec v_zero(void) { return 0; }
static inline vec v_add(vec a, vec b) { return a + b; }
static inline vec v_sub(vec a, vec b) { return a - b; }
static inline vec v_mul(vec a, vec b) { return a * b; }
static inline vec v_div(vec a, vec b) { return a / b; }
static inline vec v_sqrt(vec x) { return sizeof x == 4 ? (real)sqrtf((float)x) : (real)sqrt(x); }
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

#ifdef ATTNC_F32
static inline uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline vec v_load_f16(const uint16_t *p)
{
    const uint32_t sign = (*p & 0x8000u) << 16, exponent = *p >> 10 & 31, mantissa = *p & 0x3ff;
    if (exponent == 0) /* 0, or subnormal: the mantissa in units of 2^-24 */
        return copysignf((float)mantissa * 0x1p-24f, float_of(sign));
    return float_of(sign | (exponent == 31 ? 0xffu : exponent + 127 - 15) << 23 | mantissa << 13);
}
static inline vec v_load_bf16(const uint16_t *p) { return float_of((uint32_t)*p << 16); }
static inline vec v_load_n_f16(const uint16_t *p, ptrdiff_t n) { return n > 0 ? v_load_f16(p) : 0; }
static inline vec v_load_n_bf16(const uint16_t *p, ptrdiff_t n)
{
    return n > 0 ? v_load_bf16(p) : 0;
}
static inline void v_store_f16(uint16_t *p, vec x)
{
    const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    uint32_t half;
    if (size > 0x7f800000) /* NaN */
        half = 0x7e00;
    else if (size >= 0x477ff000) /* 65520 and above round to infinity */
        half = 0x7c00;
    else if (size >= 0x38800000) { /* 2^-14 and above: normal numbers, 13 bits go */
        const uint32_t rebased = size - ((127 - 15) << 23);
        half = (rebased + 0xfff + (rebased >> 13 & 1)) >> 13;
    }
    else if (size < 0x33000000) /* below 2^-25: 0 */
        half = 0;
    else { /* subnormal: the mantissa, with its leading 1, in units of 2^-24 */
        const int shift = 126 - (int)(size >> 23); /* 14 .. 24 */
        const uint32_t mantissa = (size & 0x7fffff) | 0x800000, middle = 1u << (shift - 1);
        const uint32_t kept = mantissa >> shift, rest = mantissa & (2 * middle - 1);
        half = kept + (rest > middle || (rest == middle && (kept & 1)));
    }
    *p = (uint16_t)(sign | half);
}
static inline void v_store_bf16(uint16_t *p, vec x)
{
    const uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) /* NaN */
        *p = (uint16_t)((bits >> 16 & 0x8000) | 0x7fc0);
    else
        *p = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline void v_store_n_f16(uint16_t *p, vec x, ptrdiff_t n)
{
    if (n > 0)
        v_store_f16(p, x);
}
static inline void v_store_n_bf16(uint16_t *p, vec x, ptrdiff_t n)
{
    if (n > 0)
        v_store_bf16(p, x);
}
#endif
