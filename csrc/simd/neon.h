/* neon: AArch64's 128-bit vectors, 32 registers. Names and meanings: README.md. */
#include <arm_neon.h>

#ifdef ATTNC_F32
typedef float32x4_t vec;
typedef uint32x4_t vmask;
/* Registers: 5 x 4 sums + 4 columns + 5 elements = 29 of 32. Compilers load the elements of all
 * rows before they multiply, and with 6 rows gcc keeps a sum in memory. Four pipes that need 4
 * cycles are busy from 16 sums on (benchmarks/README.md, "On ARM, without a machine"). */
enum { LANES = 4, TILE_ROWS = 5, TILE_VECS = 4 };

static inline vec v_load(const real *p) { return vld1q_f32(p); }
static inline void v_store(real *p, vec x) { vst1q_f32(p, x); }
static inline vec v_set1(real a) { return vdupq_n_f32(a); }
static inline vec v_zero(void) { return vdupq_n_f32(0); }
static inline vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
static inline vec v_sqrt(vec x) { return vsqrtq_f32(x); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
static inline vec v_fnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }
static inline vec v_max(vec a, vec b) { return vmaxq_f32(a, b); }
static inline vec v_min(vec a, vec b) { return vminq_f32(a, b); }
static inline vec v_abs(vec x) { return vabsq_f32(x); }
static inline vec v_copysign(vec x, vec s) { return vbslq_f32(vdupq_n_u32(0x80000000u), s, x); }
static inline vec v_round(vec x) { return vrndnq_f32(x); }
static inline vec v_fraction(vec x) { return vsubq_f32(x, vrndmq_f32(x)); }
static inline vec v_scale2(vec x, vec t)
{
    int32x4_t exponent = vaddq_s32(vcvtmq_s32_f32(t), vdupq_n_s32(127));
    return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}
static inline vec v_rcp(vec x) { return vdivq_f32(vdupq_n_f32(1), x); }
static inline vmask v_lt(vec a, vec b) { return vcltq_f32(a, b); }
static inline vec v_select(vmask m, vec a, vec b) { return vbslq_f32(m, a, b); }
static inline vmask v_mask_bytes(const unsigned char *p)
{
    uint32_t words[4] = {p[0], p[1], p[2], p[3]};
    return vcgtq_u32(vld1q_u32(words), vdupq_n_u32(0));
}
static inline real v_sum(vec x) { return vaddvq_f32(x); }
static inline real v_hmax(vec x) { return vmaxvq_f32(x); }
static inline vec v_even(vec a, vec b) { return vuzp1q_f32(a, b); }
static inline vec v_odd(vec a, vec b) { return vuzp2q_f32(a, b); }
static inline void v_transpose(const real *src, ptrdiff_t ld, real *dst, ptrdiff_t ldd)
{
    float32x4x2_t ab = vtrnq_f32(v_load(src), v_load(src + ld));
    float32x4x2_t cd = vtrnq_f32(v_load(src + 2 * ld), v_load(src + 3 * ld));
    v_store(dst, vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0])));
    v_store(dst + ldd, vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1])));
    v_store(dst + 2 * ldd, vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0])));
    v_store(dst + 3 * ldd, vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1])));
}

static inline vec v_load_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline vec v_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline uint16x4_t is_nan(vec x) { return vmvn_u16(vmovn_u32(vceqq_f32(x, x))); }
/* A NaN keeps its sign alone. */
static inline void v_store_f16(uint16_t *p, vec x)
{
    const uint16x4_t half = vreinterpret_u16_f16(vcvt_f16_f32(x));
    const uint16x4_t nan = vorr_u16(vand_u16(half, vdup_n_u16(0x8000)), vdup_n_u16(0x7e00));
    vst1_u16(p, vbsl_u16(is_nan(x), nan, half));
}
static inline void v_store_bf16(uint16_t *p, vec x)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint16x4_t half = vshrn_n_u32(bits, 16);
    const uint32x4_t odd = vmovl_u16(vand_u16(half, vdup_n_u16(1)));
    const uint32x4_t up = vaddq_u32(odd, vdupq_n_u32(0x7fff));
    const uint16x4_t nan = vorr_u16(vand_u16(half, vdup_n_u16(0x8000)), vdup_n_u16(0x7fc0));
    vst1_u16(p, vbsl_u16(is_nan(x), nan, vshrn_n_u32(vaddq_u32(bits, up), 16)));
}
#include "halves_n.h"

#else

typedef float64x2_t vec;
typedef uint64x2_t vmask;
enum { LANES = 2, TILE_ROWS = 5, TILE_VECS = 4 };

static inline vec v_load(const real *p) { return vld1q_f64(p); }
static inline void v_store(real *p, vec x) { vst1q_f64(p, x); }
static inline vec v_set1(real a) { return vdupq_n_f64(a); }
static inline vec v_zero(void) { return vdupq_n_f64(0); }
static inline vec v_add(vec a, vec b) { return vaddq_f64(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f64(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f64(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f64(a, b); }
static inline vec v_sqrt(vec x) { return vsqrtq_f64(x); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f64(c, a, b); }
static inline vec v_fnma(vec a, vec b, vec c) { return vfmsq_f64(c, a, b); }
static inline vec v_max(vec a, vec b) { return vmaxq_f64(a, b); }
static inline vec v_min(vec a, vec b) { return vminq_f64(a, b); }
static inline vec v_abs(vec x) { return vabsq_f64(x); }
static inline vec v_copysign(vec x, vec s)
{
    return vbslq_f64(vdupq_n_u64(0x8000000000000000u), s, x);
}
static inline vec v_round(vec x) { return vrndnq_f64(x); }
static inline vec v_fraction(vec x) { return vsubq_f64(x, vrndmq_f64(x)); }
static inline vec v_scale2(vec x, vec t)
{
    int64x2_t exponent = vaddq_s64(vcvtmq_s64_f64(t), vdupq_n_s64(1023));
    return vmulq_f64(x, vreinterpretq_f64_s64(vshlq_n_s64(exponent, 52)));
}
static inline vec v_rcp(vec x) { return vdivq_f64(vdupq_n_f64(1), x); }
static inline vmask v_lt(vec a, vec b) { return vcltq_f64(a, b); }
static inline vec v_select(vmask m, vec a, vec b) { return vbslq_f64(m, a, b); }
static inline vmask v_mask_bytes(const unsigned char *p)
{
    uint64_t words[2] = {p[0], p[1]};
    return vcgtq_u64(vld1q_u64(words), vdupq_n_u64(0));
}
static inline real v_sum(vec x) { return vaddvq_f64(x); }
static inline real v_hmax(vec x) { return vmaxvq_f64(x); }
static inline vec v_even(vec a, vec b) { return vuzp1q_f64(a, b); }
static inline vec v_odd(vec a, vec b) { return vuzp2q_f64(a, b); }
static inline void v_transpose(const real *src, ptrdiff_t ld, real *dst, ptrdiff_t ldd)
{
    vec a = v_load(src), b = v_load(src + ld);
    v_store(dst, vzip1q_f64(a, b));
    v_store(dst + ldd, vzip2q_f64(a, b));
}
#endif

/* The element goes into lane 0 alone, and each multiply-add repeats it. The empty statement hides
 * that it comes from memory: clang would make a load that repeats it (ld1r), for which one of the
 * pipes that multiply is busy. */
static inline vec v_load1(const real *p)
{
    real element = *p;
    __asm__("" : "+w"(element));
    return v_set1(element);
}
/* No masked loads on NEON: tails go through a small buffer, so nothing outside is touched. */
static inline vec v_load_n(const real *p, ptrdiff_t n)
{
    real buffer[LANES] = {0};
    memcpy(buffer, p, (size_t)n * sizeof *p);
    return v_load(buffer);
}
static inline void v_store_n(real *p, vec x, ptrdiff_t n)
{
    real buffer[LANES];
    v_store(buffer, x);
    memcpy(p, buffer, (size_t)n * sizeof *p);
}
static inline vmask v_mask_bytes_n(const unsigned char *p, ptrdiff_t n)
{
    unsigned char bytes[LANES] = {0};
    memcpy(bytes, p, (size_t)n);
    return v_mask_bytes(bytes);
}
