/* args: from Python objects to kernel arguments. Every check of a type, dtype, shape or value is
 * here, and every error text: "<function>: <argument> must <rule>, got <value>".
 *
 * defines: attnc_argument, attnc_call, attnc_call_*, attnc_read_*, attnc_check_*, attnc_convert,
 *          attnc_features, attnc_operand_of, attnc_stride, attnc_fail
 */
#ifndef ATTNC_ARGS_H
#define ATTNC_ARGS_H

/* Python.h and NumPy's C API, the same way in every file; module.c imports the API. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define PY_ARRAY_UNIQUE_SYMBOL attnc_numpy_api
#ifndef ATTNC_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "../engine/attention.h"

#include <stddef.h>

/* slot = value, a new reference, which may be NULL; the old one is dropped. */
#define ATTNC_REPLACE(slot, value)                                                                 \
    do {                                                                                           \
        PyObject *attnc_old = (PyObject *)(slot);                                                  \
        (slot) = (value);                                                                          \
        Py_XDECREF(attnc_old);                                                                     \
    } while (0)

/* A real array argument. array is NULL where it was not given. */
typedef struct {
    const char *name;
    PyArrayObject *array; /* after conversion: the computing dtype, or halves where the kernels read
                             them; last axis contiguous */
    PyArray_Descr *dtype; /* of its gradient; NULL: the computing dtype */
} attnc_argument;

enum { ATTNC_ARGUMENTS = 11 }; /* that may be real arrays */

/* One call from Python, from parsing to result; run.c begins and ends it. */
typedef struct {
    const char *function;
    PyArray_Descr *output; /* dtype of the results; NULL: the computing dtype */
    union {
        struct { /* in the order in which messages list them */
            attnc_argument scores, query, key, value, scale, bias;
            attnc_argument weight, score_vector, query_weight, key_weight, score_bias;
        };
        attnc_argument arguments[ATTNC_ARGUMENTS]; /* the same */
    };
    PyArrayObject *mask, *key_mask, *key_lengths, *causal_offset; /* converted */
    int return_weights, return_lse;
    attnc_inputs in;   /* the same as the engine reads it; f32: the computing dtype is float */
    attnc_arena arena; /* of what `in` points to: shapes and strides in elements */

    /* made by run.c, or the incoming gradients */
    PyArrayObject *context, *weights, *lse, *saved_context, *stats, *saved_scores;
} attnc_call;
_Static_assert(offsetof(attnc_call, score_bias) ==
                   offsetof(attnc_call, arguments[ATTNC_ARGUMENTS - 1]),
               "arguments names them all");

/* Drops all that the call holds. */
void attnc_call_clear(attnc_call *c);

/* How many arguments a function of the private module got. -1 on error. */
int attnc_check_count(const char *function, Py_ssize_t count, Py_ssize_t expected);

/* Sets "<function>: " and the message, which must not end in a newline. Returns -1. */
int attnc_fail(const attnc_call *c, PyObject *exception, const char *format, ...);

/* Reads a real array: kind and dtype are checked, nothing is converted yet. -1 on error. */
int attnc_read(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object);
/* The same, but None means not given. */
int attnc_read_optional(attnc_call *c, attnc_argument *argument, const char *name,
                        PyObject *object);
/* query, key and value, the first arguments of most functions. */
enum { SEQUENCES = 3 };
int attnc_read_sequences(attnc_call *c, PyObject *const *args);
/* scale: None, a number, or a 0-d array (which has a gradient). */
int attnc_read_scale(attnc_call *c, PyObject *object, int default_is_rsqrt);

/* The options that all functions share, in this order. */
enum {
    OPTION_MASK,
    OPTION_KEY_MASK,
    OPTION_KEY_LENGTHS,
    OPTION_BIAS,
    OPTION_CAUSAL,
    OPTION_CAUSAL_OFFSET,
    OPTION_WINDOW,
    OPTION_SOFTCAP,
    OPTION_DROPOUT,
    OPTION_RNG,
    OPTION_RETURN_WEIGHTS,
    OPTION_RETURN_LSE,
    OPTIONS
};
/* Reads bias and the options that need no shape. Before attnc_convert. */
int attnc_read_options(attnc_call *c, PyObject *const *options);
/* Reads the masks against the shapes found by attnc_check_sequences. */
int attnc_read_masks(attnc_call *c, PyObject *const *options);

/* Chooses the computing dtype by np.result_type over all operands and converts them; but what is
 * computed in float32 may stay in halves, parameters and scale apart. */
int attnc_convert(attnc_call *c);
/* Ranks, time axes and leading axes of query, key and value (or scores and value); sets in.lead,
 * Tq, Tk, D, Dv. same_features: query and key have the same last axis. */
int attnc_check_sequences(attnc_call *c, int same_features);
int attnc_check_given_scores(attnc_call *c);
/* A parameter must have exactly this shape; n is -1 for a vector. Rule: shown in the message. */
int attnc_check_parameter(attnc_call *c, const attnc_argument *argument, npy_intp m, npy_intp n,
                          const char *rule);

/* score_vector has one axis. */
int attnc_check_vector(attnc_call *c, const attnc_argument *argument);
/* An argument whose weight was not given is already projected: it has H features. */
int attnc_check_projected(attnc_call *c, const attnc_argument *argument, npy_intp H,
                          const char *weight);

/* The size of an argument's last axis. */
ptrdiff_t attnc_features(const attnc_argument *argument);

/* An array as the engine reads it; -1 with MemoryError. */
int attnc_operand_of(attnc_call *c, PyArrayObject *array, attnc_operand *operand);

/* The stride of an axis in elements; 1 where no second element is read. *whole becomes 0 where it
 * is no whole number of them. */
ptrdiff_t attnc_stride(const PyArrayObject *array, int axis, int *whole);

/* An incoming gradient: None, or exactly the shape of its output. halves: it may stay in them. */
int attnc_read_gradient(attnc_call *c, PyObject *object, const char *name, const char *output,
                        int ndim, const npy_intp *shape, int halves, PyArrayObject **array);

#endif
