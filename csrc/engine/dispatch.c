/* dispatch: see dispatch.h. */
#include "dispatch.h"

#include <stdatomic.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* A row of the table: the kernels of an instruction set, and whether this machine can run them. */
typedef struct {
    const attnc_kernels *f32, *f64;
    int (*supported)(void);
} target;

#define ATTNC_DECLARE(ISA) extern const attnc_kernels attnc_##ISA##_f32, attnc_##ISA##_f64;
#define ATTNC_ROW(ISA) {&attnc_##ISA##_f32, &attnc_##ISA##_f64, ISA##_supported}

ATTNC_DECLARE(scalar)
static int scalar_supported(void) { return 1; }

/* Each names what ATTNC_ENABLE of its file in targets/ switches on, and nothing is left to another
 * row. On x86 these ask the operating system too (XCR0), not the processor alone. */
#if defined(__x86_64__)
ATTNC_DECLARE(avx2)
/* F16C, the conversions of float16, is a bit of its own beside AVX2, though x86-64-v3 has both;
 * older compilers do not know its name. */
static int has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int avx2_supported(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

ATTNC_DECLARE(avx512)
static int avx512_supported(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#elif defined(__aarch64__)
ATTNC_DECLARE(neon)
static int neon_supported(void) { return 1; } /* part of every AArch64 */
#endif

/* Slowest first. */
static const target targets[] = {
    ATTNC_ROW(scalar),
#if defined(__x86_64__)
    ATTNC_ROW(avx2),
    ATTNC_ROW(avx512),
#elif defined(__aarch64__)
    ATTNC_ROW(neon),
#endif
};
enum { TARGETS = sizeof targets / sizeof *targets };

static atomic_uint usable;       /* bit k: row k; 0: not found yet, for scalar always is */
static atomic_int selected = -1; /* among the usable ones; -1: the last of them */

/* The rows that run here, found at the first question. Who asks at the same time finds the same. */
static unsigned usable_rows(void)
{
    unsigned rows = atomic_load(&usable);
    if (rows)
        return rows;
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    for (int k = 0; k < TARGETS; k++)
        if (targets[k].supported())
            rows |= 1u << k;
    atomic_store(&usable, rows);
    return rows;
}

int attnc_isa_count(void)
{
    int count = 0;
    for (unsigned rows = usable_rows(); rows; rows &= rows - 1) /* without its lowest bit */
        count++;
    return count;
}

/* The index-th of the usable ones. */
static const target *usable_target(int index)
{
    const unsigned rows = usable_rows();
    int k = 0;
    while (!(rows >> k & 1) || index-- > 0)
        k++;
    return &targets[k];
}

const char *attnc_isa_name(int index) { return usable_target(index)->f32->isa; }

int attnc_isa_current(void)
{
    const int index = atomic_load(&selected);
    return index < 0 ? attnc_isa_count() - 1 : index;
}

void attnc_isa_select(int index) { atomic_store(&selected, index); }

const attnc_kernels *attnc_kernels_for(int f32)
{
    const target *t = usable_target(attnc_isa_current());
    return f32 ? t->f32 : t->f64;
}
