/* op_rotary: glue of attnc.functional.rotary, which checks what users pass and makes the table. */
#include "ops.h"

#include "arrays.h"
#include "../engine/calls.h"
#include "../engine/work.h"

enum { MOST_AXES = ATTNC_MAX_LEAD + 2 };

/* Strides in elements of the leading axes and of rows; axes of size 1, and those in front that
 * there are not, broadcast. 0 where the last axis is contiguous and all strides whole elements. */
static int read_rows(PyArrayObject *array, int ndim, ptrdiff_t *lead, attnc_view *view)
{
    const int missing = ndim - PyArray_NDIM(array), last = PyArray_NDIM(array) - 1;
    int whole = 1;
    if (!PyArray_ISBEHAVED_RO(array) || attnc_stride(array, last, &whole) != 1)
        return -1;
    for (int d = 0; d < ndim - 1; d++) {
        const int given = d >= missing && PyArray_DIM(array, d - missing) != 1;
        const ptrdiff_t stride = given ? attnc_stride(array, d - missing, &whole) : 0;
        if (d < ndim - 2)
            lead[d] = stride;
        else
            view->row = stride;
    }
    view->data = PyArray_DATA(array);
    view->lead = lead;
    view->stored = attnc_stored_as(PyArray_TYPE(array));
    return whole ? 0 : -1;
}

/* Whether the table is real, of a type that goes with x, and broadcasts to its shape. */
static int table_fits(PyArrayObject *table, PyArrayObject *x)
{
    const int ndim = PyArray_NDIM(x), missing = ndim - PyArray_NDIM(table);
    const int type = PyArray_TYPE(x) == NPY_DOUBLE ? NPY_DOUBLE : NPY_FLOAT;
    if (PyArray_TYPE(table) != type || missing < 0 || PyArray_NDIM(table) < 2 ||
        PyArray_DIM(table, PyArray_NDIM(table) - 1) != PyArray_DIM(x, ndim - 1))
        return 0;
    for (int d = missing; d < ndim - 1; d++)
        if (PyArray_DIM(table, d - missing) != 1 &&
            PyArray_DIM(table, d - missing) != PyArray_DIM(x, d))
            return 0;
    return 1;
}

static int run(int f32, const attnc_rotary *r)
{
    int status;
    if (attnc_rotary_work(r) < ATTNC_GIL_MIN_WORK)
        return attnc_call_rotary(f32, r, NULL);
    Py_BEGIN_ALLOW_THREADS
    status = attnc_call_rotary(f32, r, NULL);
    Py_END_ALLOW_THREADS
    return status;
}

/* rotary(x, table, interleaved, back): x (..., T, D) with its pairs turned, a new array of the type
 * of x. */
PyObject *attnc_turn_pairs(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    ptrdiff_t x_lead[MOST_AXES], table_lead[MOST_AXES], shape[MOST_AXES];
    attnc_rotary r = {.lead = {.count = 1, .shape = shape}};
    if (attnc_check_count("rotary", count, 4) < 0)
        return NULL;
    PyArrayObject *x = (PyArrayObject *)args[0], *table = (PyArrayObject *)args[1], *copy = NULL;
    if (!PyArray_Check(args[0]) || !PyArray_Check(args[1]) || !attnc_is_float(PyArray_DESCR(x)) ||
        PyArray_NDIM(x) < 2 || PyArray_NDIM(x) > MOST_AXES || !table_fits(table, x) ||
        !PyBool_Check(args[2]) || !PyBool_Check(args[3]))
        return PyErr_Format(PyExc_ValueError, "rotary: the arrays do not fit each other");
    const int ndim = PyArray_NDIM(x);
    if (read_rows(x, ndim, x_lead, &r.x) < 0) {
        PyArray_Descr *native = PyArray_DescrNewByteorder(PyArray_DESCR(x), NPY_NATIVE);
        copy = native ? (PyArrayObject *)PyArray_FromArray(x, native, NPY_ARRAY_CARRAY_RO) : NULL;
        if (!copy || read_rows(copy, ndim, x_lead, &r.x) < 0) {
            Py_XDECREF((PyObject *)copy);
            return NULL;
        }
    }
    PyArrayObject *out = NULL;
    if (read_rows(table, ndim, table_lead, &r.table) < 0)
        PyErr_SetString(PyExc_ValueError, "rotary: the table must have contiguous rows");
    else
        out = attnc_new_array(ndim, PyArray_DIMS(x), PyArray_TYPE(x), 0);
    if (out) {
        for (r.lead.ndim = 0; r.lead.ndim < ndim - 2; r.lead.ndim++)
            r.lead.count *= shape[r.lead.ndim] = PyArray_DIM(x, r.lead.ndim);
        r.T = PyArray_DIM(x, ndim - 2);
        r.D = PyArray_DIM(x, ndim - 1);
        r.interleaved = args[2] == Py_True;
        r.back = args[3] == Py_True;
        r.out = (attnc_result){PyArray_DATA(out), r.x.stored};
        if (PyArray_SIZE(out) > 0 && run(PyArray_TYPE(x) != NPY_DOUBLE, &r) < 0) {
            Py_CLEAR(out);
            PyErr_NoMemory();
        }
    }
    Py_XDECREF((PyObject *)copy);
    return (PyObject *)out;
}
