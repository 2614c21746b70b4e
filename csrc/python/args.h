/* args: from Python objects to kernel arguments. Every check of a type, dtype, shape or value is
 * here, and every error text: "<function>: <argument> must <rule>, got <value>".
 *
 * defines: attnc_argument, attnc_call, attnc_own, ATTNC_OWN, attnc_function, attnc_call_clear,
 *          attnc_read, attnc_read_*, attnc_check_*, attnc_features, attnc_operand_of, attnc_stride,
 *          attnc_fail
 */
#ifndef ATTNC_ARGS_H
#define ATTNC_ARGS_H

#include "inspect.h"
#include "../engine/attention.h"

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
    attnc_argument slope, sink, center; /* where they are arrays; they take no part in the dtype */
    attnc_argument none;                /* of what is no array */
    PyArrayObject *mask, *key_mask, *key_lengths, *query_lengths, *causal_offset; /* converted */
    PyArrayObject *slopes, *sinks, *centers; /* in double, also of numbers */
    int packed;                              /* whether one of these is given */
    PyArrayObject *query_offsets, *key_offsets;
    int return_weights, return_lse;
    attnc_inputs in;   /* the same as the engine reads it; f32: the computing dtype is float */
    attnc_arena arena; /* of what `in` points to: shapes and strides in elements */

    attnc_choice choice;   /* hard attention: how; `in` points to it */
    PyObject *index;       /* borrowed: the choice of the caller, or NULL */
    PyArrayObject *forced; /* the same as the engine reads it */

    /* made by run.c and op_hard.c, or the incoming gradients */
    PyArrayObject *context, *weights, *lse, *saved_context, *stats, *saved_scores;
    PyArrayObject *chosen, *log_probability, *entropy;
    /* made by jvp.c and op_hard.c: the tangents of the same outputs */
    PyArrayObject *context_tangent, *weights_tangent, *lse_tangent;
    PyArrayObject *log_probability_tangent, *entropy_tangent;
} attnc_call;
_Static_assert(offsetof(attnc_call, score_bias) ==
                   offsetof(attnc_call, arguments[ATTNC_ARGUMENTS - 1]),
               "arguments names them all");

/* Drops all that the call holds. */
void attnc_call_clear(attnc_call *c);

/* Sets "<function>: " and the message, which must not end in a newline. Returns -1. */
#define attnc_fail(c, ...) attnc_complain((c)->function, __VA_ARGS__)

/* An argument that is a function's own: how it is read, and where its array goes. */
typedef struct {
    const char *name;
    /* places in attnc_call, attnc_inputs, attnc_gradients, attnc_tangents */
    size_t argument, operand, gradient, tangent;
    /* Reads the object, NULL where none was given. */
    int (*read)(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object);
} attnc_own;
#define ATTNC_OWN(NAME, READ)                                                                      \
    {#NAME,                                                                                        \
     offsetof(attnc_call, NAME),                                                                   \
     offsetof(attnc_inputs, NAME),                                                                 \
     offsetof(attnc_gradients, NAME),                                                              \
     offsetof(attnc_tangents, NAME),                                                               \
     READ}
/* scale is an array, or a number in attnc_inputs, but no operand. */
#define ATTNC_OWN_SCALE(READ)                                                                      \
    {"scale",                                                                                      \
     offsetof(attnc_call, scale),                                                                  \
     ATTNC_NO_OPERAND,                                                                             \
     offsetof(attnc_gradients, scale),                                                             \
     offsetof(attnc_tangents, scale),                                                              \
     READ}
#define ATTNC_NO_OPERAND ((size_t)-1)
/* An argument that says how, and is no array that has a gradient. */
#define ATTNC_OWN_FLAG(NAME, READ) {NAME, offsetof(attnc_call, none), ATTNC_NO_OPERAND, 0, 0, READ}
enum { ATTNC_OWN_MOST = 7 };

/* Reads a real array: kind and dtype are checked, nothing is converted yet. -1 on error. */
int attnc_read(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object);
/* The same, but None means not given. */
int attnc_read_optional(attnc_call *c, attnc_argument *argument, const char *name,
                        PyObject *object);
/* A number, or a 0-d array, which has a gradient. Not given: 1. */
int attnc_read_scale(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object);
/* The same; None, or not given: NaN, for the function's check to replace. */
int attnc_read_optional_scale(attnc_call *c, attnc_argument *argument, const char *name,
                              PyObject *object);

/* Results of a function that are not context, weights and lse. */
typedef struct {
    int (*make)(attnc_call *c, int save, attnc_outputs *out);
    PyObject *(*result)(attnc_call *c); /* NULL with an error */
    /* from the arguments of backward, in the order of run.h */
    int (*read_backward)(attnc_call *c, PyObject *const *args, attnc_incoming *incoming);
    /* forward mode: the arrays of the tangents, and the result of them */
    int (*make_tangents)(attnc_call *c, attnc_output_tangents *moved);
    PyObject *(*tangent_result)(attnc_call *c);
} attnc_own_results;

/* An attention function as Python calls it. */
typedef struct {
    const char *name;
    const attnc_mechanism *mechanism;
    int own_count;
    attnc_own own[ATTNC_OWN_MOST]; /* in the order of its signature; arrays have gradients */
    /* Holds the shapes of the arrays against each other. */
    int (*check)(attnc_call *c);
    const attnc_own_results *results; /* NULL: those of run.c */
    int scores_alone; /* it has no value, gives the scores themselves, and takes masks alone */
} attnc_function;

/* Reads and checks all arguments of a call, as METH_FASTCALL | METH_KEYWORDS passes them: the
 * function's own by position or by name, the options by name. -1 on error. */
int attnc_read_call(attnc_call *c, const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                    PyObject *names);

/* ---- arrays against each other ---- */

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
