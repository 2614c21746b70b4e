/* run: see run.h. */
#include "run.h"

#include "arrays.h"
#include "../engine/work.h"

static int real_type(const attnc_call *c) { return c->in.f32 ? NPY_FLOAT : NPY_DOUBLE; }

static void call_begin(attnc_call *c, const attnc_function *f, void *first)
{
    *c = (attnc_call){.function = f->name,
                      .in = {.mechanism = f->mechanism},
                      .arena = attnc_arena_in(first, ATTNC_CALL_BYTES)};
}

static attnc_argument *argument_at(attnc_call *c, size_t place)
{
    return (void *)((char *)c + place);
}

/* Tells the engine of the arrays; args.c has told it of the options. */
static int fill_operands(attnc_call *c, const attnc_function *f)
{
    for (int k = 0; k < f->own_count; k++) {
        const attnc_argument *argument = argument_at(c, f->own[k].argument);
        const size_t place = f->own[k].operand;
        if (argument->array && place != ATTNC_NO_OPERAND &&
            attnc_operand_of(c, argument->array, (void *)((char *)&c->in + place)) < 0)
            return -1;
    }
    return c->bias.array ? attnc_operand_of(c, c->bias.array, &c->in.bias) : 0;
}

/* Whatever stands before a run: the checked call, as the engine reads it. */
static int read_call(attnc_call *c, const attnc_function *f, PyObject *const *args,
                     Py_ssize_t count, PyObject *names)
{
    return attnc_read_call(c, f, args, count, names) < 0 ? -1 : fill_operands(c, f);
}

int attnc_checked(attnc_call *c, const attnc_function *f, void *first, PyObject *const *args,
                  Py_ssize_t count, PyObject *names)
{
    call_begin(c, f, first);
    return read_call(c, f, args, count, names);
}

static const attnc_own_results usual;

/* ---- forward ---- */

int attnc_output_type(const attnc_call *c)
{
    const int type = c->output ? c->output->type_num : NPY_NOTYPE;
    return c->output && attnc_stored_as(type) != ATTNC_AS_COMPUTED ? type : real_type(c);
}

PyArrayObject *attnc_new_rows(const attnc_call *c, ptrdiff_t columns, int type, void **data)
{
    npy_intp shape[NPY_MAXDIMS];
    int ndim = c->in.lead.ndim;
    for (int d = 0; d < ndim; d++)
        shape[d] = c->in.lead.shape[d];
    shape[ndim++] = c->in.Tq;
    if (columns >= 0)
        shape[ndim++] = columns;
    PyArrayObject *array = attnc_new_array(ndim, shape, type, 0);
    *data = array ? PyArray_DATA(array) : NULL;
    return array;
}

static int make_outputs(attnc_call *c, int save, attnc_outputs *out)
{
    attnc_saves saves = {-1, -1, -1, 0};
    if (save)
        saves = attnc_what_is_saved(&c->in);
    const int type = real_type(c), narrow = attnc_output_type(c);
    out->context.stored = out->weights.stored = attnc_stored_as(narrow);
    if (!(c->context = attnc_new_rows(c, c->in.Dv, narrow, &out->context.data)) ||
        (c->return_lse && !(c->lse = attnc_new_rows(c, -1, type, &out->lse))) ||
        (c->return_weights &&
         !(c->weights = attnc_new_rows(c, c->in.Tk, narrow, &out->weights.data))) ||
        (saves.context >= 0 &&
         !(c->saved_context = attnc_new_rows(c, saves.context, type, &out->saved_context))) ||
        (saves.stats >= 0 &&
         !(c->stats = attnc_new_rows(c, saves.stats, type, &out->saved_stats))) ||
        (saves.scores >= 0 &&
         !(c->saved_scores = attnc_new_rows(c, saves.scores, type, &out->saved_scores))))
        return -1;
    if (saves.packed_scores > 0) {
        const npy_intp shape[] = {c->in.lead.count, saves.packed_scores};
        if (!(c->saved_scores = attnc_new_array(2, shape, type, 0)))
            return -1;
        out->saved_scores = PyArray_DATA(c->saved_scores);
    }
    return 0;
}

static int run_forward(const attnc_call *c, const attnc_outputs *out)
{
    int status;
    if (attnc_attention_work(&c->in, 0) < ATTNC_GIL_MIN_WORK)
        status = attnc_attention_forward(&c->in, out, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_attention_forward(&c->in, out, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

PyObject *attnc_in_output_dtype(const attnc_call *c, PyArrayObject *array)
{
    if (!c->output)
        return Py_NewRef((PyObject *)array);
    return attnc_narrowed(array, c->output);
}

static PyObject *forward_result(attnc_call *c)
{
    PyObject *context = NULL, *weights = NULL, *lse = NULL, *result = NULL;
    if (!(context = attnc_in_output_dtype(c, c->context)) ||
        (c->weights && !(weights = attnc_in_output_dtype(c, c->weights))))
        goto done;
    /* The lse stays in the computing dtype: rounded to a half it could not be merged. */
    lse = c->lse ? Py_NewRef((PyObject *)c->lse) : NULL;
    if (c->stats || c->saved_scores) {
        PyObject *saved = PyTuple_Pack(3, c->saved_context ? (PyObject *)c->saved_context : Py_None,
                                       c->stats ? (PyObject *)c->stats : Py_None,
                                       c->saved_scores ? (PyObject *)c->saved_scores : Py_None);
        if (saved)
            result =
                PyTuple_Pack(4, context, weights ? weights : Py_None, lse ? lse : Py_None, saved);
        Py_XDECREF(saved);
    }
    else if (weights && lse)
        result = PyTuple_Pack(3, context, weights, lse);
    else if (weights || lse)
        result = PyTuple_Pack(2, context, weights ? weights : lse);
    else
        result = Py_NewRef(context);
done:
    Py_XDECREF(context);
    Py_XDECREF(weights);
    Py_XDECREF(lse);
    return result;
}

PyObject *attnc_forward(const attnc_function *f, int save, PyObject *const *args, Py_ssize_t count,
                        PyObject *names)
{
    _Alignas(64) char first[ATTNC_CALL_BYTES];
    attnc_call c;
    attnc_outputs out = {0};
    PyObject *result = NULL;
    call_begin(&c, f, first);
    const attnc_own_results *own = f->results ? f->results : &usual;
    if (read_call(&c, f, args, count, names) == 0 && own->make(&c, save, &out) == 0 &&
        run_forward(&c, &out) == 0)
        result = own->result(&c);
    attnc_call_clear(&c);
    return result;
}

/* ---- backward ---- */

const void *attnc_saved_array(const attnc_call *c, PyObject *object, int type, ptrdiff_t columns)
{
    PyArrayObject *array = (PyArrayObject *)object;
    const attnc_lead *lead = &c->in.lead;
    if (!PyArray_Check(object) || PyArray_TYPE(array) != type || !PyArray_IS_C_CONTIGUOUS(array) ||
        PyArray_NDIM(array) != lead->ndim + 1 + (columns >= 0) ||
        PyArray_DIM(array, lead->ndim) != c->in.Tq ||
        (columns >= 0 && PyArray_DIM(array, lead->ndim + 1) != columns))
        return NULL;
    for (int d = 0; d < lead->ndim; d++)
        if (PyArray_DIM(array, d) != lead->shape[d])
            return NULL;
    return PyArray_DATA(array);
}

/* The same of the scores of a packed batch. */
static const void *packed_scores(const attnc_call *c, PyObject *object, ptrdiff_t count)
{
    PyArrayObject *array = (PyArrayObject *)object;
    if (!PyArray_Check(object) || PyArray_TYPE(array) != real_type(c) ||
        !PyArray_IS_C_CONTIGUOUS(array) || PyArray_NDIM(array) != 2 ||
        PyArray_DIM(array, 0) != c->in.lead.count || PyArray_DIM(array, 1) != count)
        return NULL;
    return PyArray_DATA(array);
}

static int read_saved(attnc_call *c, PyObject *const *args, attnc_incoming *incoming)
{
    PyObject *context = args[SAVED_CONTEXT], *scores = args[SAVED_SCORES];
    const attnc_saves saves = attnc_what_is_saved(&c->in);
    const int type = real_type(c);
    const int no_context = context == Py_None && saves.context < 0;
    const int sparse = c->in.normalizer != ATTNC_SOFTMAX; /* then its weights are all there is */
    incoming->saved_context = attnc_saved_array(c, context, type, c->in.Dv);
    incoming->saved_stats = attnc_saved_array(c, args[SAVED_STATS], type, 2);
    incoming->saved_scores = c->query_offsets ? packed_scores(c, scores, saves.packed_scores)
                                              : attnc_saved_array(c, scores, type, c->in.Tk);
    if (sparse ? incoming->saved_scores && no_context && args[SAVED_STATS] == Py_None
               : incoming->saved_stats && (incoming->saved_context || no_context) &&
                     (incoming->saved_scores || scores == Py_None))
        return 0;
    return attnc_fail(c, PyExc_ValueError, "saved must be what the forward call saved");
}

int attnc_read_incoming(attnc_call *c, PyObject *object, const char *name, const char *output,
                        int ndim, const npy_intp *shape, PyArrayObject **array,
                        attnc_operand *operand)
{
    const int halves = array == &c->context || array == &c->weights; /* others never are */
    if (attnc_read_gradient(c, object, name, output, ndim, shape, halves, array) < 0)
        return -1;
    return *array ? attnc_operand_of(c, *array, operand) : 0;
}

static int read_backward(attnc_call *c, PyObject *const *args, attnc_incoming *incoming)
{
    const int lead = c->in.lead.ndim;
    npy_intp shape[NPY_MAXDIMS];
    for (int d = 0; d < lead; d++)
        shape[d] = c->in.lead.shape[d];
    shape[lead] = c->in.Tq;
    if (!c->return_lse && args[D_LSE] != Py_None)
        return attnc_fail(c, PyExc_ValueError,
                          "dlse must be None unless return_lse=True was asked for");
    if (!c->return_weights && args[D_WEIGHTS] != Py_None)
        return attnc_fail(c, PyExc_ValueError,
                          "dweights must be None unless return_weights=True was asked for");
    if (attnc_read_incoming(c, args[D_LSE], "dlse", "lse", lead + 1, shape, &c->lse,
                            &incoming->lse) < 0)
        return -1;
    shape[lead + 1] = c->in.Tk;
    if (attnc_read_incoming(c, args[D_WEIGHTS], "dweights", "weights", lead + 2, shape, &c->weights,
                            &incoming->weights) < 0)
        return -1;
    shape[lead + 1] = c->in.Dv;
    if (read_saved(c, args, incoming) < 0)
        return -1;
    return attnc_read_incoming(c, args[D_CONTEXT], "dcontext", "context", lead + 2, shape,
                               &c->context, &incoming->context);
}

static const attnc_own_results usual = {make_outputs, forward_result, read_backward};

/* A gradient of the result: of which argument, and where the engine finds its memory. */
typedef struct {
    attnc_argument *argument;
    attnc_result *place;
} wanted;

/* Options that have gradients: bias, slope, sink and center. */
enum { WANTED_OPTIONS = 4 };

static int wanted_count(const attnc_function *f)
{
    return f->own_count + (f->scores_alone ? 0 : WANTED_OPTIONS);
}

/* The k-th: of the function's own arguments, then of the options. Of a result that is a pointer
 * alone, only that is set. */
static wanted wanted_at(attnc_call *c, const attnc_function *f, int k, attnc_gradients *gradients)
{
    if (k == f->own_count)
        return (wanted){&c->bias, &gradients->bias};
    if (k == f->own_count + 1)
        return (wanted){&c->slope, (void *)&gradients->slope};
    if (k == f->own_count + 2)
        return (wanted){&c->sink, (void *)&gradients->sink};
    if (k == f->own_count + 3)
        return (wanted){&c->center, (void *)&gradients->center};
    return (wanted){argument_at(c, f->own[k].argument),
                    (void *)((char *)gradients + f->own[k].gradient)};
}

/* A tuple of new arrays for the gradients, None where there is no argument; their memory goes to
 * *gradients. */
static PyObject *make_gradients(attnc_call *c, const attnc_function *f, attnc_gradients *gradients)
{
    const int count = wanted_count(f);
    PyObject *result = PyTuple_New(count);
    /* Kernels skip the tiles of scores and bias that are not allowed; all else they write whole. */
    gradients->zeroed = 1;
    for (int k = 0; result && k < count; k++) {
        const wanted w = wanted_at(c, f, k, gradients);
        PyObject *gradient = Py_NewRef(Py_None);
        if (w.argument->array) {
            const int zeroed = w.argument == &c->scores || w.argument == &c->bias;
            const int converted =
                w.argument != &c->slope && w.argument != &c->sink && w.argument != &c->center;
            /* computing, or halves */
            const int type = converted ? PyArray_TYPE(w.argument->array) : real_type(c);
            ATTNC_REPLACE(gradient, (PyObject *)attnc_new_array(PyArray_NDIM(w.argument->array),
                                                                PyArray_DIMS(w.argument->array),
                                                                type, zeroed));
            if (gradient)
                w.place->data = PyArray_DATA((PyArrayObject *)gradient);
            if (attnc_stored_as(type) != ATTNC_AS_COMPUTED)
                w.place->stored = attnc_stored_as(type);
        }
        if (!gradient || PyTuple_SetItem(result, k, gradient) < 0)
            Py_CLEAR(result);
    }
    return result;
}

static int run_backward(const attnc_call *c, const attnc_incoming *incoming,
                        const attnc_gradients *gradients)
{
    int status;
    if (attnc_attention_work(&c->in, 1) < ATTNC_GIL_MIN_WORK)
        status = attnc_attention_backward(&c->in, incoming, gradients, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_attention_backward(&c->in, incoming, gradients, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

/* Each gradient in its argument's dtype. */
static int narrow_gradients(attnc_call *c, const attnc_function *f, attnc_gradients *gradients,
                            PyObject *result)
{
    for (int k = 0; k < wanted_count(f); k++) {
        const attnc_argument *argument = wanted_at(c, f, k, gradients).argument;
        if (!argument->array || !argument->dtype)
            continue;
        PyObject *wide = PyTuple_GetItem(result, k);
        PyObject *narrow = attnc_narrowed((PyArrayObject *)wide, argument->dtype);
        if (!narrow || PyTuple_SetItem(result, k, narrow) < 0)
            return -1;
    }
    return 0;
}

/* The tuple that make_gradients made, when the engine has filled it; NULL on error. */
static PyObject *filled_gradients(attnc_call *c, const attnc_function *f,
                                  const attnc_incoming *incoming, attnc_gradients *gradients,
                                  PyObject *result)
{
    if (run_backward(c, incoming, gradients) < 0 || narrow_gradients(c, f, gradients, result) < 0)
        Py_CLEAR(result);
    return result;
}

PyObject *attnc_backward(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                         PyObject *names)
{
    _Alignas(64) char first[ATTNC_CALL_BYTES];
    attnc_call c;
    attnc_incoming incoming = {0};
    attnc_gradients gradients = {0};
    const attnc_own_results *own = f->results ? f->results : &usual;
    PyObject *result = NULL;
    call_begin(&c, f, first);
    if (count < BACKWARD_FIRST)
        attnc_fail(&c, PyExc_TypeError,
                   "backward takes three gradients and three saved arrays first, got %zd arguments",
                   count);
    else if (read_call(&c, f, args + BACKWARD_FIRST, count - BACKWARD_FIRST, names) == 0 &&
             own->read_backward(&c, args, &incoming) == 0 &&
             (result = make_gradients(&c, f, &gradients)) != NULL)
        result = filled_gradients(&c, f, &incoming, &gradients, result);
    attnc_call_clear(&c);
    return result;
}

/* ---- scores alone ---- */

/* The shape (lead, Tq, Tk); returns the number of its axes. */
static int scores_shape(const attnc_call *c, npy_intp *shape)
{
    int ndim = c->in.lead.ndim;
    for (int d = 0; d < ndim; d++)
        shape[d] = c->in.lead.shape[d];
    shape[ndim++] = c->in.Tq;
    shape[ndim++] = c->in.Tk;
    return ndim;
}

PyObject *attnc_scores_forward(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    _Alignas(64) char first[ATTNC_CALL_BYTES];
    attnc_call c;
    attnc_outputs out = {0};
    PyObject *result = NULL;
    call_begin(&c, f, first);
    if (read_call(&c, f, args, count, names) == 0) {
        const int type = attnc_output_type(&c);
        out.scores.stored = attnc_stored_as(type);
        PyArrayObject *scores = attnc_new_rows(&c, c.in.Tk, type, &out.scores.data);
        if (scores && run_forward(&c, &out) == 0)
            result = attnc_in_output_dtype(&c, scores);
        Py_XDECREF((PyObject *)scores);
    }
    attnc_call_clear(&c);
    return result;
}

PyObject *attnc_scores_backward(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                                PyObject *names)
{
    _Alignas(64) char first[ATTNC_CALL_BYTES];
    attnc_call c;
    attnc_incoming incoming = {0};
    attnc_gradients gradients = {0};
    npy_intp shape[NPY_MAXDIMS];
    PyObject *result = NULL;
    call_begin(&c, f, first);
    if (count < 1 || args[0] == Py_None)
        attnc_fail(&c, PyExc_TypeError, "backward takes the gradient of the scores first");
    else if (read_call(&c, f, args + 1, count - 1, names) == 0 &&
             attnc_read_incoming(&c, args[0], "dscores", "scores", scores_shape(&c, shape), shape,
                                 &c.weights, &incoming.scores) == 0 &&
             (result = make_gradients(&c, f, &gradients)) != NULL)
        result = filled_gradients(&c, f, &incoming, &gradients, result);
    attnc_call_clear(&c);
    return result;
}
