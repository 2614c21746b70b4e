/* run: from a parsed call to its results: allocates, hands the kernels to the pool, sums gradients
 * up to the shapes of their arguments. The same for every mechanism; what differs is its row of
 * four functions, attnc_mechanism, in op_NAME.c.
 *
 * defines: attnc_mechanism, attnc_forward, attnc_backward, attnc_block, attnc_want,
 *          attnc_run_backward, attnc_run_product, attnc_run_normalize, attnc_run_cross_entropy,
 *          attnc_own_count
 */
#ifndef ATTNC_RUN_H
#define ATTNC_RUN_H

#include "args.h"

/* ---- gradients of a backward call ---- */

typedef struct {
    const attnc_operand *operand;
    PyArrayObject *array;
} attnc_gradient;

enum { ATTNC_MAX_GRADIENTS = 12 };

/* What the call returns, in the order of attnc_want. */
typedef struct {
    attnc_gradient list[ATTNC_MAX_GRADIENTS];
    int count, failed;
} attnc_gradients;

/* Appends the operand's gradient to the result and returns its contiguous memory, to be written
 * whole. NULL: the operand was not given, or MemoryError (attnc_run_backward then fails). */
void *attnc_want(attnc_call *c, attnc_gradients *g, const attnc_operand *operand);

/* Where attnc_run_backward puts what it computes: contiguous, of the shape of the operand with the
 * same name (query and key with a.D channels). NULL: not wanted. */
typedef struct {
    void *query, *key, *value, *scores, *bias, *score_vector, *scale;
} attnc_gradient_targets;
int attnc_run_backward(attnc_call *c, const attnc_gradients *g, attnc_gradient_targets *targets);

/* ---- a mechanism ---- */

typedef struct {
    const char *name;
    int arrays; /* positional arguments before the options */
    /* Reads and checks all arguments: the arrays, then the options. */
    int (*read)(attnc_call *c, PyObject *const *args);
    /* Sets a.score and the views of what the scores are made of; projects where needed. */
    int (*prepare)(attnc_call *c);
    /* Wants its gradients and computes them. */
    int (*backward)(attnc_call *c, attnc_gradients *g);
} attnc_mechanism;

/* Arguments: the arrays and options, then True to save what backward needs. The result is the
 * context or a tuple of what was asked for; with save (context, weights, lse, saved), None where
 * not asked for. */
PyObject *attnc_forward(const attnc_mechanism *m, PyObject *const *args, Py_ssize_t count);

/* Arguments: these four, then those of the forward call. A tuple of gradients. */
enum { SAVED, D_CONTEXT, D_WEIGHTS, D_LSE, BACKWARD_FIRST };
PyObject *attnc_backward(const attnc_mechanism *m, PyObject *const *args, Py_ssize_t count);

/* ---- what mechanisms need for prepare and backward ---- */

/* A block of count elements of the computing dtype that lives as long as the call, or NULL with
 * MemoryError. */
void *attnc_block(attnc_call *c, ptrdiff_t count);
int attnc_run_product(const attnc_call *c, const attnc_product *p);
int attnc_run_cross_entropy(const attnc_call *c, const attnc_cross_entropy *a, int backward);
int attnc_run_normalize(attnc_call *c, const attnc_normalize *a, int backward);
/* The product of all axes of an operand but the last two. */
ptrdiff_t attnc_own_count(const attnc_operand *operand);

#endif
