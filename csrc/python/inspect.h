/* inspect: what an object from Python is, for the functions in C and, through the module, for the
 * Python part of the package (attnc/arrays.py). What NumPy would convert with a loss is refused.
 *
 * Every error text begins with where and which argument: "<where>: <name> must <rule>, got ...".
 * What returns an int gives 0, or -1 with an error set.
 *
 * defines: ATTNC_REPLACE, attnc_complain, attnc_complain_got, attnc_check_count,
 *          attnc_as_array, attnc_is_empty_list, attnc_is_bfloat16,
 *          attnc_is_float,
 *          attnc_is_integer, attnc_read_number, attnc_read_index, attnc_read_flag, attnc_tuple_of,
 *          attnc_plain_array, attnc_real_array, attnc_integer_array
 */
#ifndef ATTNC_INSPECT_H
#define ATTNC_INSPECT_H

/* Python.h and NumPy's C API, the same way in every file; module.c imports the API. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define PY_ARRAY_UNIQUE_SYMBOL attnc_numpy_api
#ifndef ATTNC_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include <stddef.h>

/* slot = value, a new reference, which may be NULL; the old one is dropped. */
#define ATTNC_REPLACE(slot, value)                                                                 \
    do {                                                                                           \
        PyObject *attnc_old = (PyObject *)(slot);                                                  \
        (slot) = (value);                                                                          \
        Py_XDECREF(attnc_old);                                                                     \
    } while (0)

/* Sets "<where>: " and the message, which must not end in a newline. Returns -1. */
int attnc_complain(const char *where, PyObject *exception, const char *format, ...);
/* The same with ", got " and the object at the end. */
int attnc_complain_got(const char *where, PyObject *exception, const char *rule, PyObject *object);

/* How many arguments a function of the private module got. */
int attnc_check_count(const char *function, Py_ssize_t count, Py_ssize_t expected);

/* The object as an array of whatever dtype, or NULL. attends: `where` is an attention function, so
 * that an error may point to its masks, and to the function of that name in a bridge. */
PyArrayObject *attnc_as_array(const char *where, const char *name, PyObject *object, int attends);

/* What NumPy makes of an empty list: float64, though it could as well be integers or booleans. */
int attnc_is_empty_list(PyArrayObject *array, PyObject *object);
int attnc_is_bfloat16(PyArray_Descr *dtype);
/* float16, bfloat16, float32 or float64. */
int attnc_is_float(PyArray_Descr *dtype);

/* A Python or NumPy real scalar. A bool is none, though Python's is an int. */
int attnc_read_number(const char *where, const char *rule, PyObject *object, double *value);
int attnc_is_integer(PyObject *object);
/* An integer, cut to +-2^60 so that sums with positions cannot overflow and mean the same. */
int attnc_read_index(PyObject *object, ptrdiff_t *value);
int attnc_read_flag(const char *where, const char *rule, PyObject *object, int *value);

/* Sizes as a tuple, such as a shape for an error text; or NULL. */
PyObject *attnc_tuple_of(const npy_intp *sizes, int n);

/* ---- for Python: f(where, name, value) ---- */

PyObject *attnc_plain_array(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_real_array(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_integer_array(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
