/* op_activation: glue of the activations and of dropout, whose arrays attnc.functional checks. */
#include "ops.h"

#include "arrays.h"
#include "../engine/calls.h"
#include "../engine/work.h"

/* Numbers of a row where no bias says how long one is. */
enum { ANY_ROW = 512 };

static PyObject *do_not_fit(const char *function)
{
    if (PyErr_Occurred())
        return NULL;
    return PyErr_Format(PyExc_ValueError, "%s: the arrays do not fit each other", function);
}

static int read_kind(PyObject *name, attnc_activation_kind *kind)
{
    static const char *const names[] = {
        [ATTNC_RELU] = "relu",
        [ATTNC_GELU] = "gelu",
        [ATTNC_GELU_TANH] = "gelu_tanh",
        [ATTNC_SILU] = "silu",
    };
    for (int k = 0; PyUnicode_Check(name) && k < (int)(sizeof names / sizeof *names); k++)
        if (PyUnicode_CompareWithASCIIString(name, names[k]) == 0) {
            *kind = (attnc_activation_kind)k;
            return 0;
        }
    return -1;
}

/* The probability, and the key: a Python integer of 64 bits. */
static int read_dropout(PyObject *dropout, PyObject *key, double *probability, uint64_t *bits)
{
    *probability = PyFloat_AsDouble(dropout);
    if (PyErr_Occurred() || !(*probability >= 0 && *probability < 1))
        return -1;
    *bits = PyLong_AsUnsignedLongLong(key);
    return PyErr_Occurred() ? -1 : 0;
}

/* kind, x, up: of both passes. by_rows: a row is what the last axis of x has, else it is any. */
static int read_numbers(PyObject *kind, PyObject *x, PyObject *up, int by_rows, attnc_activation *a,
                        int *type)
{
    if (read_kind(kind, &a->kind) < 0 || attnc_floats(x, type, -1, &a->x) < 0)
        return -1;
    PyArrayObject *array = (PyArrayObject *)x;
    a->count = PyArray_SIZE(array);
    a->n = ANY_ROW;
    if (by_rows) {
        if (PyArray_NDIM(array) < 1 || PyArray_DIM(array, PyArray_NDIM(array) - 1) < 1)
            return -1;
        a->n = PyArray_DIM(array, PyArray_NDIM(array) - 1);
    }
    return attnc_optional_floats(up, type, a->count, &a->up);
}

static int run(int f32, const attnc_activation *a, int backward)
{
    int status;
    if (attnc_activation_work(a) < ATTNC_GIL_MIN_WORK)
        status = attnc_call_activation(f32, a, backward, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_call_activation(f32, a, backward, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

/* activation(kind, x, up, bias, up_bias, dropout, key): a new array y. The biases, each None or one
 * of the last axis, are added to x and up where they are. */
PyObject *attnc_activation_forward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_activation a = {0};
    int type = NPY_NOTYPE;
    void *bias, *up_bias;
    if (attnc_check_count("activation", count, 7) < 0)
        return NULL;
    const int biased = args[3] != Py_None || args[4] != Py_None;
    if (read_numbers(args[0], args[1], args[2], biased, &a, &type) < 0 ||
        attnc_optional_floats(args[3], &type, a.n, &bias) < 0 ||
        attnc_optional_floats(args[4], &type, a.n, &up_bias) < 0 ||
        (bias && !PyArray_ISWRITEABLE((PyArrayObject *)args[1])) ||
        (up_bias && (!a.up || !PyArray_ISWRITEABLE((PyArrayObject *)args[2]))) ||
        read_dropout(args[5], args[6], &a.dropout, &a.key) < 0)
        return do_not_fit("activation");
    a.bias = bias;
    a.up_bias = up_bias;
    PyArrayObject *x = (PyArrayObject *)args[1];
    PyArrayObject *y = attnc_new_array(PyArray_NDIM(x), PyArray_DIMS(x), type, 0);
    if (!y)
        return NULL;
    a.y = PyArray_DATA(y);
    if (run(type == NPY_FLOAT, &a, 0) < 0)
        Py_CLEAR(y);
    return (PyObject *)y;
}

/* activation_backward(kind, dy, x, up, dropout, key, sums): dx, dup, and parts (k, n) that add up
 * to the gradients of both biases; None where there is no up, or no sums are asked for. */
PyObject *attnc_activation_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_activation a = {0};
    int type = NPY_NOTYPE;
    void *dy;
    if (attnc_check_count("activation_backward", count, 7) < 0)
        return NULL;
    if (!PyBool_Check(args[6]) ||
        read_numbers(args[0], args[2], args[3], args[6] == Py_True, &a, &type) < 0 ||
        attnc_floats(args[1], &type, a.count, &dy) < 0 ||
        read_dropout(args[4], args[5], &a.dropout, &a.key) < 0)
        return do_not_fit("activation_backward");
    a.dy = dy;
    PyArrayObject *x = (PyArrayObject *)args[2];
    const ptrdiff_t rows = attnc_divide_up(a.count, a.n);
    const npy_intp shape[] = {attnc_divide_up(rows, ATTNC_PART_ROWS), a.n};
    PyObject *results[4] = {NULL, NULL, NULL, NULL};
    void **const places[4] = {&a.dx, &a.dup, &a.dbias, &a.dup_bias};
    PyObject *result = NULL;
    for (int k = 0; k < 4; k++) {
        if ((k % 2 == 1 && !a.up) || (k >= 2 && args[6] == Py_False)) {
            results[k] = Py_NewRef(Py_None);
            continue;
        }
        results[k] = (PyObject *)(k < 2 ? attnc_new_array(PyArray_NDIM(x), PyArray_DIMS(x), type, 0)
                                        : attnc_new_array(2, shape, type, 0));
        if (!results[k])
            goto done;
        *places[k] = PyArray_DATA((PyArrayObject *)results[k]);
    }
    if (run(type == NPY_FLOAT, &a, 1) == 0)
        result = PyTuple_Pack(4, results[0], results[1], results[2], results[3]);
done:
    for (int k = 0; k < 4; k++)
        Py_XDECREF(results[k]);
    return result;
}

static int run_dropout(int f32, const attnc_add_dropout *a)
{
    int status;
    if (attnc_add_dropout_work(a) < ATTNC_GIL_MIN_WORK)
        return attnc_call_add_dropout(f32, a, NULL);
    Py_BEGIN_ALLOW_THREADS
    status = attnc_call_add_dropout(f32, a, NULL);
    Py_END_ALLOW_THREADS
    return status;
}

/* add_dropout(residual, y, dropout, key): a new array residual + keep * y, without a residual where
 * that is None. */
PyObject *attnc_dropout_added(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_add_dropout a = {0};
    int type = NPY_NOTYPE;
    void *residual, *values;
    if (attnc_check_count("add_dropout", count, 4) < 0)
        return NULL;
    if (attnc_floats(args[1], &type, -1, &values) < 0)
        return do_not_fit("add_dropout");
    PyArrayObject *y = (PyArrayObject *)args[1];
    a.count = PyArray_SIZE(y);
    if (attnc_optional_floats(args[0], &type, a.count, &residual) < 0 ||
        read_dropout(args[2], args[3], &a.dropout, &a.key) < 0)
        return do_not_fit("add_dropout");
    PyArrayObject *out = attnc_new_array(PyArray_NDIM(y), PyArray_DIMS(y), type, 0);
    if (!out)
        return NULL;
    a.residual = residual;
    a.y = values;
    a.out = PyArray_DATA(out);
    if (run_dropout(type == NPY_FLOAT, &a) == 0)
        return (PyObject *)out;
    Py_DECREF((PyObject *)out);
    return PyErr_NoMemory();
}
