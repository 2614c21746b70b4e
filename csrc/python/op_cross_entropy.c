/* op_cross_entropy: glue of attnc.losses.softmax_cross_entropy, which checks what users pass. */
#include "ops.h"

#include "arrays.h"
#include "../engine/calls.h"
#include "../engine/work.h"

/* logits (rows, classes), targets (rows) int64, smoothing: what both passes begin with. */
static int read_arguments(PyObject *const *args, attnc_cross_entropy *c, int *f32)
{
    PyArrayObject *logits = (PyArrayObject *)args[0], *targets = (PyArrayObject *)args[1];
    if (!PyArray_Check(args[0]) || !PyArray_Check(args[1]) || !PyArray_ISCARRAY_RO(logits) ||
        (PyArray_TYPE(logits) != NPY_FLOAT && PyArray_TYPE(logits) != NPY_DOUBLE) ||
        PyArray_NDIM(logits) != 2 || PyArray_DIM(logits, 1) < 1 || !PyArray_ISCARRAY_RO(targets) ||
        PyArray_TYPE(targets) != NPY_INT64 || PyArray_SIZE(targets) != PyArray_DIM(logits, 0))
        return -1;
    c->logits = PyArray_DATA(logits);
    c->targets = PyArray_DATA(targets);
    c->rows = PyArray_DIM(logits, 0);
    c->classes = PyArray_DIM(logits, 1);
    c->smoothing = PyFloat_AsDouble(args[2]);
    for (ptrdiff_t r = 0; r < c->rows; r++)
        if (c->targets[r] >= c->classes)
            return -1;
    *f32 = PyArray_TYPE(logits) == NPY_FLOAT;
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *do_not_fit(void)
{
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "cross_entropy: the arrays do not fit each other");
    return NULL;
}

static int run(int f32, const attnc_cross_entropy *c, int backward)
{
    int status;
    if (attnc_cross_entropy_work(c) < ATTNC_GIL_MIN_WORK)
        status = attnc_call_cross_entropy(f32, c, backward, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_call_cross_entropy(f32, c, backward, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

/* cross_entropy(logits, targets, smoothing): the losses of all rows, float64, and what backward
 * needs. */
PyObject *attnc_cross_entropy_forward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_cross_entropy c = {0};
    int f32;
    if (attnc_check_count("cross_entropy", count, 3) < 0)
        return NULL;
    if (read_arguments(args, &c, &f32) < 0)
        return do_not_fit();
    const npy_intp shape[] = {c.rows, 2};
    PyArrayObject *losses = attnc_new_array(1, shape, NPY_DOUBLE, 0);
    PyArrayObject *stats = attnc_new_array(2, shape, f32 ? NPY_FLOAT : NPY_DOUBLE, 0);
    PyObject *result = NULL;
    if (losses && stats) {
        c.losses = PyArray_DATA(losses);
        c.stats = PyArray_DATA(stats);
        if (run(f32, &c, 0) == 0)
            result = PyTuple_Pack(2, losses, stats);
    }
    Py_XDECREF((PyObject *)losses);
    Py_XDECREF((PyObject *)stats);
    return result;
}

/* cross_entropy_backward(logits, targets, smoothing, stats, factor, in_place): the gradient of the
 * logits, a new array or in their place. */
PyObject *attnc_cross_entropy_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_cross_entropy c = {0};
    int f32;
    if (attnc_check_count("cross_entropy_backward", count, 6) < 0)
        return NULL;
    if (read_arguments(args, &c, &f32) < 0 || !PyArray_Check(args[3]) || !PyBool_Check(args[5]))
        return do_not_fit();
    PyArrayObject *stats = (PyArrayObject *)args[3], *logits = (PyArrayObject *)args[0];
    const int type = f32 ? NPY_FLOAT : NPY_DOUBLE, in_place = args[5] == Py_True;
    c.factor = PyFloat_AsDouble(args[4]);
    if (PyErr_Occurred() || !PyArray_ISCARRAY_RO(stats) || PyArray_TYPE(stats) != type ||
        PyArray_SIZE(stats) != 2 * c.rows || (in_place && !PyArray_ISWRITEABLE(logits)))
        return do_not_fit();
    c.stats = PyArray_DATA(stats);
    const npy_intp shape[] = {c.rows, c.classes};
    PyArrayObject *dlogits =
        in_place ? (PyArrayObject *)Py_NewRef(args[0]) : attnc_new_array(2, shape, type, 0);
    if (!dlogits)
        return NULL;
    c.dlogits = PyArray_DATA(dlogits);
    if (run(f32, &c, 1) < 0)
        Py_CLEAR(dlogits);
    return (PyObject *)dlogits;
}
