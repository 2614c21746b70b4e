/* module: attnc._core. Method table and initialisation, nothing numeric.
 *
 * Everything here is private: positional arguments only, documented in attnc/_core.pyi. The public
 * functions, with keywords, defaults and docstrings, are in attnc/functional.
 */
#define ATTNC_IMPORTS_NUMPY
#include "ops.h"

#include "arrays.h"
#include "options.h"
#include "../engine/dispatch.h"
#include "../engine/pool.h"
#include "../engine/scratch.h"

#include <string.h>

/* The five entries of an attention function: its value, the same with what backward needs,
 * backward, forward mode and second order. */
#define ATTNC_METHODS(NAME, IN_PYTHON)                                                             \
    static PyObject *NAME##_fwd(PyObject *module, PyObject *const *args, Py_ssize_t count,         \
                                PyObject *names)                                                   \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_forward(&attnc_##NAME##_function, 0, args, count, names);                     \
    }                                                                                              \
    static PyObject *NAME##_saving(PyObject *module, PyObject *const *args, Py_ssize_t count,      \
                                   PyObject *names)                                                \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_forward(&attnc_##NAME##_function, 1, args, count, names);                     \
    }                                                                                              \
    static PyObject *NAME##_bwd(PyObject *module, PyObject *const *args, Py_ssize_t count,         \
                                PyObject *names)                                                   \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_backward(&attnc_##NAME##_function, args, count, names);                       \
    }                                                                                              \
    static PyObject *NAME##_jvp(PyObject *module, PyObject *const *args, Py_ssize_t count,         \
                                PyObject *names)                                                   \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_jvp(&attnc_##NAME##_function, args, count, names);                            \
    }                                                                                              \
    static PyObject *NAME##_hvp(PyObject *module, PyObject *const *args, Py_ssize_t count,         \
                                PyObject *names)                                                   \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_hvp(&attnc_##NAME##_function, args, count, names);                            \
    }
ATTNC_ATTENTION_FUNCTIONS(ATTNC_METHODS)

/* The four of scores alone. */
#define ATTNC_SCORES_METHODS(NAME, IN_PYTHON)                                                      \
    static PyObject *NAME##_fwd(PyObject *module, PyObject *const *args, Py_ssize_t count,         \
                                PyObject *names)                                                   \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_scores_forward(&attnc_##NAME##_function, args, count, names);                 \
    }                                                                                              \
    static PyObject *NAME##_bwd(PyObject *module, PyObject *const *args, Py_ssize_t count,         \
                                PyObject *names)                                                   \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_scores_backward(&attnc_##NAME##_function, args, count, names);                \
    }                                                                                              \
    static PyObject *NAME##_jvp(PyObject *module, PyObject *const *args, Py_ssize_t count,         \
                                PyObject *names)                                                   \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_scores_jvp(&attnc_##NAME##_function, args, count, names);                     \
    }                                                                                              \
    static PyObject *NAME##_hvp(PyObject *module, PyObject *const *args, Py_ssize_t count,         \
                                PyObject *names)                                                   \
    {                                                                                              \
        (void)module;                                                                              \
        return attnc_hvp(&attnc_##NAME##_function, args, count, names);                            \
    }
ATTNC_SCORES_FUNCTIONS(ATTNC_SCORES_METHODS)

/* ---- threads and instruction sets ---- */

static PyObject *get_num_threads(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    return PyLong_FromLong(attnc_get_num_threads());
}

/* An integer in least..ATTNC_MAX_THREADS, or -1 with an error. */
static int thread_count(PyObject *number, int least)
{
    long threads = PyLong_AsLong(number);
    if (threads == -1 && PyErr_Occurred())
        return -1;
    if (threads >= least && threads <= ATTNC_MAX_THREADS)
        return (int)threads;
    PyErr_Format(PyExc_ValueError, "set_num_threads: n must be an integer in 1..%d, got %ld",
                 ATTNC_MAX_THREADS, threads);
    return -1;
}

static PyObject *set_num_threads(PyObject *module, PyObject *number)
{
    (void)module;
    const int threads = thread_count(number, 1);
    if (threads < 0)
        return NULL;
    attnc_set_num_threads(threads);
    Py_RETURN_NONE;
}

static PyObject *set_thread_limit(PyObject *module, PyObject *number)
{
    (void)module;
    const int threads = thread_count(number, 0);
    return threads < 0 ? NULL : PyLong_FromLong(attnc_set_thread_limit(threads));
}

static PyObject *isa_names(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    PyObject *names = PyTuple_New(attnc_isa_count());
    for (int k = 0; names && k < attnc_isa_count(); k++) {
        PyObject *name = PyUnicode_FromString(attnc_isa_name(k));
        if (!name || PyTuple_SetItem(names, k, name) < 0)
            Py_CLEAR(names);
    }
    return names;
}

static PyObject *get_isa(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    return PyUnicode_FromString(attnc_isa_name(attnc_isa_current()));
}

static PyObject *set_isa(PyObject *module, PyObject *name)
{
    (void)module;
    if (!PyUnicode_Check(name))
        return PyErr_Format(PyExc_TypeError, "set_isa: name must be a string, got %R", name);
    for (int k = 0; k < attnc_isa_count(); k++)
        if (PyUnicode_CompareWithASCIIString(name, attnc_isa_name(k)) == 0) {
            attnc_isa_select(k);
            Py_RETURN_NONE;
        }
    PyObject *names = isa_names(NULL, NULL);
    if (names)
        PyErr_Format(PyExc_ValueError, "set_isa: name must be one of %R, got %R", names, name);
    Py_XDECREF(names);
    return NULL;
}

/* ---- hooks of the tests ---- */

/* map_real(name, x): exp, exp_negative, expm1 or tanh of a contiguous real array. */
static PyObject *map_real(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyUnicode_Check(args[0]) || !PyArray_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "map_real: takes a name and an array");
    PyArrayObject *x = (PyArrayObject *)args[1];
    int type = PyArray_TYPE(x);
    if ((type != NPY_FLOAT && type != NPY_DOUBLE) || !PyArray_ISCARRAY_RO(x))
        return PyErr_Format(PyExc_TypeError, "map_real: x must be contiguous float32 or float64");
    const attnc_kernels *k = attnc_kernels_for(type == NPY_FLOAT);
    void (*map)(const void *, void *, ptrdiff_t) = NULL;
    if (PyUnicode_CompareWithASCIIString(args[0], "exp") == 0)
        map = k->map_exp;
    else if (PyUnicode_CompareWithASCIIString(args[0], "exp_negative") == 0)
        map = k->map_exp_negative;
    else if (PyUnicode_CompareWithASCIIString(args[0], "expm1") == 0)
        map = k->map_expm1;
    else if (PyUnicode_CompareWithASCIIString(args[0], "tanh") == 0)
        map = k->map_tanh;
    if (!map)
        return PyErr_Format(PyExc_ValueError, "map_real: no function %R", args[0]);
    PyObject *y = PyArray_SimpleNew(PyArray_NDIM(x), PyArray_DIMS(x), type);
    if (y)
        map(PyArray_DATA(x), PyArray_DATA((PyArrayObject *)y), PyArray_SIZE(x));
    return y;
}

static PyObject *fail_allocation(PyObject *module, PyObject *number)
{
    (void)module;
    long n = PyLong_AsLong(number);
    if (n == -1 && PyErr_Occurred())
        return NULL;
    attnc_fail_allocation(n);
    Py_RETURN_NONE;
}

static PyObject *allocation_count(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    return PyLong_FromLong(attnc_allocation_count());
}

#define ATTNC_FAST(NAME, FUNCTION)                                                                 \
    {NAME, (PyCFunction)(void (*)(void))FUNCTION, METH_FASTCALL, NULL}
#define ATTNC_NAMED(NAME, FUNCTION)                                                                \
    {NAME, (PyCFunction)(void (*)(void))FUNCTION, METH_FASTCALL | METH_KEYWORDS, NULL}
#define ATTNC_ROWS(NAME, IN_PYTHON)                                                                \
    ATTNC_NAMED(IN_PYTHON, NAME##_fwd), ATTNC_NAMED(IN_PYTHON "_saving", NAME##_saving),           \
        ATTNC_NAMED(IN_PYTHON "_backward", NAME##_bwd), ATTNC_NAMED(IN_PYTHON "_jvp", NAME##_jvp), \
        ATTNC_NAMED(IN_PYTHON "_hvp", NAME##_hvp),
#define ATTNC_SCORES_ROWS(NAME, IN_PYTHON)                                                         \
    ATTNC_NAMED(IN_PYTHON, NAME##_fwd), ATTNC_NAMED(IN_PYTHON "_backward", NAME##_bwd),            \
        ATTNC_NAMED(IN_PYTHON "_jvp", NAME##_jvp), ATTNC_NAMED(IN_PYTHON "_hvp", NAME##_hvp),
static PyMethodDef methods[] = {
    ATTNC_ATTENTION_FUNCTIONS(ATTNC_ROWS) ATTNC_SCORES_FUNCTIONS(ATTNC_SCORES_ROWS){
        "option_defaults", attnc_option_defaults, METH_NOARGS, NULL},
    ATTNC_FAST("plain_array", attnc_plain_array),
    ATTNC_FAST("real_array", attnc_real_array),
    ATTNC_FAST("integer_array", attnc_integer_array),
    ATTNC_FAST("boolean_mask", attnc_boolean_mask),
    ATTNC_FAST("empty", attnc_empty),
    ATTNC_FAST("product", attnc_matrix_product),
    ATTNC_FAST("products", attnc_matrix_products),
    ATTNC_FAST("monotonic", attnc_monotonic_forward),
    ATTNC_FAST("monotonic_backward", attnc_monotonic_backward),
    ATTNC_FAST("chunkwise", attnc_chunkwise_forward),
    ATTNC_FAST("chunkwise_backward", attnc_chunkwise_backward),
    ATTNC_FAST("cross_entropy", attnc_cross_entropy_forward),
    ATTNC_FAST("cross_entropy_backward", attnc_cross_entropy_backward),
    ATTNC_FAST("rotary", attnc_turn_pairs),
    ATTNC_FAST("norm", attnc_norm_forward),
    ATTNC_FAST("norm_backward", attnc_norm_backward),
    ATTNC_FAST("activation", attnc_activation_forward),
    ATTNC_FAST("activation_backward", attnc_activation_backward),
    ATTNC_FAST("add_dropout", attnc_dropout_added),
    ATTNC_FAST("adam", attnc_adam_step),
    ATTNC_FAST("sum_of_squares", attnc_sum_of_squares),
    ATTNC_FAST("transform_keys", attnc_transform_keys),
    ATTNC_FAST("panels", attnc_pack_panels),
    ATTNC_FAST("loop", attnc_run_loop),
    ATTNC_FAST("jax_plan", attnc_jax_plan),
    {"jax_callback", attnc_jax_callback, METH_O, NULL},
    {"jax_handlers", attnc_jax_handlers, METH_NOARGS, NULL},
    {"jax_operands", attnc_jax_operands, METH_NOARGS, NULL},
    {"get_num_threads", get_num_threads, METH_NOARGS, NULL},
    {"set_num_threads", set_num_threads, METH_O, NULL},
    {"set_thread_limit", set_thread_limit, METH_O, NULL},
    {"isa_names", isa_names, METH_NOARGS, NULL},
    {"get_isa", get_isa, METH_NOARGS, NULL},
    {"set_isa", set_isa, METH_O, NULL},
    ATTNC_FAST("map_real", map_real),
    {"fail_allocation", fail_allocation, METH_O, NULL},
    {"allocation_count", allocation_count, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int exec_module(PyObject *module)
{
    if (PyArray_ImportNumPyAPI() < 0 || attnc_arrays_init() < 0 || attnc_options_init() < 0)
        return -1;
    attnc_isa_current();
    if (PyModule_AddIntConstant(module, "MAX_THREADS", ATTNC_MAX_THREADS) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "BIAS_ROWS", ATTNC_BIAS_ROWS);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec_module},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, /* as NumPy */
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "attnc._core",
    .m_doc = "Attention on NumPy arrays, in C. Private: use attnc.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
