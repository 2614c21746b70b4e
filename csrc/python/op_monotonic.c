/* op_monotonic: glue of monotonic_alignment and chunkwise_attention, whose arrays
 * attnc.functional.monotonic and chunkwise check. */
#include "ops.h"

#include "arrays.h"
#include "../engine/calls.h"
#include "../engine/work.h"

#include <math.h>

static PyObject *do_not_fit(const char *function)
{
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "%s: the arrays do not fit each other", function);
    return NULL;
}

/* The sizes of an array (..., Tq, Tk) that is not empty. */
typedef struct {
    ptrdiff_t count, Tq, Tk;
} sizes;

/* Reads the array from whose shape the others follow. */
static int read_first(PyObject *object, int *type, attnc_pairs *pairs, sizes *size)
{
    if (attnc_floats(object, type, -1, &pairs->data) < 0)
        return -1;
    const PyArrayObject *array = (PyArrayObject *)object;
    const int ndim = PyArray_NDIM(array);
    const npy_intp all = PyArray_SIZE((PyArrayObject *)object);
    if (ndim < 2 || all < 1)
        return -1;
    size->Tq = PyArray_DIM(array, ndim - 2);
    size->Tk = PyArray_DIM(array, ndim - 1);
    size->count = all / (size->Tq * size->Tk);
    pairs->element = size->Tq * size->Tk;
    pairs->row = size->Tk;
    return 0;
}

/* Another of that shape. */
static int read_pairs(PyObject *object, int *type, const sizes *size, attnc_pairs *pairs)
{
    *pairs = (attnc_pairs){NULL, size->Tq * size->Tk, size->Tk};
    return attnc_floats(object, type, size->count * size->Tq * size->Tk, &pairs->data);
}

/* None, or bools (count, Tk). */
static int read_key_mask(PyObject *object, const sizes *size, const unsigned char **mask)
{
    *mask = NULL;
    if (object == Py_None)
        return 0;
    PyArrayObject *array = (PyArrayObject *)object;
    if (!PyArray_Check(object) || PyArray_TYPE(array) != NPY_BOOL || !PyArray_ISCARRAY_RO(array) ||
        PyArray_SIZE(array) != size->count * size->Tk)
        return -1;
    *mask = PyArray_DATA(array);
    return 0;
}

/* A new array like one (..., Tq, Tk), or without the axis of keys, or of queries. */
typedef enum { PAIRS, QUERIES, KEYS } axes;

static PyArrayObject *new_like(PyObject *object, axes which, int type, void **data)
{
    npy_intp shape[NPY_MAXDIMS];
    const PyArrayObject *array = (PyArrayObject *)object;
    const int ndim = PyArray_NDIM(array);
    for (int d = 0; d < ndim; d++)
        shape[d] = PyArray_DIM(array, d);
    if (which == KEYS)
        shape[ndim - 2] = shape[ndim - 1];
    PyArrayObject *made = attnc_new_array(ndim - (which != PAIRS), shape, type, 0);
    *data = made ? PyArray_DATA(made) : NULL;
    return made;
}

/* ---- monotonic_alignment ---- */

static int run_monotonic(int f32, const attnc_monotonic *m, int backward)
{
    int status;
    if (attnc_monotonic_work(m) < ATTNC_GIL_MIN_WORK)
        status = attnc_call_monotonic(f32, m, backward, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_call_monotonic(f32, m, backward, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

static void take_sizes(attnc_monotonic *m, const sizes *size)
{
    m->count = size->count;
    m->Tq = size->Tq;
    m->Tk = m->mask_row = size->Tk;
}

/* monotonic(probability, previous, key_mask, save): alignment, missing, what backward needs or
 * None, and the least and the largest probability that was read (at most, at least 0). */
PyObject *attnc_monotonic_forward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_monotonic m = {0};
    sizes size;
    int type = NPY_NOTYPE;
    if (attnc_check_count("monotonic", count, 4) < 0)
        return NULL;
    if (read_first(args[0], &type, &m.probability, &size) < 0 ||
        attnc_optional_floats(args[1], &type, size.count * size.Tk, &m.previous.data) < 0 ||
        read_key_mask(args[2], &size, &m.key_mask) < 0 || !PyBool_Check(args[3]))
        return do_not_fit("monotonic");
    take_sizes(&m, &size);
    m.previous.element = size.Tk;
    m.alignment = m.reach = (attnc_pairs){NULL, m.probability.element, m.probability.row};
    const int save = args[3] == Py_True;
    /* a lane at least for each element */
    const npy_intp shape[] = {size.count, 2};
    PyArrayObject *alignment = new_like(args[0], PAIRS, type, &m.alignment.data);
    PyArrayObject *missing = new_like(args[0], QUERIES, type, &m.missing);
    PyArrayObject *range = attnc_new_array(2, shape, NPY_DOUBLE, 1);
    PyObject *reach =
        save ? (PyObject *)new_like(args[0], PAIRS, type, &m.reach.data) : Py_NewRef(Py_None);
    PyObject *result = NULL;
    if (alignment && missing && range && reach) {
        double *found = m.range = PyArray_DATA(range), least = 0, most = 0;
        if (run_monotonic(type == NPY_FLOAT, &m, 0) == 0) {
            for (ptrdiff_t n = 0; n < size.count; n++) {
                least = fmin(least, found[2 * n]);
                most = fmax(most, found[2 * n + 1]);
            }
            result = Py_BuildValue("OOOdd", alignment, missing, reach, least, most);
        }
    }
    Py_XDECREF((PyObject *)alignment);
    Py_XDECREF((PyObject *)missing);
    Py_XDECREF((PyObject *)range);
    Py_XDECREF(reach);
    return result;
}

/* monotonic_backward(dalignment, dmissing, probability, reach, key_mask, previous): the gradients
 * of probability and, if there was one, of previous, else None. The first two may be None. */
PyObject *attnc_monotonic_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_monotonic m = {0};
    sizes size;
    int type = NPY_NOTYPE;
    void *dmissing;
    if (attnc_check_count("monotonic_backward", count, 6) < 0)
        return NULL;
    if (read_first(args[2], &type, &m.probability, &size) < 0 ||
        read_pairs(args[3], &type, &size, &m.reach) < 0 ||
        (args[0] != Py_None && read_pairs(args[0], &type, &size, &m.dalignment) < 0) ||
        attnc_optional_floats(args[1], &type, size.count * size.Tq, &dmissing) < 0 ||
        read_key_mask(args[4], &size, &m.key_mask) < 0 || !PyBool_Check(args[5]))
        return do_not_fit("monotonic_backward");
    take_sizes(&m, &size);
    m.dmissing = dmissing;
    m.dprobability = (attnc_pairs){NULL, m.probability.element, m.probability.row};
    m.dprevious.element = size.Tk;
    PyArrayObject *dprobability = new_like(args[2], PAIRS, type, &m.dprobability.data);
    PyObject *dprevious = args[5] == Py_True
                              ? (PyObject *)new_like(args[2], KEYS, type, &m.dprevious.data)
                              : Py_NewRef(Py_None);
    PyObject *result = NULL;
    if (dprobability && dprevious && run_monotonic(type == NPY_FLOAT, &m, 1) == 0)
        result = PyTuple_Pack(2, dprobability, dprevious);
    Py_XDECREF((PyObject *)dprobability);
    Py_XDECREF(dprevious);
    return result;
}

/* ---- chunkwise_attention ---- */

static int run_chunkwise(int f32, const attnc_chunkwise *c, int backward)
{
    int status;
    if (attnc_chunkwise_work(c) < ATTNC_GIL_MIN_WORK)
        status = attnc_call_chunkwise(f32, c, backward, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_call_chunkwise(f32, c, backward, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

/* alignment, scores, key_mask, width: what both passes take. */
static int read_chunkwise(PyObject *const *args, attnc_chunkwise *c, int *type, sizes *size)
{
    if (read_first(args[0], type, &c->alignment, size) < 0 ||
        read_pairs(args[1], type, size, &c->scores) < 0 ||
        read_key_mask(args[2], size, &c->key_mask) < 0)
        return -1;
    c->width = PyLong_AsSsize_t(args[3]);
    c->count = size->count;
    c->Tq = size->Tq;
    c->Tk = c->mask_row = size->Tk;
    return PyErr_Occurred() || c->width < 1 ? -1 : 0;
}

/* chunkwise(alignment, scores, key_mask, width): the weights. */
PyObject *attnc_chunkwise_forward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_chunkwise c = {0};
    sizes size;
    int type = NPY_NOTYPE;
    if (attnc_check_count("chunkwise", count, 4) < 0)
        return NULL;
    if (read_chunkwise(args, &c, &type, &size) < 0)
        return do_not_fit("chunkwise");
    c.weights = c.alignment;
    PyArrayObject *weights = new_like(args[0], PAIRS, type, &c.weights.data);
    if (weights && run_chunkwise(type == NPY_FLOAT, &c, 0) < 0)
        Py_CLEAR(weights);
    return (PyObject *)weights;
}

/* chunkwise_backward(alignment, scores, key_mask, width, dweights): the gradients of alignment and
 * scores. */
PyObject *attnc_chunkwise_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_chunkwise c = {0};
    sizes size;
    int type = NPY_NOTYPE;
    if (attnc_check_count("chunkwise_backward", count, 5) < 0)
        return NULL;
    if (read_chunkwise(args, &c, &type, &size) < 0 ||
        read_pairs(args[4], &type, &size, &c.dweights) < 0)
        return do_not_fit("chunkwise_backward");
    c.dalignment = c.dscores = c.alignment;
    PyArrayObject *dalignment = new_like(args[0], PAIRS, type, &c.dalignment.data);
    PyArrayObject *dscores = new_like(args[0], PAIRS, type, &c.dscores.data);
    PyObject *result = NULL;
    if (dalignment && dscores && run_chunkwise(type == NPY_FLOAT, &c, 1) == 0)
        result = PyTuple_Pack(2, dalignment, dscores);
    Py_XDECREF((PyObject *)dalignment);
    Py_XDECREF((PyObject *)dscores);
    return result;
}
