/* inspect: see inspect.h. */
#include "inspect.h"

#include <stdarg.h>

/* ---- error texts ---- */

int attnc_complain(const char *where, PyObject *exception, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *message = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (message)
        PyErr_Format(exception, "%s: %U", where, message);
    Py_XDECREF(message);
    return -1;
}

int attnc_complain_got(const char *where, PyObject *exception, const char *rule, PyObject *object)
{
    return attnc_complain(where, exception, "%s, got %R", rule, object);
}

int attnc_check_count(const char *function, Py_ssize_t count, Py_ssize_t expected)
{
    if (count == expected)
        return 0;
    PyErr_Format(PyExc_TypeError, "_core.%s: takes %zd positional arguments, got %zd", function,
                 expected, count);
    return -1;
}

PyObject *attnc_tuple_of(const npy_intp *sizes, int n)
{
    PyObject *tuple = PyTuple_New(n);
    for (int d = 0; tuple && d < n; d++) {
        PyObject *size = PyLong_FromSsize_t(sizes[d]);
        if (!size || PyTuple_SetItem(tuple, d, size) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* ---- what NumPy would convert with a loss ---- */

/* The top-level package that defines the object's type ("torch"), as a new string, or NULL. */
static PyObject *package_of(PyObject *object)
{
    PyObject *module = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "__module__");
    PyObject *parts = module ? PyObject_CallMethod(module, "partition", "s", ".") : NULL;
    PyObject *package = parts ? PySequence_GetItem(parts, 0) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(parts);
    if (!package)
        PyErr_Clear();
    return package;
}

/* Tensors of other libraries would lose their gradient: the error says where it is kept, or how to
 * say that this is meant. */
static int refuse_foreign(const char *where, const char *name, PyObject *object, int attends)
{
    static const struct {
        const char *package, *bridge, *what, *before, *after; /* what stands around the name */
    } known[] = {{"torch", "attnc.torch", "a PyTorch tensor", "", ".detach().numpy()"},
                 {"jax", "attnc.jax", "a JAX array", "np.asarray(", ")"},
                 {"jaxlib", "attnc.jax", "a JAX array", "np.asarray(", ")"},
                 {"autograd", "attnc.autograd", "an autograd box", "autograd.tracer.getval(", ")"}};
    PyObject *package = package_of(object);
    int result = 0;
    for (size_t k = 0; package && k < sizeof known / sizeof *known && result == 0; k++) {
        if (PyUnicode_CompareWithASCIIString(package, known[k].package) != 0)
            continue;
        if (attends)
            result = attnc_complain(where, PyExc_TypeError,
                                    "%s must be a NumPy array, got %s; pass np.asarray(%s), or "
                                    "call the function of the same name in %s",
                                    name, known[k].what, name, known[k].bridge);
        else
            result = attnc_complain(where, PyExc_TypeError,
                                    "%s must be a NumPy array, got %s; pass %s%s%s, or call the "
                                    "functions in %s",
                                    name, known[k].what, known[k].before, name, known[k].after,
                                    known[k].bridge);
    }
    Py_XDECREF(package);
    return result;
}

/* numpy.ma is not imported for this: a masked array is known by what it has. */
static int is_masked_array(PyObject *object)
{
    return PyObject_HasAttrString(object, "_mask") && PyObject_HasAttrString(object, "fill_value");
}

/* What a walk over an object and the items of its lists looks for in each. */
typedef int inspector(const char *where, const char *name, PyObject *object, int attends);

static int walk(const char *where, const char *name, PyObject *object, int attends,
                inspector *inspect)
{
    if (!PyList_Check(object) && !PyTuple_Check(object))
        return inspect(where, name, object, attends);
    if (Py_EnterRecursiveCall(" in a list of lists"))
        return -1;
    int failed = 0;
    for (Py_ssize_t k = 0; !failed && k < PySequence_Size(object); k++) {
        PyObject *item = PySequence_GetItem(object, k);
        failed = !item || walk(where, name, item, attends, inspect) < 0;
        Py_XDECREF(item);
    }
    Py_LeaveRecursiveCall();
    return failed ? -1 : 0;
}

static int refuse_lossy(const char *where, const char *name, PyObject *object, int attends)
{
    if (PyArray_CheckExact(object) || PyFloat_CheckExact(object) || PyLong_CheckExact(object))
        return 0;
    if (is_masked_array(object))
        return attnc_complain(where, PyExc_TypeError,
                              "%s must be a plain array, got a masked array, whose mask would be "
                              "lost; pass its data (%s.data) and %s",
                              name, name,
                              attends ? "say what may be attended to with mask= or key_mask="
                                      : "the mask as an argument");
    return refuse_foreign(where, name, object, attends);
}

/* Bools among the numbers of a list, which NumPy makes 0 and 1. */
static int refuse_bools(const char *where, const char *name, PyObject *object, int attends)
{
    (void)attends;
    if (PyFloat_CheckExact(object) || PyLong_CheckExact(object))
        return 0;
    if (PyBool_Check(object) || PyArray_IsScalar(object, Bool) ||
        (PyArray_Check(object) && PyArray_TYPE((PyArrayObject *)object) == NPY_BOOL))
        return attnc_complain(where, PyExc_TypeError, "%s must be numbers, got bools among them",
                              name);
    return 0;
}

PyArrayObject *attnc_as_array(const char *where, const char *name, PyObject *object, int attends)
{
    if (PyArray_CheckExact(object))
        return (PyArrayObject *)Py_NewRef(object);
    if (walk(where, name, object, attends, refuse_lossy) < 0)
        return NULL;
    PyObject *array = PyArray_FROM_OF(object, NPY_ARRAY_ENSUREARRAY);
    /* Lists of unequal length end here. */
    if (!array && PyErr_ExceptionMatches(PyExc_ValueError) &&
        (PyList_Check(object) || PyTuple_Check(object))) {
        PyErr_Clear();
        attnc_complain(where, PyExc_TypeError,
                       "%s must be an array of numbers with rows of equal length; "
                       "array, lengths = attnc.data.pad(rows) makes one",
                       name);
    }
    return (PyArrayObject *)array;
}

/* ---- dtypes ---- */

int attnc_is_empty_list(PyArrayObject *array, PyObject *object)
{
    return (PyObject *)array != object && PyArray_SIZE(array) == 0 &&
           PyArray_TYPE(array) == NPY_DOUBLE;
}

/* Which number bfloat16 has among the types that others add to NumPy. It is the same as long as the
 * process lives, and to ask for the name of a type takes a microsecond. */
static _Atomic int bfloat16 = NPY_NOTYPE;

int attnc_is_bfloat16(PyArray_Descr *dtype)
{
    if (!PyTypeNum_ISUSERDEF(dtype->type_num))
        return 0;
    if (dtype->type_num == bfloat16)
        return 1;
    PyObject *name = PyObject_GetAttrString((PyObject *)dtype, "name");
    int is = name && PyUnicode_CompareWithASCIIString(name, "bfloat16") == 0;
    Py_XDECREF(name);
    PyErr_Clear();
    if (is)
        bfloat16 = dtype->type_num;
    return is;
}

int attnc_is_float(PyArray_Descr *dtype)
{
    const int type = dtype->type_num;
    return type == NPY_FLOAT || type == NPY_DOUBLE || type == NPY_HALF || attnc_is_bfloat16(dtype);
}

/* ---- numbers ---- */

int attnc_read_number(const char *where, const char *rule, PyObject *object, double *value)
{
    if (PyFloat_Check(object) || (PyLong_Check(object) && !PyBool_Check(object)) ||
        (PyArray_IsScalar(object, Number) && !PyArray_IsScalar(object, ComplexFloating))) {
        *value = PyFloat_AsDouble(object);
        if (!(*value == -1 && PyErr_Occurred()))
            return 0;
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        return attnc_complain_got(where, PyExc_ValueError, rule, object);
    }
    return attnc_complain_got(where, PyExc_TypeError, rule, object);
}

int attnc_is_integer(PyObject *object)
{
    return (PyLong_Check(object) && !PyBool_Check(object)) || PyArray_IsScalar(object, Integer);
}

int attnc_read_index(PyObject *object, ptrdiff_t *value)
{
    const long long most = 1LL << 60;
    PyObject *number = PyNumber_Index(object);
    if (!number)
        return -1;
    int overflow;
    long long v = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (v == -1 && PyErr_Occurred())
        return -1;
    if (overflow > 0 || v > most)
        v = most;
    if (overflow < 0 || v < -most)
        v = -most;
    *value = (ptrdiff_t)v;
    return 0;
}

int attnc_read_flag(const char *where, const char *rule, PyObject *object, int *value)
{
    if (!PyBool_Check(object) && !PyArray_IsScalar(object, Bool))
        return attnc_complain_got(where, PyExc_TypeError, rule, object);
    *value = PyObject_IsTrue(object);
    return *value < 0 ? -1 : 0;
}

/* ---- for Python ---- */

/* An array from (where, name, value), or NULL; the strings belong to the arguments. */
static PyArrayObject *array_of(const char *function, PyObject *const *args, Py_ssize_t count,
                               const char **where, const char **name)
{
    if (attnc_check_count(function, count, 3) < 0)
        return NULL;
    *where = PyUnicode_AsUTF8AndSize(args[0], NULL);
    *name = *where ? PyUnicode_AsUTF8AndSize(args[1], NULL) : NULL;
    return *name ? attnc_as_array(*where, *name, args[2], 0) : NULL;
}

PyObject *attnc_plain_array(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const char *where, *name;
    (void)module;
    return (PyObject *)array_of("plain_array", args, count, &where, &name);
}

/* Real numbers; a dtype of bools is refused, and bools in a list. */
PyObject *attnc_real_array(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const char *where, *name;
    (void)module;
    PyArrayObject *array = array_of("real_array", args, count, &where, &name);
    if (!array)
        return NULL;
    PyArray_Descr *dtype = PyArray_DESCR(array);
    if (!attnc_is_float(dtype) && !PyTypeNum_ISINTEGER(dtype->type_num))
        attnc_complain(where, PyExc_TypeError, "%s must be real, got %S", name, dtype);
    else if ((PyObject *)array == args[2] || walk(where, name, args[2], 0, refuse_bools) == 0)
        return (PyObject *)array;
    Py_DECREF((PyObject *)array);
    return NULL;
}

/* Integers of whatever dtype; an empty list has none that could be wrong. */
PyObject *attnc_integer_array(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const char *where, *name;
    (void)module;
    PyArrayObject *array = array_of("integer_array", args, count, &where, &name);
    if (!array)
        return NULL;
    PyObject *result = NULL;
    if (PyTypeNum_ISINTEGER(PyArray_TYPE(array))) {
        if ((PyObject *)array == args[2] || walk(where, name, args[2], 0, refuse_bools) == 0)
            return (PyObject *)array;
    }
    else if (PyArray_SIZE(array) == 0 && PyArray_TYPE(array) == NPY_DOUBLE)
        result = PyArray_Cast(array, NPY_INTP);
    else
        attnc_complain(where, PyExc_TypeError, "%s must be integers, got %S (use .astype(int))",
                       name, PyArray_DESCR(array));
    Py_DECREF((PyObject *)array);
    return result;
}
