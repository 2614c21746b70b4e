/* args: see args.h. */
#include "options.h"

#include "arrays.h"
#include "../engine/values.h"

#include <math.h>
#include <stdarg.h>

static int computing_type(const attnc_call *c) { return c->in.f32 ? NPY_FLOAT : NPY_DOUBLE; }

ptrdiff_t attnc_stride(const PyArrayObject *array, int axis, int *whole)
{
    if (PyArray_SIZE(array) == 0 || PyArray_DIM(array, axis) <= 1)
        return 1; /* NumPy sets such strides as it likes */
    const npy_intp stride = PyArray_STRIDE(array, axis), item = PyArray_ITEMSIZE(array);
    *whole &= stride % item == 0;
    return stride / item;
}

void attnc_call_clear(attnc_call *c)
{
    for (int k = 0; k < ATTNC_ARGUMENTS; k++) {
        Py_CLEAR(c->arguments[k].array);
        Py_CLEAR(c->arguments[k].dtype);
    }
    Py_CLEAR(c->mask);
    Py_CLEAR(c->key_mask);
    Py_CLEAR(c->key_lengths);
    Py_CLEAR(c->query_lengths);
    Py_CLEAR(c->causal_offset);
    Py_CLEAR(c->slope.array);
    Py_CLEAR(c->slope.dtype);
    Py_CLEAR(c->slopes);
    Py_CLEAR(c->sink.array);
    Py_CLEAR(c->sink.dtype);
    Py_CLEAR(c->sinks);
    Py_CLEAR(c->center.array);
    Py_CLEAR(c->center.dtype);
    Py_CLEAR(c->centers);
    Py_CLEAR(c->query_offsets);
    Py_CLEAR(c->key_offsets);
    Py_CLEAR(c->output);
    Py_CLEAR(c->context);
    Py_CLEAR(c->weights);
    Py_CLEAR(c->lse);
    Py_CLEAR(c->saved_context);
    Py_CLEAR(c->stats);
    Py_CLEAR(c->saved_scores);
    Py_CLEAR(c->forced);
    Py_CLEAR(c->chosen);
    Py_CLEAR(c->log_probability);
    Py_CLEAR(c->entropy);
    Py_CLEAR(c->context_tangent);
    Py_CLEAR(c->weights_tangent);
    Py_CLEAR(c->lse_tangent);
    Py_CLEAR(c->log_probability_tangent);
    Py_CLEAR(c->entropy_tangent);
    attnc_give_back(&c->arena);
}

/* ---- reading arrays ---- */

static PyObject *shape_of(PyArrayObject *array)
{
    return attnc_tuple_of(PyArray_DIMS(array), PyArray_NDIM(array));
}

/* "query (2, 3, 4), key (2, 5, 4) ..." of all arrays given. */
static PyObject *all_shapes(attnc_call *c)
{
    PyObject *text = PyUnicode_FromString("");
    const char *separator = "";
    for (int k = 0; text && k < ATTNC_ARGUMENTS; k++) {
        const attnc_argument *one = &c->arguments[k];
        if (!one->array || one == &c->scale || one == &c->bias)
            continue;
        PyObject *shape = shape_of(one->array);
        PyObject *longer =
            shape ? PyUnicode_FromFormat("%U%s%s %R", text, separator, one->name, shape) : NULL;
        Py_XDECREF(shape);
        ATTNC_REPLACE(text, longer);
        separator = ", ";
    }
    return text;
}

/* Fails with the message and the shapes of all arrays. */
static int fail_shapes(attnc_call *c, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *message = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    PyObject *shapes = message ? all_shapes(c) : NULL;
    if (shapes)
        attnc_fail(c, PyExc_ValueError, "%U, got %U", message, shapes);
    Py_XDECREF(message);
    Py_XDECREF(shapes);
    return -1;
}

int attnc_read(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object)
{
    argument->name = name;
    if (!object || object == Py_None)
        return attnc_fail(c, PyExc_TypeError, "%s must be an array, got None", name);
    argument->array = attnc_as_array(c->function, name, object, 1);
    if (!argument->array)
        return -1;
    PyArray_Descr *dtype = PyArray_DESCR(argument->array);
    if (!attnc_is_float(dtype)) {
        if (PyTypeNum_ISINTEGER(dtype->type_num) || PyTypeNum_ISBOOL(dtype->type_num))
            return 0;
        return attnc_fail(
            c, PyExc_TypeError,
            "%s must hold real numbers (float16, bfloat16, float32, float64; integers "
            "become float64), got dtype %S",
            name, dtype);
    }
    /* the gradient's dtype: native byte order */
    if (PyArray_ISNOTSWAPPED(argument->array))
        argument->dtype = (PyArray_Descr *)Py_NewRef((PyObject *)dtype);
    else if (!(argument->dtype = PyArray_DescrNewByteorder(dtype, NPY_NATIVE)))
        return -1;
    return 0;
}

int attnc_read_optional(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object)
{
    return !object || object == Py_None ? 0 : attnc_read(c, argument, name, object);
}

static int read_scale(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object,
                      const char *rule)
{
    if (!PyArray_Check(object)) {
        if (attnc_read_number(c->function, rule, object, &c->in.scale) < 0)
            return -1;
        if (isfinite(c->in.scale))
            return 0;
        return attnc_complain_got(c->function, PyExc_ValueError, rule, object);
    }
    if (PyArray_NDIM((PyArrayObject *)object) == 0)
        return attnc_read(c, argument, name, object);
    PyObject *shape = shape_of((PyArrayObject *)object);
    if (shape)
        attnc_fail(c, PyExc_ValueError,
                   "%s, got an array of shape %R; for a scale per head multiply the query", rule,
                   shape);
    Py_XDECREF(shape);
    return -1;
}

int attnc_read_scale(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object)
{
    c->in.scale = 1;
    if (!object)
        return 0;
    return read_scale(c, argument, name, object, "scale must be a real number or a 0-d array");
}

int attnc_read_optional_scale(attnc_call *c, attnc_argument *argument, const char *name,
                              PyObject *object)
{
    c->in.scale = NAN;
    if (!object || object == Py_None)
        return 0;
    return read_scale(c, argument, name, object,
                      "scale must be None, a real number or a 0-d array");
}

/* ---- conversion ---- */

static int is_native(PyArrayObject *array, int type)
{
    return PyArray_TYPE(array) == type && PyArray_ISBEHAVED_RO(array);
}

/* Kernels read rows: the last axis must be contiguous, other strides whole elements. */
static int rows_are_readable(PyArrayObject *array)
{
    int ndim = PyArray_NDIM(array);
    npy_intp size = PyArray_ITEMSIZE(array);
    if (ndim > 0 && PyArray_DIM(array, ndim - 1) > 1 && PyArray_STRIDE(array, ndim - 1) != size)
        return 0;
    for (int d = 0; d < ndim - 1; d++)
        if (PyArray_STRIDE(array, d) & (size - 1)) /* of 2, 4 or 8 bytes */
            return 0;
    return 1;
}

static PyObject *converted(PyArrayObject *array, int type)
{
    return PyArray_FROMANY((PyObject *)array, type, 0, 0,
                           NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST |
                               NPY_ARRAY_ENSUREARRAY);
}

/* The same where numpy.errstate(under="raise") refused it: what is too small for the type is 0 in
 * it, or subnormal, and that is no error. */
static PyObject *converted_despite_underflow(PyArrayObject *array, int type)
{
    PyObject *numpy = PyImport_ImportModule("numpy");
    PyObject *errstate = numpy ? PyObject_GetAttrString(numpy, "errstate") : NULL;
    PyObject *none = PyTuple_New(0), *under = Py_BuildValue("{ss}", "under", "ignore");
    PyObject *block = errstate && none && under ? PyObject_Call(errstate, none, under) : NULL;
    PyObject *entered = block ? PyObject_CallMethod(block, "__enter__", NULL) : NULL;
    PyObject *result = entered ? converted(array, type) : NULL;
    if (entered) {
        PyObject *kind, *value, *traceback; /* of an overflow, which stays an error */
        PyErr_Fetch(&kind, &value, &traceback);
        PyObject *left = PyObject_CallMethod(block, "__exit__", "OOO", Py_None, Py_None, Py_None);
        if (kind)
            PyErr_Restore(kind, value, traceback);
        else if (!left)
            Py_CLEAR(result);
        Py_XDECREF(left);
    }
    Py_XDECREF(numpy);
    Py_XDECREF(errstate);
    Py_XDECREF(none);
    Py_XDECREF(under);
    Py_XDECREF(block);
    Py_XDECREF(entered);
    return result;
}

static int make_contiguous(attnc_argument *argument)
{
    if (PyArray_IS_C_CONTIGUOUS(argument->array))
        return 0;
    PyObject *copy = PyArray_NewCopy(argument->array, NPY_CORDER);
    if (!copy)
        return -1;
    ATTNC_REPLACE(argument->array, (PyArrayObject *)copy);
    return 0;
}

/* Whether the kernels read the array in halves, as it is. */
static int stays_in_halves(const attnc_call *c, PyArrayObject *array)
{
    const int type = PyArray_TYPE(array);
    return c->in.f32 && attnc_stored_as(type) != ATTNC_AS_COMPUTED && is_native(array, type);
}

static int convert_argument(attnc_call *c, attnc_argument *argument, int halves)
{
    int type = computing_type(c);
    if (!argument->array)
        return 0;
    if (!is_native(argument->array, type) && !(halves && stays_in_halves(c, argument->array))) {
        PyObject *native = converted(argument->array, type);
        if (!native && PyErr_ExceptionMatches(PyExc_FloatingPointError)) {
            PyErr_Clear();
            native = converted_despite_underflow(argument->array, type);
        }
        if (!native)
            return -1;
        ATTNC_REPLACE(argument->array, (PyArrayObject *)native);
    }
    return rows_are_readable(argument->array) ? 0 : make_contiguous(argument);
}

static int check_range(const attnc_call *c, const char *name, double value, attnc_range range)
{
    if (attnc_is_in(range, value))
        return 0;
    PyObject *got = PyFloat_FromDouble(value);
    if (got)
        attnc_fail(c, PyExc_ValueError,
                   "%s must be 0 or of a magnitude in %s to be computed in %s, "
                   "got %R%s",
                   name, range.text, c->in.f32 ? "float32" : "float64", got,
                   c->in.f32 && isfinite(value) ? "; float64 arrays allow more" : "");
    Py_XDECREF(got);
    return -1;
}

static int check_constants(const attnc_call *c)
{
    const double scale = c->scale.array || isnan(c->in.scale) ? 1 : c->in.scale;
    return check_range(c, "scale", scale, attnc_scale_range(c->in.f32)) < 0
               ? -1
               : check_range(c, "softcap", c->in.softcap, attnc_softcap_range(c->in.f32));
}

static int convert(attnc_call *c)
{
    PyArray_Descr *dtypes[ATTNC_ARGUMENTS];
    int count = 0, floats = 1, doubles = 1;
    for (int k = 0; k < ATTNC_ARGUMENTS; k++) {
        if (!c->arguments[k].array)
            continue;
        PyArray_Descr *dtype = c->arguments[k].dtype;
        const int type = dtype ? dtype->type_num : -1;
        floats = floats && type == NPY_FLOAT;
        doubles = doubles && type == NPY_DOUBLE;
        dtypes[count++] = dtype;
    }
    if (floats)
        c->in.f32 = 1;
    else if (!doubles) {
        PyArray_Descr *wide = PyArray_DescrFromType(NPY_DOUBLE);
        for (int k = 0; k < count; k++)
            if (!dtypes[k])
                dtypes[k] = wide;
        c->output = PyArray_ResultType(0, NULL, count, dtypes);
        Py_DECREF(wide);
        if (!c->output) {
            if (!PyErr_ExceptionMatches(PyExc_TypeError))
                return -1;
            PyErr_Clear();
            return attnc_fail(c, PyExc_TypeError,
                              "arrays must have dtypes with one that holds them all, got float16 "
                              "with bfloat16; convert one of them, .astype(np.float32)");
        }
        c->in.f32 = c->output->type_num != NPY_DOUBLE;
    }
    for (int k = 0; k < ATTNC_ARGUMENTS; k++) {
        const attnc_argument *a = &c->arguments[k];
        const int halves =
            a == &c->query || a == &c->key || a == &c->value || a == &c->scores || a == &c->bias;
        if (convert_argument(c, &c->arguments[k], halves) < 0)
            return -1;
    }
    if (c->scale.array)
        c->in.scale = c->in.f32 ? *(float *)PyArray_DATA(c->scale.array)
                                : *(double *)PyArray_DATA(c->scale.array);
    return check_constants(c);
}

/* ---- shapes ---- */

/* lead = the broadcast of the leading axes of the n arrays. */
static int broadcast_lead(attnc_call *c, const attnc_argument *const *arguments, int n)
{
    attnc_lead *lead = &c->in.lead;
    const int ndim = PyArray_NDIM(arguments[0]->array) - 2;
    ptrdiff_t *shape = attnc_take(&c->arena, (size_t)ndim, sizeof *shape);
    if (!shape) {
        PyErr_NoMemory();
        return -1;
    }
    *lead = (attnc_lead){ndim, 1, shape};
    for (int d = 0; d < ndim; d++) {
        shape[d] = 1;
        for (int k = 0; k < n; k++) {
            npy_intp size = PyArray_DIM(arguments[k]->array, d);
            if (size != 1 && shape[d] != 1 && size != shape[d])
                return fail_shapes(
                    c,
                    "%s must have the leading axes (batch, heads) of the other arrays, "
                    "equal or 1 in axis %d",
                    arguments[k]->name, d);
            if (size != 1)
                shape[d] = size;
        }
    }
    int empty = 0;
    for (int d = 0; d < ndim; d++)
        empty |= shape[d] == 0;
    for (int d = 0; d < ndim && !empty; d++)
        if (__builtin_mul_overflow(lead->count, shape[d], &lead->count))
            return fail_shapes(c, "query must leave the broadcast leading axes countable");
    if (empty)
        lead->count = 0;
    return 0;
}

static int check_rank(attnc_call *c, const attnc_argument *argument, const attnc_argument *other)
{
    int ndim = PyArray_NDIM(argument->array), rank = PyArray_NDIM(other->array);
    if (ndim < 2)
        return fail_shapes(c,
                           ndim == 1
                               ? "%s must have at least 2 axes (time, feature); for one vector "
                                 "write %s[None, :]"
                               : "%s must have at least 2 axes (time, feature)",
                           argument->name, argument->name);
    if (rank >= 2 && ndim != rank) {
        const attnc_argument *shorter = ndim < rank ? argument : other;
        const int one_step =
            PyArray_NDIM(shorter->array) == 2 && (ndim == 3 || rank == 3) && shorter == &c->query;
        return fail_shapes(c,
                           one_step
                               ? "%s must have as many axes as %s; for one query a sequence write "
                                 "%s[:, None, :]"
                               : "%s must have as many axes as %s; give %s axes of size 1 where "
                                 "it broadcasts",
                           argument->name, other->name, shorter->name);
    }
    return 0;
}

int attnc_check_sequences(attnc_call *c, int same_features)
{
    const attnc_argument *three[] = {&c->query, &c->key, &c->value};
    const int attends = c->value.array != NULL; /* else the scores alone are wanted */
    if (check_rank(c, &c->query, &c->key) < 0 || check_rank(c, &c->key, &c->query) < 0 ||
        (attends && check_rank(c, &c->value, &c->key) < 0))
        return -1;
    int last = PyArray_NDIM(c->query.array) - 1;
    c->in.Tq = PyArray_DIM(c->query.array, last - 1);
    c->in.Tk = PyArray_DIM(c->key.array, last - 1);
    c->in.D = PyArray_DIM(c->key.array, last);
    if (same_features && PyArray_DIM(c->query.array, last) != c->in.D)
        return fail_shapes(c, "key must have the feature size of query in its last axis, %zd",
                           (Py_ssize_t)PyArray_DIM(c->query.array, last));
    if (!attends)
        return broadcast_lead(c, three, 2);
    c->in.Dv = PyArray_DIM(c->value.array, last);
    if (PyArray_DIM(c->value.array, last - 1) != c->in.Tk)
        return fail_shapes(c, "value must have the length of key in its time axis, %zd",
                           (Py_ssize_t)c->in.Tk);
    return broadcast_lead(c, three, 3);
}

int attnc_check_given_scores(attnc_call *c)
{
    const attnc_argument *two[] = {&c->scores, &c->value};
    if (check_rank(c, &c->scores, &c->value) < 0 || check_rank(c, &c->value, &c->scores) < 0)
        return -1;
    int last = PyArray_NDIM(c->scores.array) - 1;
    c->in.Tq = PyArray_DIM(c->scores.array, last - 1);
    c->in.Tk = PyArray_DIM(c->scores.array, last);
    c->in.Dv = PyArray_DIM(c->value.array, last);
    if (PyArray_DIM(c->value.array, last - 1) != c->in.Tk)
        return fail_shapes(c, "value must have one row for each column of scores, %zd",
                           (Py_ssize_t)c->in.Tk);
    return broadcast_lead(c, two, 2);
}

int attnc_check_parameter(attnc_call *c, const attnc_argument *argument, npy_intp m, npy_intp n,
                          const char *rule)
{
    PyArrayObject *array = argument->array;
    if (!array)
        return 0;
    if (n < 0
            ? PyArray_NDIM(array) == 1 && PyArray_DIM(array, 0) == m
            : PyArray_NDIM(array) == 2 && PyArray_DIM(array, 0) == m && PyArray_DIM(array, 1) == n)
        return 0;
    if (n < 0)
        return fail_shapes(c, "%s must have shape (%zd,): %s", argument->name, (Py_ssize_t)m, rule);
    return fail_shapes(c, "%s must have shape (%zd, %zd): %s", argument->name, (Py_ssize_t)m,
                       (Py_ssize_t)n, rule);
}

int attnc_check_vector(attnc_call *c, const attnc_argument *argument)
{
    if (PyArray_NDIM(argument->array) == 1)
        return 0;
    return fail_shapes(c, "%s must have one axis", argument->name);
}

int attnc_check_projected(attnc_call *c, const attnc_argument *argument, npy_intp H,
                          const char *weight)
{
    PyArrayObject *array = argument->array;
    if (PyArray_DIM(array, PyArray_NDIM(array) - 1) == H)
        return 0;
    return fail_shapes(
        c,
        "%s must have the size of score_vector, %zd, in its last axis, because no %s is "
        "given to project it",
        argument->name, (Py_ssize_t)H, weight);
}

/* ---- a call ---- */

/* The error for a name that no argument has; attnc.functional.options knows how to word it. */
static int fail_unknown(const attnc_call *c, const attnc_function *f, PyObject *name)
{
    PyObject *options = PyImport_ImportModule("attnc.functional.options");
    PyObject *known = PyList_New(0);
    for (int k = 0; known && k < f->own_count; k++) {
        PyObject *own = PyUnicode_FromString(f->own[k].name);
        if (!own || PyList_Append(known, own) < 0)
            Py_CLEAR(known);
        Py_XDECREF(own);
    }
    PyObject *nearest = NULL;
    if (options && known)
        nearest = PyObject_CallMethod(options, "nearest_argument", "OO", name, known);
    if (nearest)
        attnc_fail(c, PyExc_TypeError, "there is no argument %R%S", name, nearest);
    Py_XDECREF(options);
    Py_XDECREF(known);
    Py_XDECREF(nearest);
    return -1;
}

/* Puts what was passed in the places of the function's own arguments and of the options. */
static int sort_arguments(const attnc_call *c, const attnc_function *f, PyObject *const *args,
                          Py_ssize_t count, PyObject *names, PyObject **own, PyObject **options)
{
    if (count > f->own_count)
        return attnc_fail(c, PyExc_TypeError, "takes %d positional arguments, got %zd",
                          f->own_count, count);
    for (Py_ssize_t k = 0; k < count; k++)
        own[k] = args[k];
    const Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    for (Py_ssize_t n = 0; n < named; n++) {
        PyObject *name = PyTuple_GetItem(names, n);
        int k = attnc_option_of(name);
        if (k >= 0 && f->scores_alone && !attnc_option_of_pairs(k))
            return attnc_fail(c, PyExc_TypeError,
                              "there is no argument %R: scores of their own are what comes before "
                              "it, for a batch that is not packed; attnc.attend takes them",
                              name);
        if (k >= 0) {
            options[k] = args[count + n];
            continue;
        }
        for (k = 0; k < f->own_count; k++)
            if (PyUnicode_CompareWithASCIIString(name, f->own[k].name) == 0)
                break;
        if (k == f->own_count)
            return fail_unknown(c, f, name);
        if (own[k])
            return attnc_fail(c, PyExc_TypeError,
                              "%U must be given by position or by name, got both", name);
        own[k] = args[count + n];
    }
    return 0;
}

int attnc_read_call(attnc_call *c, const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                    PyObject *names)
{
    PyObject *own[ATTNC_OWN_MOST] = {NULL}, *options[ATTNC_OPTIONS] = {NULL};
    if (sort_arguments(c, f, args, count, names, own, options) < 0)
        return -1;
    for (int k = 0; k < f->own_count; k++) {
        attnc_argument *argument = (void *)((char *)c + f->own[k].argument);
        if (f->own[k].read(c, argument, f->own[k].name, own[k]) < 0)
            return -1;
    }
    /* Options go by name alone: without names there is none to look for. */
    PyObject *const *given = names ? options : NULL;
    if (attnc_read_options(c, given) < 0 || convert(c) < 0 || f->check(c) < 0)
        return -1;
    return attnc_fit_options(c, given);
}

/* ---- arrays for the engine ---- */

ptrdiff_t attnc_features(const attnc_argument *argument)
{
    return PyArray_DIM(argument->array, PyArray_NDIM(argument->array) - 1);
}

/* A stride of bytes in elements of 1, 2, 4 or 8 bytes. By a constant the processor need not
 * divide. */
static ptrdiff_t in_items(npy_intp bytes, npy_intp item)
{
    return item == 4 ? bytes / 4 : item == 8 ? bytes / 8 : item == 2 ? bytes / 2 : bytes;
}

int attnc_operand_of(attnc_call *c, PyArrayObject *array, attnc_operand *operand)
{
    const int ndim = PyArray_NDIM(array);
    const npy_intp item = PyArray_ITEMSIZE(array);
    const npy_intp *shape = PyArray_DIMS(array), *bytes = PyArray_STRIDES(array);
    ptrdiff_t *stride = attnc_take(&c->arena, (size_t)ndim, sizeof *stride);
    if (!stride) {
        PyErr_NoMemory();
        return -1;
    }
    /* A leading axis of size 1 may have any stride; with 0 the engine need not change it. */
    for (int d = 0; d < ndim; d++)
        stride[d] = d < c->in.lead.ndim && shape[d] == 1 ? 0 : in_items(bytes[d], item);
    *operand =
        (attnc_operand){PyArray_DATA(array), shape, stride, attnc_stored_as(PyArray_TYPE(array))};
    return 0;
}

int attnc_read_gradient(attnc_call *c, PyObject *object, const char *name, const char *output,
                        int ndim, const npy_intp *shape, int halves, PyArrayObject **array)
{
    if (object == Py_None)
        return 0;
    attnc_argument argument = {0};
    if (attnc_read(c, &argument, name, object) < 0)
        goto fail;
    if (!argument.dtype) {
        attnc_fail(c, PyExc_TypeError, "%s must have a float dtype, got dtype %S", name,
                   PyArray_DESCR(argument.array));
        goto fail;
    }
    int right = PyArray_NDIM(argument.array) == ndim;
    for (int d = 0; d < ndim && right; d++)
        right = PyArray_DIM(argument.array, d) == shape[d];
    if (!right) {
        PyObject *want = attnc_tuple_of(shape, ndim), *got = shape_of(argument.array);
        if (want && got)
            attnc_fail(c, PyExc_ValueError, "%s must have the shape of %s, %R, got %R", name,
                       output, want, got);
        Py_XDECREF(want);
        Py_XDECREF(got);
        goto fail;
    }
    if (convert_argument(c, &argument, halves) < 0)
        goto fail;
    Py_XDECREF((PyObject *)argument.dtype);
    *array = argument.array;
    return 0;
fail:
    Py_XDECREF((PyObject *)argument.dtype);
    Py_XDECREF((PyObject *)argument.array);
    return -1;
}
