/* dispatch: see dispatch.h. */
#include "dispatch.h"

#include <stdatomic.h>

typedef struct {
    const attnc_kernels *f32, *f64;
} target;

#define ATTNC_DECLARE(ISA) extern const attnc_kernels attnc_##ISA##_f32, attnc_##ISA##_f64;
ATTNC_DECLARE(scalar)
#if defined(__x86_64__)
ATTNC_DECLARE(avx2)
ATTNC_DECLARE(avx512)
#elif defined(__aarch64__)
ATTNC_DECLARE(neon)
#endif

/* Slowest first; each entry needs all before it to be usable too. */
static const target targets[] = {
    {&attnc_scalar_f32, &attnc_scalar_f64},
#if defined(__x86_64__)
    {&attnc_avx2_f32, &attnc_avx2_f64},
    {&attnc_avx512_f32, &attnc_avx512_f64},
#elif defined(__aarch64__)
    {&attnc_neon_f32, &attnc_neon_f64},
#endif
};
enum { TARGETS = sizeof targets / sizeof *targets };

static atomic_int selected = -1;

int attnc_isa_count(void)
{
#if defined(__x86_64__)
    /* These ask the operating system too (XCR0), not the processor alone. */
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 1;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq"))
        return 2;
#endif
    return TARGETS;
}

const char *attnc_isa_name(int index) { return targets[index].f32->isa; }

int attnc_isa_current(void)
{
    int index = atomic_load(&selected);
    if (index < 0) {
        index = attnc_isa_count() - 1;
        atomic_store(&selected, index);
    }
    return index;
}

void attnc_isa_select(int index) { atomic_store(&selected, index); }

const attnc_kernels *attnc_kernels_for(int f32)
{
    const target *t = &targets[attnc_isa_current()];
    return f32 ? t->f32 : t->f64;
}
