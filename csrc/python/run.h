/* run: from a parsed call to its results: makes their arrays, runs the engine without the GIL where
 * that pays, and returns them. The same for every attention function; what differs is its row,
 * attnc_function, in op_NAME.c.
 *
 * defines: attnc_gradient, ATTNC_GRADIENT, attnc_function, attnc_forward, attnc_backward
 */
#ifndef ATTNC_RUN_H
#define ATTNC_RUN_H

#include "args.h"

/* A gradient that a backward call returns: of which argument, and what the engine calls it. */
typedef struct {
    size_t argument, gradient; /* places in attnc_call and attnc_gradients */
} attnc_gradient;
#define ATTNC_GRADIENT(NAME) {offsetof(attnc_call, NAME), offsetof(attnc_gradients, NAME)}

typedef struct {
    const char *name;
    const attnc_mechanism *mechanism;
    int arrays; /* positional arguments before the options */
    /* Reads and checks all arguments: the arrays, then the options. */
    int (*read)(attnc_call *c, PyObject *const *args);
    const attnc_gradient *gradients; /* in the order of the result */
    int gradient_count;
} attnc_function;

/* Arguments: the arrays and options, then True to save what backward needs. The result is the
 * context or a tuple of what was asked for; with save (context, weights, lse, saved), None where
 * not asked for. */
PyObject *attnc_forward(const attnc_function *f, PyObject *const *args, Py_ssize_t count);

/* Arguments: these four, then those of the forward call. A tuple of gradients. */
enum { SAVED, D_CONTEXT, D_WEIGHTS, D_LSE, BACKWARD_FIRST };
PyObject *attnc_backward(const attnc_function *f, PyObject *const *args, Py_ssize_t count);

#endif
