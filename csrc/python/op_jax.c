/* op_jax: what attnc.jax needs of C: plans of attention calls (jax/plan.h), the handlers that XLA
 * calls, and one among them, here, that runs a function in Python, with the GIL, on arrays that are
 * views of XLA's buffers. */
#include "ops.h"

#include "arrays.h"
#include "options.h"
#include "../jax/attention.h"
#include "../jax/call.h"
#include "../jax/plan.h"

#include <stdio.h>
#include <string.h>

/* ---- plans ---- */

static const struct {
    const attnc_mechanism *mechanism;
    attnc_plan_mechanism number;
} MECHANISMS[] = {{&attnc_dot_product, ATTNC_PLAN_DOT_PRODUCT},
                  {&attnc_multiplicative, ATTNC_PLAN_MULTIPLICATIVE},
                  {&attnc_additive, ATTNC_PLAN_ADDITIVE},
                  {&attnc_cosine, ATTNC_PLAN_COSINE},
                  {&attnc_given_scores, ATTNC_PLAN_GIVEN}};

/* The functions whose results are those of run.c. */
static const attnc_function *function_of(PyObject *name)
{
#define ATTNC_ADDRESS(NAME, IN_PYTHON) &attnc_##NAME##_function,
    static const attnc_function *const all[] = {ATTNC_ATTENTION_FUNCTIONS(ATTNC_ADDRESS)
                                                    ATTNC_SCORES_FUNCTIONS(ATTNC_ADDRESS)};
#undef ATTNC_ADDRESS
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        if (!all[k]->results && PyUnicode_CompareWithASCIIString(name, all[k]->name) == 0)
            return all[k];
    return NULL;
}

static int64_t features_of(const attnc_argument *argument)
{
    return argument->array ? attnc_features(argument) : 0;
}

/* Which options are numbers that the engine reads like arrays; their values. */
static void plan_numbers(const attnc_call *c, attnc_plan *p)
{
    const struct {
        const attnc_argument *argument;
        PyArrayObject *values;
        int64_t bit;
        double *to;
    } rows[] = {{&c->slope, c->slopes, ATTNC_PLAN_BIT(slope), &p->slope},
                {&c->sink, c->sinks, ATTNC_PLAN_BIT(sink), &p->sink},
                {&c->center, c->centers, ATTNC_PLAN_BIT(center), &p->center}};
    for (int k = 0; k < 3; k++) {
        if (rows[k].argument->array)
            p->operands |= rows[k].bit;
        else if (rows[k].values) {
            p->numbers |= rows[k].bit;
            *rows[k].to = *(const double *)PyArray_DATA(rows[k].values);
        }
    }
}

static int64_t bits_of_operands(const attnc_call *c)
{
    int64_t bits = 0;
#define OF_ARGUMENT(NAME)                                                                          \
    if (c->NAME.array)                                                                             \
        bits |= ATTNC_PLAN_BIT(NAME);
#define OF_ARRAY(NAME)                                                                             \
    if (c->NAME)                                                                                   \
        bits |= ATTNC_PLAN_BIT(NAME);
    OF_ARGUMENT(query)
    OF_ARGUMENT(key)
    OF_ARGUMENT(value)
    OF_ARGUMENT(scores)
    OF_ARGUMENT(weight)
    OF_ARGUMENT(score_vector)
    OF_ARGUMENT(query_weight)
    OF_ARGUMENT(key_weight)
    OF_ARGUMENT(score_bias)
    OF_ARGUMENT(scale)
    OF_ARGUMENT(bias)
    OF_ARRAY(mask)
    OF_ARRAY(key_mask)
    OF_ARRAY(key_lengths)
    OF_ARRAY(query_lengths)
    OF_ARRAY(causal_offset)
    OF_ARRAY(query_offsets)
    OF_ARRAY(key_offsets)
#undef OF_ARGUMENT
#undef OF_ARRAY
    if (c->in.dropout > 0)
        bits |= ATTNC_PLAN_BIT(rng);
    return bits;
}

static int64_t bits_of_saves(const attnc_call *c, const attnc_function *f)
{
    if (f->scores_alone)
        return 0;
    if (c->query_offsets) /* what its sequences need depends on their lengths */
        return ATTNC_PLAN_CONTEXT | ATTNC_PLAN_STATS;
    const attnc_saves saves = attnc_what_is_saved(&c->in);
    return (saves.context >= 0 ? ATTNC_PLAN_CONTEXT : 0) |
           (saves.stats >= 0 ? ATTNC_PLAN_STATS : 0) |
           (saves.scores >= 0 ? ATTNC_PLAN_SAVED_SCORES : 0);
}

static attnc_plan plan_of(const attnc_call *c, const attnc_function *f)
{
    const attnc_inputs *in = &c->in;
    attnc_plan p = {
        .version = ATTNC_PLAN_VERSION,
        .f32 = in->f32,
        .operands = bits_of_operands(c),
        .returns = f->scores_alone
                       ? ATTNC_PLAN_SCORES
                       : ATTNC_PLAN_CONTEXT | (c->return_weights ? ATTNC_PLAN_WEIGHTS : 0) |
                             (c->return_lse ? ATTNC_PLAN_LSE : 0),
        .saves = bits_of_saves(c, f),
        .Tq = in->Tq,
        .Tk = in->Tk,
        .Dq = features_of(&c->query),
        .Dk = features_of(&c->key),
        .D = in->D,
        .Dv = in->Dv,
        .offset_count = c->query_offsets ? in->sequences + 1 : 0,
        .scale = c->scale.array ? 1 : in->scale,
        .sigma = in->sigma,
        .softcap = in->softcap,
        .dropout = in->dropout,
        .length = c->key_lengths ? in->Tk : in->length,
        .query_length = c->query_lengths ? in->Tq : in->query_length,
        .causal_offset = c->causal_offset ? 0 : in->causal_offset,
        .from_start = in->from_start,
        .causal = in->causal,
        .window = in->window,
        .left = in->left,
        .right = in->right,
        .renormalize = in->renormalize,
        .normalizer = in->normalizer,
        .ndim = in->lead.ndim,
    };
    for (size_t k = 0; k < sizeof MECHANISMS / sizeof *MECHANISMS; k++)
        if (MECHANISMS[k].mechanism == in->mechanism)
            p.mechanism = MECHANISMS[k].number;
    plan_numbers(c, &p);
    return p;
}

/* The words of a checked call in bytes, and the bits of its operands and of what backward needs. */
static PyObject *words_of(const attnc_call *c, const attnc_function *f)
{
    int64_t words[ATTNC_PLAN_WORDS + ATTNC_MAX_LEAD];
    const attnc_plan plan = plan_of(c, f);
    memcpy(words, &plan, sizeof plan);
    for (int d = 0; d < c->in.lead.ndim; d++)
        words[ATTNC_PLAN_WORDS + d] = c->in.lead.shape[d];
    const size_t size = ((size_t)ATTNC_PLAN_WORDS + (size_t)plan.ndim) * sizeof *words;
    return Py_BuildValue("y#LL", (const char *)words, (Py_ssize_t)size, (long long)plan.operands,
                         (long long)plan.saves);
}

enum { PLAN_ARGUMENTS = ATTNC_OWN_MOST + ATTNC_OPTIONS };

/* jax_plan(name, arrays, options): a tuple and a dict, the arguments of the function. The arrays
 * have the shapes and dtypes of those to come; of their numbers only offsets of sequences count,
 * and they have to be right. */
PyObject *attnc_jax_plan(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    _Alignas(64) char first[ATTNC_CALL_BYTES];
    PyObject *flat[PLAN_ARGUMENTS], *names = NULL, *result = NULL;
    attnc_call c;
    if (attnc_check_count("jax_plan", count, 3) < 0)
        return NULL;
    const attnc_function *f = PyUnicode_Check(args[0]) ? function_of(args[0]) : NULL;
    if (!f || !PyTuple_Check(args[1]) || !PyDict_Check(args[2]) ||
        PyTuple_Size(args[1]) > ATTNC_OWN_MOST || PyDict_Size(args[2]) > ATTNC_OPTIONS)
        return PyErr_Format(PyExc_TypeError, "jax_plan: needs the name of an attention function, a "
                                             "tuple and a dict");
    const Py_ssize_t own = PyTuple_Size(args[1]), named = PyDict_Size(args[2]);
    for (Py_ssize_t k = 0; k < own; k++)
        flat[k] = PyTuple_GetItem(args[1], k);
    names = PyTuple_New(named);
    PyObject *name, *value;
    Py_ssize_t at = 0, k = 0;
    while (names && PyDict_Next(args[2], &at, &name, &value)) {
        flat[own + k] = value;
        if (!PyUnicode_Check(name)) {
            PyErr_Format(PyExc_TypeError, "jax_plan: names of options must be strings, got %R",
                         name);
            Py_CLEAR(names);
        }
        else if (PyTuple_SetItem(names, k++, Py_NewRef(name)) < 0)
            Py_CLEAR(names);
    }
    if (!names)
        return NULL;
    attnc_call_begin(&c, f, first);
    if (attnc_read_whole_call(&c, f, flat, own, names) == 0)
        result = words_of(&c, f);
    attnc_call_clear(&c);
    Py_DECREF(names);
    return result;
}

/* ---- a function in Python ---- */

/* run(call, arguments, results): set once by attnc.jax, kept for good. */
static PyObject *callback;

PyObject *attnc_jax_callback(PyObject *module, PyObject *run)
{
    (void)module;
    if (!PyCallable_Check(run))
        return PyErr_Format(PyExc_TypeError, "jax_callback: needs a function, got %R", run);
    ATTNC_REPLACE(callback, Py_NewRef(run));
    Py_RETURN_NONE;
}

/* bfloat16 is NumPy's through ml_dtypes alone: its bits come as uint16, and Python, which knows
 * what they are, views them so. */
static int numpy_type(int dtype)
{
    static const struct {
        int dtype, type;
    } rows[] = {
        {ATTNC_FFI_PRED, NPY_BOOL},  {ATTNC_FFI_S8, NPY_INT8},    {ATTNC_FFI_S16, NPY_INT16},
        {ATTNC_FFI_S32, NPY_INT32},  {ATTNC_FFI_S64, NPY_INT64},  {ATTNC_FFI_U8, NPY_UINT8},
        {ATTNC_FFI_U16, NPY_UINT16}, {ATTNC_FFI_U32, NPY_UINT32}, {ATTNC_FFI_U64, NPY_UINT64},
        {ATTNC_FFI_F16, NPY_HALF},   {ATTNC_FFI_F32, NPY_FLOAT},  {ATTNC_FFI_F64, NPY_DOUBLE},
        {ATTNC_FFI_BF16, NPY_UINT16}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        if (rows[k].dtype == dtype)
            return rows[k].type;
    return -1;
}

/* A tuple of arrays that are the buffers; NULL with an error. */
static PyObject *arrays_of(const attnc_ffi_values *values, int flags)
{
    static char nothing[64]; /* what an empty buffer points to, which has no memory */
    PyObject *arrays = PyTuple_New((Py_ssize_t)values->size);
    for (int64_t k = 0; arrays && k < values->size; k++) {
        const attnc_ffi_buffer *buffer =
            values->types[k] == ATTNC_FFI_BUFFER ? values->values[k] : NULL;
        const int type = buffer ? numpy_type(buffer->dtype) : -1;
        PyObject *array = NULL;
        if (type < 0 || buffer->rank > 32) /* as many axes as NumPy 1 has */
            PyErr_SetString(PyExc_TypeError,
                            "attnc: a buffer is no array of a dtype that it knows");
        else
            array = PyArray_New(&PyArray_Type, (int)buffer->rank, (npy_intp *)buffer->dims, type,
                                NULL, buffer->data ? buffer->data : nothing, 0, flags, NULL);
        if (!array || PyTuple_SetItem(arrays, (Py_ssize_t)k, array) < 0)
            Py_CLEAR(arrays);
    }
    return arrays;
}

/* Takes the error that is set: its text, or its kind where it has none. Returns its code. */
static int take_error(char *said, size_t size)
{
    PyObject *kind, *value, *traceback;
    PyErr_Fetch(&kind, &value, &traceback);
    const int code = PyErr_GivenExceptionMatches(kind, PyExc_MemoryError)
                         ? ATTNC_FFI_RESOURCE_EXHAUSTED
                         : ATTNC_FFI_INVALID_ARGUMENT;
    PyObject *text = value ? PyObject_Str(value) : NULL;
    if (text && PyUnicode_GetLength(text) == 0)
        ATTNC_REPLACE(text, PyObject_Repr(kind));
    const char *bytes = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    snprintf(said, size, "%s", bytes ? bytes : "attnc: an error without a text");
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(kind);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return code;
}

/* Attribute `call`: which function, in a way that attnc.jax knows. */
static attnc_ffi_error *run_in_python(attnc_ffi_call *call)
{
    char said[4096];
    int code = 0;
    if (attnc_ffi_answers(call))
        return NULL;
    const attnc_ffi_span *which = attnc_ffi_attribute(call, "call", ATTNC_FFI_STRING);
    if (!which)
        return attnc_ffi_fail(call, ATTNC_FFI_INVALID_ARGUMENT,
                              "attnc: the program must have an attribute `call`");
    const fenv_t before = attnc_ffi_arithmetic_begin();
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *key = PyUnicode_DecodeUTF8(which->data, (Py_ssize_t)which->size, NULL);
    PyObject *arguments = key ? arrays_of(&call->arguments, NPY_ARRAY_CARRAY_RO) : NULL;
    PyObject *results = arguments ? arrays_of(&call->results, NPY_ARRAY_CARRAY) : NULL;
    PyObject *done = NULL;
    if (results && callback)
        done = PyObject_CallFunctionObjArgs(callback, key, arguments, results, NULL);
    else if (results)
        PyErr_SetString(PyExc_RuntimeError, "attnc: import attnc.jax before such a program runs");
    Py_XDECREF(key);
    Py_XDECREF(arguments);
    Py_XDECREF(results);
    if (!done)
        code = take_error(said, sizeof said);
    Py_XDECREF(done);
    PyGILState_Release(state);
    attnc_ffi_arithmetic_end(&before);
    return code ? attnc_ffi_fail(call, code, said) : NULL;
}

/* ---- the handlers as JAX takes them ---- */

PyObject *attnc_jax_handlers(PyObject *module, PyObject *none)
{
    static const struct {
        const char *name;
        attnc_ffi_handler *handler;
    } rows[] = {{"attnc_attention_forward", attnc_xla_attention_forward},
                {"attnc_attention_jvp", attnc_xla_attention_jvp},
                {"attnc_attention_backward", attnc_xla_attention_backward},
                {"attnc_attention_hvp", attnc_xla_attention_hvp},
                {"attnc_python", run_in_python}};
    (void)module, (void)none;
    PyObject *handlers = PyDict_New();
    for (size_t k = 0; handlers && k < sizeof rows / sizeof *rows; k++) {
        PyObject *capsule =
            PyCapsule_New((void *)(uintptr_t)rows[k].handler, "xla._CUSTOM_CALL_TARGET", NULL);
        if (!capsule || PyDict_SetItemString(handlers, rows[k].name, capsule) < 0)
            Py_CLEAR(handlers);
        Py_XDECREF(capsule);
    }
    return handlers;
}

/* The names of what may be an array of a plan, in order. */
PyObject *attnc_jax_operands(PyObject *module, PyObject *none)
{
    static const char *const names[] = {
#define ATTNC_NAME_OF(NAME, ...) #NAME,
        ATTNC_PLAN_OPERANDS(ATTNC_NAME_OF)
#undef ATTNC_NAME_OF
    };
    (void)module, (void)none;
    PyObject *result = PyTuple_New(ATTNC_PLAN_OPERAND_COUNT);
    for (int k = 0; result && k < ATTNC_PLAN_OPERAND_COUNT; k++) {
        PyObject *name = PyUnicode_FromString(names[k]);
        if (!name || PyTuple_SetItem(result, k, name) < 0)
            Py_CLEAR(result);
    }
    return result;
}
