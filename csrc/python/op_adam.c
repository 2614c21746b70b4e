/* op_adam: glue of attnc.optim: a step of Adam, and the sum of squares of a gradient. */
#include "ops.h"

#include "arrays.h"
#include "../engine/calls.h"
#include "../engine/scratch.h"
#include "../engine/work.h"

static int run_adam(int f32, const attnc_adam *a)
{
    int status;
    if ((double)a->count * ATTNC_ADAM_ELEMENT < ATTNC_GIL_MIN_WORK)
        return attnc_call_adam(f32, a, NULL);
    Py_BEGIN_ALLOW_THREADS
    status = attnc_call_adam(f32, a, NULL);
    Py_END_ALLOW_THREADS
    return status;
}

/* adam(parameter, gradient, m, v, beta1, beta2, rate, epsilon, keep): changes all but the
 * gradient. */
PyObject *attnc_adam_step(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_adam a = {0};
    int type = NPY_NOTYPE;
    void *arrays[4];
    if (attnc_check_count("adam", count, 9) < 0)
        return NULL;
    for (int k = 0; k < 4; k++) {
        if (attnc_floats(args[k], &type, k ? a.count : -1, &arrays[k]) < 0 ||
            (k != 1 && !PyArray_ISWRITEABLE((PyArrayObject *)args[k])))
            return PyErr_Format(PyExc_ValueError, "adam: needs four float arrays of one size");
        a.count = PyArray_SIZE((PyArrayObject *)args[k]);
    }
    a.parameter = arrays[0];
    a.gradient = arrays[1];
    a.m = arrays[2];
    a.v = arrays[3];
    double *const numbers[] = {&a.beta1, &a.beta2, &a.rate, &a.epsilon, &a.keep};
    for (int k = 0; k < 5; k++)
        *numbers[k] = PyFloat_AsDouble(args[4 + k]);
    if (PyErr_Occurred())
        return NULL;
    if (run_adam(type == NPY_FLOAT, &a) < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static int run_squares(int f32, const attnc_square_sums *s)
{
    int status;
    if ((double)s->count * ATTNC_SQUARE_ELEMENT < ATTNC_GIL_MIN_WORK)
        return attnc_call_square_sums(f32, s, NULL);
    Py_BEGIN_ALLOW_THREADS
    status = attnc_call_square_sums(f32, s, NULL);
    Py_END_ALLOW_THREADS
    return status;
}

/* sum_of_squares(x): a float. Squares and sums of short stretches are in the type of x, and so may
 * overflow or vanish; the rest in double. */
PyObject *attnc_sum_of_squares(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    attnc_square_sums s = {0};
    int type = NPY_NOTYPE;
    void *x;
    if (attnc_check_count("sum_of_squares", count, 1) < 0)
        return NULL;
    if (attnc_floats(args[0], &type, -1, &x) < 0)
        return PyErr_Format(PyExc_ValueError, "sum_of_squares: needs a float array");
    s.x = x;
    s.count = PyArray_SIZE((PyArrayObject *)args[0]);
    const ptrdiff_t parts = attnc_divide_up(s.count, ATTNC_ADAM_NUMBERS);
    s.sums = attnc_allocate((size_t)(parts > 0 ? parts : 1) * sizeof(double));
    if (!s.sums || run_squares(type == NPY_FLOAT, &s) < 0) {
        attnc_release(s.sums);
        return PyErr_NoMemory();
    }
    double total = 0;
    for (ptrdiff_t k = 0; k < parts; k++)
        total += s.sums[k];
    attnc_release(s.sums);
    return PyFloat_FromDouble(total);
}
