/* masks: the options that are arrays over the axes of a call: mask, key_mask, key_lengths,
 * query_lengths, causal_offset, bias, slope, sink and center. They have every axis that the call
 * has; axes of size 1 broadcast. */
#include "options.h"

#include "../engine/values.h"

#include <string.h>

/* The axes of a mask-like argument and their meaning, for its messages. */
typedef struct {
    const char *name, *axes;
    int ndim;
    npy_intp shape[NPY_MAXDIMS];
} full_shape;

static full_shape full_shape_of(const attnc_call *c, const char *name, int with_query, int with_key)
{
    full_shape full = {.name = name, .ndim = c->in.lead.ndim};
    for (int d = 0; d < full.ndim; d++)
        full.shape[d] = c->in.lead.shape[d];
    if (with_query)
        full.shape[full.ndim++] = c->in.Tq;
    if (with_key)
        full.shape[full.ndim++] = c->in.Tk;
    full.axes = with_query && with_key ? "(..., Tq, Tk)"
                : with_query           ? "(..., Tq)"
                : with_key             ? "(..., Tk)"
                                       : "(...,)";
    return full;
}

/* Ways to put the axes of a low-rank array, in order, onto axes of the full shape that they fit:
 * appends "name[:, None, None, :]" for up to two of them. Trailing axes first, as NumPy aligns. */
static PyObject *index_expressions(const full_shape *full, PyArrayObject *array)
{
    const int n = PyArray_NDIM(array);
    PyObject *text = PyUnicode_FromString("");
    int found = 0, at[NPY_MAXDIMS];
    if (n == 0 || n >= full->ndim || full->ndim > 8)
        return text;
    for (int k = 0; k < n; k++)
        at[k] = full->ndim - n + k;
    while (text && found < 2) {
        int fits = 1;
        for (int k = 0; k < n && fits; k++)
            fits = PyArray_DIM(array, k) == full->shape[at[k]] || PyArray_DIM(array, k) == 1;
        if (fits) {
            PyObject *longer =
                PyUnicode_FromFormat("%U%s%s[", text, found++ ? " or " : "", full->name);
            ATTNC_REPLACE(text, longer);
            for (int d = 0, k = 0; text && d < full->ndim; d++) {
                int here = k < n && at[k] == d;
                k += here;
                longer = PyUnicode_FromFormat("%U%s%s", text, d ? ", " : "", here ? ":" : "None");
                ATTNC_REPLACE(text, longer);
            }
            longer = text ? PyUnicode_FromFormat("%U]", text) : NULL;
            ATTNC_REPLACE(text, longer);
        }
        /* the next choice of axes, counting down: move the first that can move left */
        int k = 0;
        while (k < n && at[k] == (k ? at[k - 1] + 1 : 0))
            k++;
        if (k == n)
            break;
        at[k]--;
        for (int below = k - 1; below >= 0; below--)
            at[below] = at[below + 1] - 1;
    }
    return text;
}

static int check_full_shape(const char *where, const full_shape *full, PyArrayObject *array)
{
    int right = PyArray_NDIM(array) == full->ndim;
    for (int d = 0; d < full->ndim && right; d++)
        right = PyArray_DIM(array, d) == full->shape[d] || PyArray_DIM(array, d) == 1;
    if (right)
        return 0;
    PyObject *want = attnc_tuple_of(full->shape, full->ndim);
    PyObject *got = attnc_tuple_of(PyArray_DIMS(array), PyArray_NDIM(array));
    PyObject *fix = want && got ? index_expressions(full, array) : NULL;
    if (fix) {
        int known = PyUnicode_GetLength(fix) > 0;
        int keys = full->ndim >= 3 && strcmp(full->name, "mask") == 0 && PyArray_NDIM(array) == 2;
        attnc_complain(where, PyExc_ValueError,
                       "%s must have %d axes %s = %R, each of that size or 1, got %R%s%U%s",
                       full->name, full->ndim, full->axes, want, got, known ? "; write " : "", fix,
                       keys ? "; a mask of keys alone goes to key_mask=" : "");
    }
    Py_XDECREF(want);
    Py_XDECREF(got);
    Py_XDECREF(fix);
    return -1;
}

/* ---- bools ---- */

/* other: what to do instead of making it boolean, or "". */
static int check_bools(const char *where, const char *name, PyArrayObject *array, PyObject *object,
                       const char *other)
{
    if (PyArray_TYPE(array) == NPY_BOOL || attnc_is_empty_list(array, object))
        return 0;
    return attnc_complain(where, PyExc_TypeError,
                          "%s must be boolean (True: may be attended to), got dtype %S; write "
                          "%s.astype(bool)%s",
                          name, PyArray_DESCR(array), name, other);
}

static int fit_bools(attnc_call *c, const char *name, PyObject *object, int with_query,
                     PyArrayObject **kept, attnc_operand *operand)
{
    *kept = attnc_as_array(c->function, name, object, 1);
    if (!*kept)
        return -1;
    const full_shape full = full_shape_of(c, name, with_query, 1);
    if (check_bools(c->function, name, *kept, object,
                    ", or pass what is to be added to the scores as bias=") < 0 ||
        check_full_shape(c->function, &full, *kept) < 0)
        return -1;
    return attnc_operand_of(c, *kept, operand);
}

int attnc_fit_mask(attnc_call *c, PyObject *mask)
{
    return fit_bools(c, "mask", mask, 1, &c->mask, &c->in.mask);
}

int attnc_fit_key_mask(attnc_call *c, PyObject *key_mask)
{
    return fit_bools(c, "key_mask", key_mask, 0, &c->key_mask, &c->in.key_mask);
}

PyObject *attnc_boolean_mask(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    full_shape full = {0};
    if (attnc_check_count("boolean_mask", count, 5) < 0)
        return NULL;
    if (!PyTuple_Check(args[3]) || PyTuple_Size(args[3]) > NPY_MAXDIMS)
        return PyErr_Format(PyExc_TypeError, "boolean_mask: needs a shape, got %R", args[3]);
    const char *where = PyUnicode_AsUTF8AndSize(args[0], NULL);
    full.name = where ? PyUnicode_AsUTF8AndSize(args[1], NULL) : NULL;
    full.axes = full.name ? PyUnicode_AsUTF8AndSize(args[4], NULL) : NULL;
    if (!full.axes)
        return NULL;
    full.ndim = (int)PyTuple_Size(args[3]);
    for (int d = 0; d < full.ndim; d++) {
        full.shape[d] = PyLong_AsSsize_t(PyTuple_GetItem(args[3], d));
        if (PyErr_Occurred())
            return NULL;
    }
    PyArrayObject *array = attnc_as_array(where, full.name, args[2], 0);
    PyObject *result = NULL;
    if (array && check_bools(where, full.name, array, args[2], "") == 0 &&
        check_full_shape(where, &full, array) == 0)
        result = PyArray_FROM_OT((PyObject *)array, NPY_BOOL);
    Py_XDECREF((PyObject *)array);
    return result;
}

/* ---- integers ---- */

int attnc_copy_integers(PyArrayObject **array)
{
    if (PyArray_TYPE(*array) == NPY_ULONG || PyArray_TYPE(*array) == NPY_ULONGLONG) {
        /* beyond int64 there is no position: let it be cut like any large number */
        PyObject *most = PyLong_FromLongLong(1LL << 60);
        PyObject *cut =
            most ? PyObject_CallMethod((PyObject *)*array, "clip", "OO", Py_None, most) : NULL;
        Py_XDECREF(most);
        if (!cut)
            return -1;
        PyObject *as_one = PyArray_FROM_O(cut); /* clip of a 0-d array is a scalar */
        Py_DECREF(cut);
        if (!as_one)
            return -1;
        ATTNC_REPLACE(*array, (PyArrayObject *)as_one);
    }
    PyObject *copy = PyArray_FROMANY((PyObject *)*array, NPY_INT64, 0, 0,
                                     NPY_ARRAY_CARRAY | NPY_ARRAY_FORCECAST | NPY_ARRAY_ENSURECOPY);
    if (!copy)
        return -1;
    ATTNC_REPLACE(*array, (PyArrayObject *)copy);
    return 0;
}

/* Lengths or offsets: an integer, or an integer array over the leading axes, which is copied. */
static int fit_integers(attnc_call *c, const char *name, PyObject *object, ptrdiff_t *number,
                        PyArrayObject **kept, attnc_operand *operand)
{
    if (attnc_is_integer(object))
        return attnc_read_index(object, number);
    PyArrayObject *array = attnc_as_array(c->function, name, object, 1);
    *kept = array;
    if (!array)
        return -1;
    if (!PyTypeNum_ISINTEGER(PyArray_TYPE(array)) && !attnc_is_empty_list(array, object))
        return attnc_fail(c, PyExc_TypeError,
                          "%s must be an integer or an array of integers, got dtype %S", name,
                          PyArray_DESCR(array));
    const full_shape full = full_shape_of(c, name, 0, 0);
    if (check_full_shape(c->function, &full, array) < 0)
        return -1;
    return attnc_copy_integers(kept) < 0 ? -1 : attnc_operand_of(c, *kept, operand);
}

/* Lengths in 0..T, the number of `what`. */
static int fit_lengths(attnc_call *c, const char *name, PyObject *object, ptrdiff_t T,
                       const char *what, ptrdiff_t *number, PyArrayObject **kept,
                       attnc_operand *operand)
{
    char said[ATTNC_SAID];
    if (fit_integers(c, name, object, number, kept, operand) < 0)
        return -1;
    const int64_t one = *number;
    const int64_t *lengths = *kept ? PyArray_DATA(*kept) : &one;
    const npy_intp count = *kept ? PyArray_SIZE(*kept) : 1;
    if (attnc_check_lengths(name, lengths, count, T, what, said) == 0)
        return 0;
    return attnc_fail(c, PyExc_ValueError, "%s", said);
}

int attnc_fit_key_lengths(attnc_call *c, PyObject *key_lengths)
{
    return fit_lengths(c, "key_lengths", key_lengths, c->in.Tk, "keys", &c->in.length,
                       &c->key_lengths, &c->in.lengths);
}

int attnc_fit_query_lengths(attnc_call *c, PyObject *query_lengths)
{
    return fit_lengths(c, "query_lengths", query_lengths, c->in.Tq, "queries", &c->in.query_length,
                       &c->query_lengths, &c->in.query_lengths);
}

int attnc_fit_causal_offset(attnc_call *c, PyObject *causal_offset)
{
    if (fit_integers(c, "causal_offset", causal_offset, &c->in.causal_offset, &c->causal_offset,
                     &c->in.offset) < 0)
        return -1;
    const int centered = c->center.array || c->centers; /* the window counts from there */
    if (!c->in.causal && !(c->in.window && !centered) && !c->slope.array && !c->slopes)
        return attnc_fail(c, PyExc_ValueError,
                          centered ? "causal_offset must go with causal=True or slope= where there "
                                     "is a center, from which the window counts, got none"
                                   : "causal_offset must go with causal=True, window= or slope=, "
                                     "got none");
    if (c->causal_offset) { /* cut like a single one; it is our copy */
        int64_t *offset = PyArray_DATA(c->causal_offset);
        for (npy_intp k = 0; k < PyArray_SIZE(c->causal_offset); k++)
            offset[k] = attnc_cut_offset(offset[k]);
    }
    return 0;
}

/* ---- bias: read among the arrays, because it takes part in the dtype ---- */

int attnc_fit_bias(attnc_call *c, PyObject *bias)
{
    (void)bias;
    const full_shape full = full_shape_of(c, "bias", 1, 1);
    return check_full_shape(c->function, &full, c->bias.array);
}

/* ---- slope, sink and center: real numbers over the leading axes, read in double ---- */

static int fit_numbers(attnc_call *c, const char *name, const attnc_argument *argument,
                       int with_query, PyArrayObject **numbers, attnc_operand *operand)
{
    npy_intp ones[NPY_MAXDIMS];
    if (argument->array) {
        const full_shape full = full_shape_of(c, name, with_query, 0);
        /* One for all needs no axes. */
        if (PyArray_NDIM(argument->array) > 0 &&
            check_full_shape(c->function, &full, argument->array) < 0)
            return -1;
        *numbers = (PyArrayObject *)PyArray_FROMANY((PyObject *)argument->array, NPY_DOUBLE, 0, 0,
                                                    NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST |
                                                        NPY_ARRAY_ENSUREARRAY);
        if (!*numbers)
            return -1;
    }
    if (PyArray_NDIM(*numbers) == 0 && c->in.lead.ndim + with_query > 0) {
        PyArray_Dims axes = {ones, c->in.lead.ndim + with_query};
        for (int d = 0; d < axes.len; d++)
            ones[d] = 1;
        PyObject *spread = PyArray_Newshape(*numbers, &axes, NPY_CORDER);
        if (!spread)
            return -1;
        ATTNC_REPLACE(*numbers, (PyArrayObject *)spread);
    }
    return attnc_operand_of(c, *numbers, operand);
}

int attnc_fit_slope(attnc_call *c, PyObject *slope)
{
    (void)slope;
    return fit_numbers(c, "slope", &c->slope, 0, &c->slopes, &c->in.slope);
}

int attnc_fit_sink(attnc_call *c, PyObject *sink)
{
    (void)sink;
    return fit_numbers(c, "sink", &c->sink, 0, &c->sinks, &c->in.sink);
}

int attnc_fit_center(attnc_call *c, PyObject *center)
{
    (void)center;
    return fit_numbers(c, "center", &c->center, 1, &c->centers, &c->in.center);
}

/* ---- index: the keys of hard attention that the caller chooses ---- */

PyObject *attnc_place_of(const attnc_call *c, npy_intp at)
{
    npy_intp place[NPY_MAXDIMS];
    const int ndim = c->in.lead.ndim + 1;
    for (int d = ndim - 1; d >= 0; d--) {
        const npy_intp size = d == ndim - 1 ? c->in.Tq : c->in.lead.shape[d];
        place[d] = at % size;
        at /= size;
    }
    return attnc_tuple_of(place, ndim);
}

/* Keys in -1..Tk-1, which are spread to the whole shape (lead, Tq). */
int attnc_fit_index(attnc_call *c, PyObject *index)
{
    static const char rule[] = "None or an array of integers (..., Tq)";
    PyArrayObject *array = attnc_as_array(c->function, "index", index, 1), *spread = NULL;
    full_shape full = full_shape_of(c, "index", 1, 0);
    full.axes = "(..., Tq)";
    if (!array)
        return -1;
    if (!PyTypeNum_ISINTEGER(PyArray_TYPE(array)) && !attnc_is_empty_list(array, index)) {
        attnc_fail(c, PyExc_TypeError, "index must be %s, got dtype %S", rule,
                   PyArray_DESCR(array));
        goto done;
    }
    if (check_full_shape(c->function, &full, array) < 0 || attnc_copy_integers(&array) < 0)
        goto done;
    spread = (PyArrayObject *)PyArray_SimpleNew(full.ndim, full.shape, NPY_INT64);
    if (!spread || PyArray_CopyInto(spread, array) < 0) {
        Py_CLEAR(spread);
        goto done;
    }
    const int64_t *keys = PyArray_DATA(spread);
    for (npy_intp k = 0; k < PyArray_SIZE(spread); k++)
        if (keys[k] < -1 || keys[k] >= c->in.Tk) {
            PyObject *place = attnc_place_of(c, k);
            if (place)
                attnc_fail(c, PyExc_ValueError,
                           "index must lie in 0..%zd, the keys, or be -1 where a query may attend "
                           "to nothing, got %lld at %R",
                           (Py_ssize_t)c->in.Tk - 1, (long long)keys[k], place);
            Py_XDECREF(place);
            Py_CLEAR(spread);
            break;
        }
done:
    Py_XDECREF((PyObject *)array);
    c->forced = spread;
    return spread ? 0 : -1;
}
