/* hvp: second order of the attention functions (run.h): reads the tangents, the incoming gradients
 * and their tangents, and runs the engine.
 */
#include "run.h"

#include "../engine/work.h"

/* An incoming gradient, or its tangent: of which output, where its array is kept, and its place in
 * attnc_incoming. */
typedef struct {
    const char *name, *tangent, *output;
    ptrdiff_t columns; /* of the last axis; -1: there is one number for each query */
    PyArrayObject **array, **array_of_tangent;
    size_t place;
    const char *asked_by; /* NULL, or the flag without which there is no such output */
} incoming_row;

enum { MOST_INCOMING = 3 };

static int incoming_rows(attnc_call *c, const attnc_function *f, incoming_row *rows)
{
#define ATTNC_INCOMING(NAME, COLUMNS, ARRAY, FLAG)                                                 \
    {                                                                                              \
        "d" #NAME, "tangent of d" #NAME, #NAME, COLUMNS, &c->ARRAY, &c->ARRAY##_tangent,           \
            offsetof(attnc_incoming, NAME), FLAG                                                   \
    }
    const incoming_row scores = ATTNC_INCOMING(scores, c->in.Tk, weights, NULL);
    const incoming_row hard[] = {ATTNC_INCOMING(context, c->in.Dv, context, NULL),
                                 ATTNC_INCOMING(log_probability, -1, log_probability, NULL),
                                 ATTNC_INCOMING(entropy, -1, entropy, NULL)};
    const incoming_row soft[] = {
        ATTNC_INCOMING(context, c->in.Dv, context, NULL),
        ATTNC_INCOMING(weights, c->in.Tk, weights, c->return_weights ? NULL : "return_weights"),
        ATTNC_INCOMING(lse, -1, lse, c->return_lse ? NULL : "return_lse")};
#undef ATTNC_INCOMING
    if (f->scores_alone) {
        rows[0] = scores;
        return 1;
    }
    for (int k = 0; k < MOST_INCOMING; k++)
        rows[k] = c->in.choice ? hard[k] : soft[k];
    return MOST_INCOMING;
}

/* Reads a tuple with an array or None for each row. */
static int read_incoming_of(attnc_call *c, const incoming_row *rows, int count, PyObject *tuple,
                            int tangents, attnc_incoming *incoming)
{
    npy_intp shape[NPY_MAXDIMS];
    const int ndim = c->in.lead.ndim;
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != count)
        return attnc_fail(c, PyExc_TypeError, "%s must be a tuple of %d, got %.200R",
                          tangents ? "dincoming" : "incoming", count, tuple);
    for (int d = 0; d < ndim; d++)
        shape[d] = c->in.lead.shape[d];
    shape[ndim] = c->in.Tq;
    for (int k = 0; k < count; k++) {
        const incoming_row *row = &rows[k];
        const char *name = tangents ? row->tangent : row->name;
        PyObject *object = PyTuple_GetItem(tuple, k);
        if (row->asked_by && object != Py_None)
            return attnc_fail(c, PyExc_ValueError, "%s must be None unless %s=True was asked for",
                              name, row->asked_by);
        if (row->columns >= 0)
            shape[ndim + 1] = row->columns;
        if (attnc_read_incoming(c, object, name, row->output, ndim + 1 + (row->columns >= 0), shape,
                                tangents ? row->array_of_tangent : row->array,
                                (void *)((char *)incoming + row->place)) < 0)
            return -1;
    }
    return 0;
}

static int run_hvp(const attnc_call *c, const attnc_tangents *tangents,
                   const attnc_incoming *incoming, const attnc_incoming *dincoming,
                   const attnc_gradients *gradients)
{
    int status;
    if (attnc_attention_work(&c->in, 1) * ATTNC_HVP_PASSES < ATTNC_GIL_MIN_WORK)
        status = attnc_attention_hvp(&c->in, tangents, incoming, dincoming, gradients, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_attention_hvp(&c->in, tangents, incoming, dincoming, gradients, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

PyObject *attnc_hvp(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                    PyObject *names)
{
    _Alignas(64) char first[ATTNC_CALL_BYTES];
    enum { TANGENTS, INCOMING, DINCOMING, HVP_FIRST };
    attnc_call c;
    attnc_tangents tangents = {0};
    attnc_incoming incoming = {0}, dincoming = {0};
    attnc_gradients gradients = {0};
    incoming_row rows[MOST_INCOMING];
    PyArrayObject *held[ATTNC_MOVING] = {NULL};
    PyObject *result = NULL;
    attnc_call_begin(&c, f, first);
    if (count < HVP_FIRST)
        attnc_fail(&c, PyExc_TypeError,
                   "hvp takes a dict of tangents and two tuples of gradients first, got %zd "
                   "arguments",
                   count);
    else if (attnc_read_whole_call(&c, f, args + HVP_FIRST, count - HVP_FIRST, names) == 0 &&
             attnc_read_tangents(&c, f, args[TANGENTS], &tangents, held) == 0 &&
             (!c.forced || attnc_check_choice(&c, f) == 0)) {
        const int n = incoming_rows(&c, f, rows);
        if (read_incoming_of(&c, rows, n, args[INCOMING], 0, &incoming) == 0 &&
            read_incoming_of(&c, rows, n, args[DINCOMING], 1, &dincoming) == 0 &&
            (result = attnc_make_gradients(&c, f, &gradients)) != NULL &&
            (run_hvp(&c, &tangents, &incoming, &dincoming, &gradients) < 0 ||
             attnc_narrow_gradients(&c, f, &gradients, result) < 0))
            Py_CLEAR(result);
    }
    for (int k = 0; k < ATTNC_MOVING; k++)
        Py_XDECREF((PyObject *)held[k]);
    attnc_call_clear(&c);
    return result;
}
