/* op_hard: glue of hard_attention, which chooses one key a query by the caller's scores. Its
 * results are its own: context, index, log_probability, entropy. */
#include "ops.h"

#include "arrays.h"
#include "options.h"

/* ---- arguments ---- */

static int read_sample(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object)
{
    int sample = 1;
    (void)argument, (void)name;
    c->in.choice = &c->choice;
    if (object && attnc_read_flag(c->function, "sample must be True or False", object, &sample) < 0)
        return -1;
    c->choice.how = sample ? ATTNC_SAMPLED : ATTNC_LARGEST;
    return 0;
}

/* After sample. It is read against the shapes. */
static int read_index(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object)
{
    (void)argument, (void)name;
    if (!object || object == Py_None)
        return 0;
    c->index = object;
    c->choice.how = ATTNC_FORCED;
    return 0;
}

/* After both: the key itself, which nobody needs where nothing is drawn. */
static int read_key(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object)
{
    (void)argument, (void)name;
    if (c->choice.how != ATTNC_SAMPLED || !object)
        return 0;
    return attnc_read_key(c, object, &c->choice.key);
}

static int check(attnc_call *c)
{
    if (c->in.dropout > 0 || c->sink.array || c->sinks || c->in.normalizer != ATTNC_SOFTMAX ||
        c->return_weights || c->return_lse)
        return attnc_fail(c, PyExc_TypeError,
                          "there are no arguments dropout, sink, normalizer, return_weights and "
                          "return_lse, for one key has all the weight; attend has them");
    if (attnc_check_given_scores(c) < 0)
        return -1;
    /* A key is chosen in proportion to softmax and Gaussian, so that it may as well be inside. */
    c->in.renormalize = c->center.array || c->centers;
    if (c->index && attnc_fit_index(c, c->index) < 0)
        return -1;
    c->choice.forced = c->forced ? PyArray_DATA(c->forced) : NULL;
    return 0;
}

/* ---- results ---- */

static int make(attnc_call *c, int save, attnc_outputs *out)
{
    const int type = c->in.f32 ? NPY_FLOAT : NPY_DOUBLE, narrow = attnc_output_type(c);
    void *index = NULL;
    out->context.stored = attnc_stored_as(narrow);
    if (!(c->context = attnc_new_rows(c, c->in.Dv, narrow, &out->context.data)) ||
        !(c->chosen = attnc_new_rows(c, -1, NPY_INT64, &index)) ||
        !(c->log_probability = attnc_new_rows(c, -1, type, &out->log_probability)) ||
        !(c->entropy = attnc_new_rows(c, -1, type, &out->entropy)) ||
        (save && !(c->stats = attnc_new_rows(c, 2, type, &out->saved_stats))))
        return -1;
    out->index = index;
    return 0;
}

/* The kernel chooses what was asked for only where that can be chosen. */
static int check_forced(const attnc_call *c)
{
    if (!c->forced)
        return 0;
    const int64_t *forced = PyArray_DATA(c->forced), *chosen = PyArray_DATA(c->chosen);
    for (npy_intp k = 0; k < PyArray_SIZE(c->forced); k++) {
        if (forced[k] == chosen[k])
            continue;
        PyObject *place = attnc_place_of(c, k);
        if (place)
            attnc_fail(c, PyExc_ValueError,
                       "index must be a key that its query may attend to, or -1 where there is "
                       "none, got %lld at %R",
                       (long long)forced[k], place);
        Py_XDECREF(place);
        return -1;
    }
    return 0;
}

/* (context, index, log_probability, entropy), and where it saves the three arrays that backward
 * takes: copies of what the caller may write to. */
static PyObject *result(attnc_call *c)
{
    PyObject *context = NULL, *index = NULL, *entropy = NULL, *saved = NULL, *outputs = NULL;
    if (check_forced(c) < 0 || !(context = attnc_in_output_dtype(c, c->context)))
        return NULL;
    if (c->stats && (index = PyArray_NewCopy(c->chosen, NPY_CORDER)) &&
        (entropy = PyArray_NewCopy(c->entropy, NPY_CORDER)))
        saved = PyTuple_Pack(3, index, c->stats, entropy);
    if (saved)
        outputs = PyTuple_Pack(5, context, c->chosen, c->log_probability, c->entropy, saved);
    else if (!c->stats)
        outputs = PyTuple_Pack(4, context, c->chosen, c->log_probability, c->entropy);
    Py_DECREF(context);
    Py_XDECREF(index);
    Py_XDECREF(entropy);
    Py_XDECREF(saved);
    return outputs;
}

/* ---- backward ---- */

enum { D_LOG_PROBABILITY = D_WEIGHTS, D_ENTROPY = D_LSE };
enum { SAVED_INDEX = SAVED_CONTEXT, SAVED_ENTROPY = SAVED_SCORES };

static int read_backward(attnc_call *c, PyObject *const *args, attnc_incoming *incoming)
{
    const int ndim = c->in.lead.ndim, type = c->in.f32 ? NPY_FLOAT : NPY_DOUBLE;
    npy_intp shape[NPY_MAXDIMS];
    for (int d = 0; d < ndim; d++)
        shape[d] = c->in.lead.shape[d];
    shape[ndim] = c->in.Tq;
    shape[ndim + 1] = c->in.Dv;
    if (attnc_read_incoming(c, args[D_CONTEXT], "dcontext", "context", ndim + 2, shape, &c->context,
                            &incoming->context) < 0 ||
        attnc_read_incoming(c, args[D_LOG_PROBABILITY], "dlog_probability", "log_probability",
                            ndim + 1, shape, &c->log_probability, &incoming->log_probability) < 0 ||
        attnc_read_incoming(c, args[D_ENTROPY], "dentropy", "entropy", ndim + 1, shape, &c->entropy,
                            &incoming->entropy) < 0)
        return -1;
    incoming->saved_index = attnc_saved_array(c, args[SAVED_INDEX], NPY_INT64, -1);
    incoming->saved_stats = attnc_saved_array(c, args[SAVED_STATS], type, 2);
    incoming->saved_entropy = attnc_saved_array(c, args[SAVED_ENTROPY], type, -1);
    if (incoming->saved_index && incoming->saved_stats && incoming->saved_entropy)
        return 0;
    return attnc_fail(c, PyExc_ValueError, "saved must be what the forward call saved");
}

/* ---- forward mode ---- */

static int make_tangents(attnc_call *c, attnc_output_tangents *moved)
{
    const int type = c->in.f32 ? NPY_FLOAT : NPY_DOUBLE, narrow = attnc_output_type(c);
    moved->context.stored = attnc_stored_as(narrow);
    return !(c->context_tangent = attnc_new_rows(c, c->in.Dv, narrow, &moved->context.data)) ||
                   !(c->log_probability_tangent =
                         attnc_new_rows(c, -1, type, &moved->log_probability)) ||
                   !(c->entropy_tangent = attnc_new_rows(c, -1, type, &moved->entropy))
               ? -1
               : 0;
}

/* As the result; the index does not move. */
static PyObject *tangent_result(attnc_call *c)
{
    PyObject *context = attnc_in_output_dtype(c, c->context_tangent);
    PyObject *tangents =
        context ? PyTuple_Pack(4, context, Py_None, c->log_probability_tangent, c->entropy_tangent)
                : NULL;
    Py_XDECREF(context);
    return tangents;
}

static const attnc_own_results results = {make, result, read_backward, make_tangents,
                                          tangent_result};

const attnc_function attnc_hard_function = {
    "hard_attention",
    &attnc_given_scores,
    5,
    {ATTNC_OWN(scores, attnc_read), ATTNC_OWN(value, attnc_read),
     ATTNC_OWN_FLAG("sample", read_sample), ATTNC_OWN_FLAG("index", read_index),
     ATTNC_OWN_FLAG("rng", read_key)},
    .check = check,
    .results = &results};
