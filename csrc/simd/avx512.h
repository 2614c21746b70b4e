/* avx512: 512-bit vectors, 32 registers, mask registers. Names and meanings: README.md. */
#include <immintrin.h>

#ifdef ATTNC_F32
typedef __m512 vec;
typedef __mmask16 vmask;
/* Registers: 6 x 4 sums + 4 columns + 1 broadcast = 29 of 32. */
enum { LANES = 16, TILE_ROWS = 6, TILE_VECS = 4 };

static inline vmask lanes_below(ptrdiff_t n) { return (vmask)((1u << n) - 1); }
static inline vec v_load(const real *p) { return _mm512_loadu_ps(p); }
static inline void v_store(real *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vec v_load_n(const real *p, ptrdiff_t n)
{
    return _mm512_maskz_loadu_ps(lanes_below(n), p);
}
static inline void v_store_n(real *p, vec x, ptrdiff_t n)
{
    _mm512_mask_storeu_ps(p, lanes_below(n), x);
}
static inline vec v_set1(real a) { return _mm512_set1_ps(a); }
static inline vec v_zero(void) { return _mm512_setzero_ps(); }
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_sqrt(vec x) { return _mm512_sqrt_ps(x); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec v_abs(vec x) { return _mm512_abs_ps(x); }
static inline vec v_copysign(vec x, vec s)
{
    __m512i sign = _mm512_set1_epi32((int)0x80000000); /* 0xd8: bits of s where sign, else of x */
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(_mm512_castps_si512(x), _mm512_castps_si512(s), sign, 0xd8));
}
static inline vec v_round(vec x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec v_fraction(vec x)
{
    return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
static inline vec v_scale2(vec x, vec t) { return _mm512_scalef_ps(x, t); }
static inline vec v_rcp(vec x)
{
    vec r = _mm512_rcp14_ps(x); /* 14 bits, doubled by one Newton step */
    return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1)), r);
}
static inline vmask v_lt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vec v_select(vmask m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }
static inline vmask v_mask_bytes(const unsigned char *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return _mm_test_epi8_mask(bytes, bytes);
}
static inline vmask v_mask_bytes_n(const unsigned char *p, ptrdiff_t n)
{
    __m128i bytes = _mm_maskz_loadu_epi8(lanes_below(n), p);
    return _mm_test_epi8_mask(bytes, bytes);
}
static inline real v_sum(vec x) { return _mm512_reduce_add_ps(x); }
static inline real v_hmax(vec x) { return _mm512_reduce_max_ps(x); }
static inline vec v_even(vec a, vec b)
{
    const __m512i from =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, from, b);
}
static inline vec v_odd(vec a, vec b)
{
    const __m512i from =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(a, from, b);
}
static inline void v_transpose(const real *src, ptrdiff_t ld, real *dst, ptrdiff_t ldd)
{
    __m512 r[16], t[16];
    /* 4 x 4 blocks are transposed inside the 128-bit lanes, then the blocks by lane shuffles. */
    for (int i = 0; i < 16; i++)
        r[i] = v_load(src + i * ld);
    for (int i = 0; i < 16; i += 4) {
        __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]);
        __m512 d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i + 0] = _mm512_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; i++) { /* t[4b + i] holds columns i, 4 + i, 8 + i, 12 + i of rows 4b.. */
        __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x44);
        __m512 b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xee);
        __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x44);
        __m512 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xee);
        v_store(dst + i * ldd, _mm512_shuffle_f32x4(a, c, 0x88));
        v_store(dst + (4 + i) * ldd, _mm512_shuffle_f32x4(a, c, 0xdd));
        v_store(dst + (8 + i) * ldd, _mm512_shuffle_f32x4(b, d, 0x88));
        v_store(dst + (12 + i) * ldd, _mm512_shuffle_f32x4(b, d, 0xdd));
    }
}

static inline vec v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vec v_load_n_f16(const uint16_t *p, ptrdiff_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes_below(n), p));
}
static inline vec from_bf16(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
static inline vec v_load_bf16(const uint16_t *p)
{
    return from_bf16(_mm256_loadu_si256((const __m256i *)p));
}
static inline vec v_load_n_bf16(const uint16_t *p, ptrdiff_t n)
{
    return from_bf16(_mm256_maskz_loadu_epi16(lanes_below(n), p));
}
/* A NaN keeps its sign alone. */
static inline __m256i to_f16(vec x)
{
    const __m256i half = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i nan = _mm256_or_si256(_mm256_and_si256(half, _mm256_set1_epi16((short)0x8000)),
                                        _mm256_set1_epi16(0x7e00));
    return _mm256_mask_mov_epi16(half, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
}
static inline __m256i to_bf16(vec x)
{
    const __m512i bits = _mm512_castps_si512(x), half = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(half, _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, up), 16);
    const __m512i nan = _mm512_or_si512(_mm512_and_si512(half, _mm512_set1_epi32(0x8000)),
                                        _mm512_set1_epi32(0x7fc0));
    return _mm512_cvtepi32_epi16(
        _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan));
}
static inline void v_store_f16(uint16_t *p, vec x) { _mm256_storeu_si256((__m256i *)p, to_f16(x)); }
static inline void v_store_n_f16(uint16_t *p, vec x, ptrdiff_t n)
{
    _mm256_mask_storeu_epi16(p, lanes_below(n), to_f16(x));
}
static inline void v_store_bf16(uint16_t *p, vec x)
{
    _mm256_storeu_si256((__m256i *)p, to_bf16(x));
}
static inline void v_store_n_bf16(uint16_t *p, vec x, ptrdiff_t n)
{
    _mm256_mask_storeu_epi16(p, lanes_below(n), to_bf16(x));
}

#else

typedef __m512d vec;
typedef __mmask8 vmask;
enum { LANES = 8, TILE_ROWS = 6, TILE_VECS = 4 };

static inline vmask lanes_below(ptrdiff_t n) { return (vmask)((1u << n) - 1); }
static inline vec v_load(const real *p) { return _mm512_loadu_pd(p); }
static inline void v_store(real *p, vec x) { _mm512_storeu_pd(p, x); }
static inline vec v_load_n(const real *p, ptrdiff_t n)
{
    return _mm512_maskz_loadu_pd(lanes_below(n), p);
}
static inline void v_store_n(real *p, vec x, ptrdiff_t n)
{
    _mm512_mask_storeu_pd(p, lanes_below(n), x);
}
static inline vec v_set1(real a) { return _mm512_set1_pd(a); }
static inline vec v_zero(void) { return _mm512_setzero_pd(); }
static inline vec v_add(vec a, vec b) { return _mm512_add_pd(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_pd(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_pd(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_pd(a, b); }
static inline vec v_sqrt(vec x) { return _mm512_sqrt_pd(x); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_pd(a, b, c); }
static inline vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_pd(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm512_max_pd(a, b); }
static inline vec v_min(vec a, vec b) { return _mm512_min_pd(a, b); }
static inline vec v_abs(vec x) { return _mm512_abs_pd(x); }
static inline vec v_copysign(vec x, vec s)
{
    __m512i sign = _mm512_set1_epi64((long long)0x8000000000000000u);
    return _mm512_castsi512_pd(
        _mm512_ternarylogic_epi64(_mm512_castpd_si512(x), _mm512_castpd_si512(s), sign, 0xd8));
}
static inline vec v_round(vec x)
{
    return _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec v_fraction(vec x)
{
    return _mm512_reduce_pd(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
static inline vec v_scale2(vec x, vec t) { return _mm512_scalef_pd(x, t); }
static inline vec v_rcp(vec x) { return _mm512_div_pd(_mm512_set1_pd(1), x); }
static inline vmask v_lt(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
static inline vec v_select(vmask m, vec a, vec b) { return _mm512_mask_blend_pd(m, b, a); }
static inline vmask v_mask_bytes(const unsigned char *p)
{
    __m128i bytes = _mm_loadl_epi64((const __m128i *)p);
    return (vmask)_mm_test_epi8_mask(bytes, bytes);
}
static inline vmask v_mask_bytes_n(const unsigned char *p, ptrdiff_t n)
{
    __m128i bytes = _mm_maskz_loadu_epi8(lanes_below(n), p);
    return (vmask)_mm_test_epi8_mask(bytes, bytes);
}
static inline real v_sum(vec x) { return _mm512_reduce_add_pd(x); }
static inline real v_hmax(vec x) { return _mm512_reduce_max_pd(x); }
static inline vec v_even(vec a, vec b)
{
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), b);
}
static inline vec v_odd(vec a, vec b)
{
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), b);
}
static inline void v_transpose(const real *src, ptrdiff_t ld, real *dst, ptrdiff_t ldd)
{
    __m512d t[8];
    for (int i = 0; i < 8; i += 2) {
        __m512d a = v_load(src + i * ld), b = v_load(src + (i + 1) * ld);
        t[i] = _mm512_unpacklo_pd(a, b);
        t[i + 1] = _mm512_unpackhi_pd(a, b);
    }
    for (int i = 0; i < 2;
         i++) { /* t[2b + i] holds columns i, 2 + i, 4 + i, 6 + i of rows 2b, 2b+1 */
        __m512d a = _mm512_shuffle_f64x2(t[i], t[i + 2], 0x44);
        __m512d b = _mm512_shuffle_f64x2(t[i], t[i + 2], 0xee);
        __m512d c = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0x44);
        __m512d d = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0xee);
        v_store(dst + i * ldd, _mm512_shuffle_f64x2(a, c, 0x88));
        v_store(dst + (2 + i) * ldd, _mm512_shuffle_f64x2(a, c, 0xdd));
        v_store(dst + (4 + i) * ldd, _mm512_shuffle_f64x2(b, d, 0x88));
        v_store(dst + (6 + i) * ldd, _mm512_shuffle_f64x2(b, d, 0xdd));
    }
}
#endif

static inline vec v_load1(const real *p) { return v_set1(*p); }
