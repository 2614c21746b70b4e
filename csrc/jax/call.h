/* call: what handlers of XLA have in common: to tell it what they are, to find attributes, and to
 * say what went wrong.
 *
 * defines: attnc_ffi_arithmetic_begin, attnc_ffi_arithmetic_end, attnc_ffi_answers,
 *          attnc_ffi_fail, attnc_ffi_attribute, attnc_ffi_array_attribute, attnc_ffi_bits
 */
#ifndef ATTNC_JAX_CALL_H
#define ATTNC_JAX_CALL_H

#include "ffi.h"

#include <fenv.h>

/* XLA's threads take numbers below the least normal one for 0. Between these two a thread computes
 * as all others do, and so with the bits of a call from Python. */
static inline fenv_t attnc_ffi_arithmetic_begin(void)
{
    fenv_t before;
    fegetenv(&before);
    fesetenv(FE_DFL_ENV);
    return before;
}
static inline void attnc_ffi_arithmetic_end(const fenv_t *before) { fesetenv(before); }

/* Whether XLA only asks what the handler is, which is answered here, or has nothing to run yet. */
int attnc_ffi_answers(attnc_ffi_call *call);

/* An error for the handler to return. */
attnc_ffi_error *attnc_ffi_fail(const attnc_ffi_call *call, int code, const char *message);

/* The attribute of that name and type, or NULL. */
const void *attnc_ffi_attribute(const attnc_ffi_call *call, const char *name, int type);
/* An array of int64, of which nobody says that it is aligned; NULL where it is none. */
const void *attnc_ffi_array_attribute(const attnc_ffi_call *call, const char *name, size_t *size);
/* A scalar int64 that is not negative: a set of bits; -1 where there is none. */
int64_t attnc_ffi_bits(const attnc_ffi_call *call, const char *name);

#endif
