/* avx2: 256-bit vectors with FMA, 16 registers. Names and meanings: README.md. */
#include <immintrin.h>

static const int32_t mask_words[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

#ifdef ATTNC_F32
typedef __m256 vec;
typedef __m256 vmask;
/* Registers: 6 x 2 sums + 2 columns + 1 broadcast = 15 of 16. */
enum { LANES = 8, TILE_ROWS = 6, TILE_VECS = 2 };

static inline __m256i lanes_below(ptrdiff_t n)
{
    return _mm256_loadu_si256((const __m256i *)(mask_words + 8 - n));
}
static inline vec v_load(const real *p) { return _mm256_loadu_ps(p); }
static inline void v_store(real *p, vec x) { _mm256_storeu_ps(p, x); }
static inline vec v_load_n(const real *p, ptrdiff_t n)
{
    return n >= LANES ? v_load(p) : _mm256_maskload_ps(p, lanes_below(n));
}
static inline void v_store_n(real *p, vec x, ptrdiff_t n)
{
    if (n >= LANES)
        v_store(p, x);
    else
        _mm256_maskstore_ps(p, lanes_below(n), x);
}
static inline vec v_set1(real a) { return _mm256_set1_ps(a); }
static inline vec v_zero(void) { return _mm256_setzero_ps(); }
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_sqrt(vec x) { return _mm256_sqrt_ps(x); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec v_abs(vec x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
static inline vec v_copysign(vec x, vec s)
{
    vec sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, x), _mm256_and_ps(sign, s));
}
static inline vec v_round(vec x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec v_fraction(vec x) { return _mm256_sub_ps(x, _mm256_floor_ps(x)); }
static inline vec v_scale2(vec x, vec t)
{
    __m256i n = _mm256_cvtps_epi32(_mm256_floor_ps(t));
    __m256i exponent = _mm256_add_epi32(n, _mm256_set1_epi32(127));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
static inline vec v_rcp(vec x)
{
    vec r = _mm256_rcp_ps(x); /* 12 bits, doubled by one Newton step */
    return _mm256_fmadd_ps(r, _mm256_fnmadd_ps(x, r, _mm256_set1_ps(1)), r);
}
static inline vmask v_lt(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vec v_select(vmask m, vec a, vec b) { return _mm256_blendv_ps(b, a, m); }
static inline vmask v_mask_bytes(const unsigned char *p)
{
    __m256i words = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(words, _mm256_setzero_si256()));
}
static inline real v_sum(vec x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline real v_hmax(vec x)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline vec in_order(__m256 x)
{
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}
static inline vec v_even(vec a, vec b) { return in_order(_mm256_shuffle_ps(a, b, 0x88)); }
static inline vec v_odd(vec a, vec b) { return in_order(_mm256_shuffle_ps(a, b, 0xdd)); }
static inline void v_transpose(const real *src, ptrdiff_t ld, real *dst, ptrdiff_t ldd)
{
    __m256 r[8], t[8];
    for (int i = 0; i < 4;
         i++) { /* rows i and i + 4 share a register, so all shuffles stay in lane */
        r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(src + i * ld)),
                                    _mm_loadu_ps(src + (i + 4) * ld), 1);
        r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(src + i * ld + 4)),
                                        _mm_loadu_ps(src + (i + 4) * ld + 4), 1);
    }
    for (int h = 0; h < 8; h += 4) {
        t[h + 0] = _mm256_unpacklo_ps(r[h + 0], r[h + 1]);
        t[h + 1] = _mm256_unpackhi_ps(r[h + 0], r[h + 1]);
        t[h + 2] = _mm256_unpacklo_ps(r[h + 2], r[h + 3]);
        t[h + 3] = _mm256_unpackhi_ps(r[h + 2], r[h + 3]);
        v_store(dst + (h + 0) * ldd, _mm256_shuffle_ps(t[h + 0], t[h + 2], 0x44));
        v_store(dst + (h + 1) * ldd, _mm256_shuffle_ps(t[h + 0], t[h + 2], 0xee));
        v_store(dst + (h + 2) * ldd, _mm256_shuffle_ps(t[h + 1], t[h + 3], 0x44));
        v_store(dst + (h + 3) * ldd, _mm256_shuffle_ps(t[h + 1], t[h + 3], 0xee));
    }
}

static inline vec v_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vec v_load_bf16(const uint16_t *p)
{
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}
/* Lanes of 32 bits, 0 .. 0xffff each, in 16 bits. */
static inline __m128i in_16_bits(__m256i x)
{
    return _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
/* A NaN keeps its sign alone. */
static inline void v_store_f16(uint16_t *p, vec x)
{
    const __m128i half = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    const __m256i unordered = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m128i is_nan = in_16_bits(_mm256_srli_epi32(unordered, 16));
    const __m128i nan =
        _mm_or_si128(_mm_and_si128(half, _mm_set1_epi16((short)0x8000)), _mm_set1_epi16(0x7e00));
    _mm_storeu_si128((__m128i *)p, _mm_blendv_epi8(half, nan, is_nan));
}
static inline void v_store_bf16(uint16_t *p, vec x)
{
    const __m256i bits = _mm256_castps_si256(x), half = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(half, _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, up), 16);
    const __m256i nan = _mm256_or_si256(_mm256_and_si256(half, _mm256_set1_epi32(0x8000)),
                                        _mm256_set1_epi32(0x7fc0));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    _mm_storeu_si128((__m128i *)p, in_16_bits(_mm256_blendv_epi8(rounded, nan, is_nan)));
}
#include "halves_n.h"

#else

typedef __m256d vec;
typedef __m256d vmask;
enum { LANES = 4, TILE_ROWS = 6, TILE_VECS = 2 };

static inline __m256i lanes_below(ptrdiff_t n)
{
    return _mm256_loadu_si256((const __m256i *)(mask_words + 8 - 2 * n));
}
static inline vec v_load(const real *p) { return _mm256_loadu_pd(p); }
static inline void v_store(real *p, vec x) { _mm256_storeu_pd(p, x); }
static inline vec v_load_n(const real *p, ptrdiff_t n)
{
    return n >= LANES ? v_load(p) : _mm256_maskload_pd(p, lanes_below(n));
}
static inline void v_store_n(real *p, vec x, ptrdiff_t n)
{
    if (n >= LANES)
        v_store(p, x);
    else
        _mm256_maskstore_pd(p, lanes_below(n), x);
}
static inline vec v_set1(real a) { return _mm256_set1_pd(a); }
static inline vec v_zero(void) { return _mm256_setzero_pd(); }
static inline vec v_add(vec a, vec b) { return _mm256_add_pd(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_pd(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_pd(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_pd(a, b); }
static inline vec v_sqrt(vec x) { return _mm256_sqrt_pd(x); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_pd(a, b, c); }
static inline vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_pd(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm256_max_pd(a, b); }
static inline vec v_min(vec a, vec b) { return _mm256_min_pd(a, b); }
static inline vec v_abs(vec x) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), x); }
static inline vec v_copysign(vec x, vec s)
{
    vec sign = _mm256_set1_pd(-0.0);
    return _mm256_or_pd(_mm256_andnot_pd(sign, x), _mm256_and_pd(sign, s));
}
static inline vec v_round(vec x)
{
    return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec v_fraction(vec x) { return _mm256_sub_pd(x, _mm256_floor_pd(x)); }
static inline vec v_scale2(vec x, vec t)
{
    __m128i n = _mm256_cvtpd_epi32(_mm256_floor_pd(t));
    __m256i exponent = _mm256_cvtepi32_epi64(_mm_add_epi32(n, _mm_set1_epi32(1023)));
    return _mm256_mul_pd(x, _mm256_castsi256_pd(_mm256_slli_epi64(exponent, 52)));
}
static inline vec v_rcp(vec x) { return _mm256_div_pd(_mm256_set1_pd(1), x); }
static inline vmask v_lt(vec a, vec b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
static inline vec v_select(vmask m, vec a, vec b) { return _mm256_blendv_pd(b, a, m); }
static inline vmask v_mask_bytes(const unsigned char *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    __m256i words = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
    return _mm256_castsi256_pd(_mm256_cmpgt_epi64(words, _mm256_setzero_si256()));
}
static inline real v_sum(vec x)
{
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
static inline real v_hmax(vec x)
{
    __m128d s = _mm_max_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_max_sd(s, _mm_unpackhi_pd(s, s)));
}
static inline vec v_even(vec a, vec b)
{
    return _mm256_permute4x64_pd(_mm256_unpacklo_pd(a, b), 0xd8);
}
static inline vec v_odd(vec a, vec b)
{
    return _mm256_permute4x64_pd(_mm256_unpackhi_pd(a, b), 0xd8);
}
static inline void v_transpose(const real *src, ptrdiff_t ld, real *dst, ptrdiff_t ldd)
{
    vec a = v_load(src), b = v_load(src + ld), c = v_load(src + 2 * ld), d = v_load(src + 3 * ld);
    vec ab0 = _mm256_unpacklo_pd(a, b), ab1 = _mm256_unpackhi_pd(a, b);
    vec cd0 = _mm256_unpacklo_pd(c, d), cd1 = _mm256_unpackhi_pd(c, d);
    v_store(dst, _mm256_permute2f128_pd(ab0, cd0, 0x20));
    v_store(dst + ldd, _mm256_permute2f128_pd(ab1, cd1, 0x20));
    v_store(dst + 2 * ldd, _mm256_permute2f128_pd(ab0, cd0, 0x31));
    v_store(dst + 3 * ldd, _mm256_permute2f128_pd(ab1, cd1, 0x31));
}
#endif

static inline vec v_load1(const real *p) { return v_set1(*p); }
static inline vmask v_mask_bytes_n(const unsigned char *p, ptrdiff_t n)
{
    unsigned char bytes[8] = {0};
    memcpy(bytes, p, (size_t)n);
    return v_mask_bytes(bytes);
}
