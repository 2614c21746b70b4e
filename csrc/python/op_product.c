/* op_product: what the layers written in Python take from C: the matrix product, and new arrays.
 * Unlike NumPy's product its bits do not depend on the number of threads, and its threads are those
 * of all the other functions here. */
#include "ops.h"

#include "arrays.h"
#include "../engine/calls.h"
#include "../engine/work.h"

/* A matrix, or with `axes` 3 a row of them, as the kernels see it; -1 unless its strides are whole
 * elements. */
static int read_matrix(PyObject *object, int axes, int type, PyArrayObject **matrix, ptrdiff_t *row,
                       ptrdiff_t *col)
{
    if (!PyArray_Check(object))
        return -1;
    PyArrayObject *array = *matrix = (PyArrayObject *)object;
    if (PyArray_NDIM(array) != axes || PyArray_TYPE(array) != type || !PyArray_ISBEHAVED_RO(array))
        return -1;
    int whole = 1;
    *row = attnc_stride(array, axes - 2, &whole);
    *col = attnc_stride(array, axes - 1, &whole);
    return whole ? 0 : -1;
}

static int run_product(int f32, const attnc_product *p)
{
    int status;
    if (attnc_product_work(p) < ATTNC_GIL_MIN_WORK)
        return attnc_call_product(f32, p, NULL);
    Py_BEGIN_ALLOW_THREADS
    status = attnc_call_product(f32, p, NULL);
    Py_END_ALLOW_THREADS
    return status;
}

static int run_products(int f32, const attnc_products *p)
{
    int status;
    if (attnc_products_work(p) < ATTNC_GIL_MIN_WORK)
        return attnc_call_products(f32, p, NULL);
    Py_BEGIN_ALLOW_THREADS
    status = attnc_call_products(f32, p, NULL);
    Py_END_ALLOW_THREADS
    return status;
}

/* product(a, b): a new array a @ b. */
PyObject *attnc_matrix_product(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *a, *b;
    attnc_product p = {0};
    if (attnc_check_count("product", count, 2) < 0)
        return NULL;
    const int type = PyArray_Check(args[0]) ? PyArray_TYPE((PyArrayObject *)args[0]) : NPY_NOTYPE;
    if ((type != NPY_FLOAT && type != NPY_DOUBLE) ||
        read_matrix(args[0], 2, type, &a, &p.a_row, &p.a_col) < 0 ||
        read_matrix(args[1], 2, type, &b, &p.b_row, &p.b_col) < 0 ||
        PyArray_DIM(a, 1) != PyArray_DIM(b, 0))
        return PyErr_Format(PyExc_ValueError, "product: needs two float matrices that fit");
    const npy_intp shape[] = {PyArray_DIM(a, 0), PyArray_DIM(b, 1)};
    PyArrayObject *out = attnc_new_array(2, shape, type, 0);
    if (!out)
        return NULL;
    p.out = PyArray_DATA(out);
    p.a = PyArray_DATA(a);
    p.b = PyArray_DATA(b);
    p.M = shape[0];
    p.N = p.out_row = shape[1];
    p.K = PyArray_DIM(a, 1);
    if (run_product(type == NPY_FLOAT, &p) == 0)
        return (PyObject *)out;
    Py_DECREF((PyObject *)out);
    return PyErr_NoMemory();
}

/* products(a, b): a new array (n, M, N) of the products of matrices (n, M, K) and (n, K, N). */
PyObject *attnc_matrix_products(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *a, *b;
    attnc_products p = {0};
    attnc_product *each = &p.each;
    if (attnc_check_count("products", count, 2) < 0)
        return NULL;
    const int type = PyArray_Check(args[0]) ? PyArray_TYPE((PyArrayObject *)args[0]) : NPY_NOTYPE;
    int whole = 1;
    if ((type != NPY_FLOAT && type != NPY_DOUBLE) ||
        read_matrix(args[0], 3, type, &a, &each->a_row, &each->a_col) < 0 ||
        read_matrix(args[1], 3, type, &b, &each->b_row, &each->b_col) < 0 ||
        PyArray_DIM(a, 0) != PyArray_DIM(b, 0) || PyArray_DIM(a, 2) != PyArray_DIM(b, 1))
        return PyErr_Format(PyExc_ValueError, "products: needs two rows of matrices that fit");
    p.a_step = attnc_stride(a, 0, &whole);
    p.b_step = attnc_stride(b, 0, &whole);
    const npy_intp shape[] = {PyArray_DIM(a, 0), PyArray_DIM(a, 1), PyArray_DIM(b, 2)};
    if (!whole)
        return PyErr_Format(PyExc_ValueError, "products: strides must be whole elements");
    PyArrayObject *out = attnc_new_array(3, shape, type, 0);
    if (!out)
        return NULL;
    each->out = PyArray_DATA(out);
    each->a = PyArray_DATA(a);
    each->b = PyArray_DATA(b);
    each->M = shape[1];
    each->N = each->out_row = shape[2];
    each->K = PyArray_DIM(a, 2);
    p.count = shape[0];
    p.out_step = shape[1] * shape[2];
    if (PyArray_SIZE(out) == 0 || run_products(type == NPY_FLOAT, &p) == 0)
        return (PyObject *)out;
    Py_DECREF((PyObject *)out);
    return PyErr_NoMemory();
}

/* empty(like, shape): a new array of the same float type, of any content. As numpy.empty, but on
 * the memory that calls keep for each other (arrays.h). */
PyObject *attnc_empty(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    enum { MOST_AXES = 4 };
    npy_intp shape[MOST_AXES];
    if (attnc_check_count("empty", count, 2) < 0)
        return NULL;
    const int type = PyArray_Check(args[0]) ? PyArray_TYPE((PyArrayObject *)args[0]) : NPY_NOTYPE;
    if ((type != NPY_FLOAT && type != NPY_DOUBLE) || !PyTuple_Check(args[1]) ||
        PyTuple_Size(args[1]) > MOST_AXES)
        return PyErr_Format(PyExc_ValueError, "empty: needs a float array and up to 4 sizes");
    const int axes = (int)PyTuple_Size(args[1]);
    for (int d = 0; d < axes; d++) {
        shape[d] = PyLong_AsSsize_t(PyTuple_GetItem(args[1], d));
        if (PyErr_Occurred())
            return NULL;
        if (shape[d] < 0)
            return PyErr_Format(PyExc_ValueError, "empty: sizes must be 0 or more");
    }
    return (PyObject *)attnc_new_array(axes, shape, type, 0);
}
