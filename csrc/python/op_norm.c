/* op_norm: glue of layer_norm and rms_norm, whose arrays attnc.functional.norm checks. */
#include "ops.h"

#include "arrays.h"
#include "../engine/calls.h"
#include "../engine/work.h"

static PyObject *do_not_fit(void)
{
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "norm: the arrays do not fit each other");
    return NULL;
}

/* x (..., n) and weight (n) or None: what both passes begin with. */
static int read_rows(PyObject *x, PyObject *weight, attnc_norm *a, int *type)
{
    void *data, *scale;
    if (attnc_floats(x, type, -1, &data) < 0 || PyArray_NDIM((PyArrayObject *)x) < 1)
        return -1;
    const PyArrayObject *array = (PyArrayObject *)x;
    a->n = PyArray_DIM(array, PyArray_NDIM(array) - 1);
    if (a->n < 1 || attnc_optional_floats(weight, type, a->n, &scale) < 0)
        return -1;
    a->rows = PyArray_SIZE((PyArrayObject *)x) / a->n;
    a->x = data;
    a->weight = scale;
    return 0;
}

static int run(int f32, const attnc_norm *a, int backward)
{
    int status;
    if (attnc_norm_work(a) < ATTNC_GIL_MIN_WORK)
        status = attnc_call_norm(f32, a, backward, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_call_norm(f32, a, backward, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

/* norm(x, weight, bias, epsilon, center): y, and what backward needs of the rows. */
PyObject *attnc_norm_forward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_norm a = {0};
    int type = NPY_NOTYPE;
    void *bias;
    if (attnc_check_count("norm", count, 5) < 0)
        return NULL;
    if (read_rows(args[0], args[1], &a, &type) < 0 ||
        attnc_optional_floats(args[2], &type, a.n, &bias) < 0 || !PyBool_Check(args[4]))
        return do_not_fit();
    a.bias = bias;
    a.epsilon = PyFloat_AsDouble(args[3]);
    a.center = args[4] == Py_True;
    if (PyErr_Occurred())
        return NULL;
    PyArrayObject *x = (PyArrayObject *)args[0];
    const npy_intp shape[] = {a.rows, 3};
    PyArrayObject *y = attnc_new_array(PyArray_NDIM(x), PyArray_DIMS(x), type, 0);
    PyArrayObject *stats = attnc_new_array(2, shape, type, 0);
    PyObject *result = NULL;
    if (y && stats) {
        a.y = PyArray_DATA(y);
        a.stats = PyArray_DATA(stats);
        if (run(type == NPY_FLOAT, &a, 0) == 0)
            result = PyTuple_Pack(2, y, stats);
    }
    Py_XDECREF((PyObject *)y);
    Py_XDECREF((PyObject *)stats);
    return result;
}

/* norm_backward(dy, x, weight, stats, center, sums): dx, and parts (k, 2, n) that add up to the
 * gradients of weight and bias, None unless asked for. */
PyObject *attnc_norm_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_norm a = {0};
    int type = NPY_NOTYPE;
    void *dy;
    if (attnc_check_count("norm_backward", count, 6) < 0)
        return NULL;
    if (read_rows(args[1], args[2], &a, &type) < 0 ||
        attnc_floats(args[0], &type, a.rows * a.n, &dy) < 0 ||
        attnc_floats(args[3], &type, 3 * a.rows, &a.stats) < 0 || !PyBool_Check(args[4]) ||
        !PyBool_Check(args[5]))
        return do_not_fit();
    a.dy = dy;
    a.center = args[4] == Py_True;
    PyArrayObject *x = (PyArrayObject *)args[1];
    const npy_intp shape[] = {attnc_divide_up(a.rows, ATTNC_PART_ROWS), 2, a.n};
    PyArrayObject *dx = attnc_new_array(PyArray_NDIM(x), PyArray_DIMS(x), type, 0);
    PyObject *parts =
        args[5] == Py_True ? (PyObject *)attnc_new_array(3, shape, type, 0) : Py_NewRef(Py_None);
    PyObject *result = NULL;
    if (dx && parts) {
        a.dx = PyArray_DATA(dx);
        a.parts = parts == Py_None ? NULL : PyArray_DATA((PyArrayObject *)parts);
        if (run(type == NPY_FLOAT, &a, 1) == 0)
            result = PyTuple_Pack(2, dx, parts);
    }
    Py_XDECREF((PyObject *)dx);
    Py_XDECREF(parts);
    return result;
}
