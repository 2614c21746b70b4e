/* args: see args.h. */
#include "args.h"

#include "arrays.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

static int computing_type(const attnc_call *c) { return c->in.f32 ? NPY_FLOAT : NPY_DOUBLE; }

ptrdiff_t attnc_stride(const PyArrayObject *array, int axis, int *whole)
{
    if (PyArray_SIZE(array) == 0 || PyArray_DIM(array, axis) <= 1)
        return 1; /* NumPy sets such strides as it likes */
    const npy_intp stride = PyArray_STRIDE(array, axis), item = PyArray_ITEMSIZE(array);
    *whole &= stride % item == 0;
    return stride / item;
}

int attnc_check_count(const char *function, Py_ssize_t count, Py_ssize_t expected)
{
    if (count == expected)
        return 0;
    PyErr_Format(PyExc_TypeError, "_core.%s: takes %zd positional arguments, got %zd", function,
                 expected, count);
    return -1;
}

int attnc_fail(const attnc_call *c, PyObject *exception, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *message = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (message)
        PyErr_Format(exception, "%s: %U", c->function, message);
    Py_XDECREF(message);
    return -1;
}

void attnc_call_clear(attnc_call *c)
{
    for (int k = 0; k < ATTNC_ARGUMENTS; k++) {
        Py_CLEAR(c->arguments[k].array);
        Py_CLEAR(c->arguments[k].dtype);
    }
    Py_CLEAR(c->mask);
    Py_CLEAR(c->key_mask);
    Py_CLEAR(c->key_lengths);
    Py_CLEAR(c->causal_offset);
    Py_CLEAR(c->output);
    Py_CLEAR(c->context);
    Py_CLEAR(c->weights);
    Py_CLEAR(c->lse);
    Py_CLEAR(c->saved_context);
    Py_CLEAR(c->stats);
    Py_CLEAR(c->saved_scores);
    attnc_give_back(&c->arena);
}

/* ---- reading arrays ---- */

static PyObject *shape_of(PyArrayObject *array)
{
    PyObject *shape = PyTuple_New(PyArray_NDIM(array));
    for (int d = 0; shape && d < PyArray_NDIM(array); d++) {
        PyObject *size = PyLong_FromSsize_t(PyArray_DIM(array, d));
        if (!size || PyTuple_SetItem(shape, d, size) < 0)
            Py_CLEAR(shape);
    }
    return shape;
}

/* "query (2, 3, 4), key (2, 5, 4) ..." of all arrays given. */
static PyObject *all_shapes(attnc_call *c)
{
    PyObject *text = PyUnicode_FromString("");
    const char *separator = "";
    for (int k = 0; text && k < ATTNC_ARGUMENTS; k++) {
        const attnc_argument *one = &c->arguments[k];
        if (!one->array || one == &c->scale || one == &c->bias)
            continue;
        PyObject *shape = shape_of(one->array);
        PyObject *longer =
            shape ? PyUnicode_FromFormat("%U%s%s %R", text, separator, one->name, shape) : NULL;
        Py_XDECREF(shape);
        ATTNC_REPLACE(text, longer);
        separator = ", ";
    }
    return text;
}

/* Fails with the message and the shapes of all arrays. */
static int fail_shapes(attnc_call *c, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *message = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    PyObject *shapes = message ? all_shapes(c) : NULL;
    if (shapes)
        attnc_fail(c, PyExc_ValueError, "%U, got %U", message, shapes);
    Py_XDECREF(message);
    Py_XDECREF(shapes);
    return -1;
}

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

/* Tensors of other libraries would lose their gradient here: say where it is kept. */
static int refuse_foreign(const attnc_call *c, const char *name, PyObject *object)
{
    static const struct {
        const char *package, *bridge, *what;
    } known[] = {{"torch", "attnc.torch", "a PyTorch tensor"},
                 {"jax", "attnc.jax", "a JAX array"},
                 {"jaxlib", "attnc.jax", "a JAX array"},
                 {"autograd", "attnc.autograd", "an autograd box"}};
    PyObject *package = package_of(object);
    int result = 0;
    for (size_t k = 0; package && k < sizeof known / sizeof *known && result == 0; k++)
        if (PyUnicode_CompareWithASCIIString(package, known[k].package) == 0)
            result =
                attnc_fail(c, PyExc_TypeError,
                           "%s must be a NumPy array, got %s; pass np.asarray(%s), or call the "
                           "function of the same name in %s",
                           name, known[k].what, name, known[k].bridge);
    Py_XDECREF(package);
    return result;
}

/* numpy.ma is not imported for this: a masked array is known by what it has. */
static int is_masked_array(PyObject *object)
{
    return PyObject_HasAttrString(object, "_mask") && PyObject_HasAttrString(object, "fill_value");
}

/* What NumPy would convert with a loss, alone or as an item of a list. */
static int refuse_lossy(const attnc_call *c, const char *name, PyObject *object)
{
    if (PyArray_CheckExact(object) || PyFloat_CheckExact(object) || PyLong_CheckExact(object))
        return 0;
    if (PyList_Check(object) || PyTuple_Check(object)) {
        if (Py_EnterRecursiveCall(" in a list of lists"))
            return -1;
        int failed = 0;
        for (Py_ssize_t k = 0; !failed && k < PySequence_Size(object); k++) {
            PyObject *item = PySequence_GetItem(object, k);
            failed = !item || refuse_lossy(c, name, item) < 0;
            Py_XDECREF(item);
        }
        Py_LeaveRecursiveCall();
        return failed ? -1 : 0;
    }
    if (is_masked_array(object))
        return attnc_fail(
            c, PyExc_TypeError,
            "%s must be a plain array, got a masked array, whose mask would be lost; pass its "
            "data (%s.data) and say what may be attended to with mask= or key_mask=",
            name, name);
    return refuse_foreign(c, name, object);
}

/* The object as an array of whatever dtype, or NULL with an error. */
static PyArrayObject *as_array(const attnc_call *c, const char *name, PyObject *object)
{
    if (PyArray_CheckExact(object)) {
        Py_INCREF(object);
        return (PyArrayObject *)object;
    }
    if (object == Py_None) {
        attnc_fail(c, PyExc_TypeError, "%s must be an array, got None", name);
        return NULL;
    }
    if (refuse_lossy(c, name, object) < 0)
        return NULL;
    PyObject *array = PyArray_FROM_O(object);
    if (!array) {
        /* Lists of unequal length end here. */
        if (PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear();
            attnc_fail(c, PyExc_TypeError,
                       "%s must be an array of numbers with rows of equal length; "
                       "array, lengths = attnc.data.pad(rows) makes one",
                       name);
        }
        return NULL;
    }
    return (PyArrayObject *)array;
}

/* What NumPy makes of an empty list: float64, though it could as well be integers or booleans. */
static int is_empty_list(PyArrayObject *array, PyObject *object)
{
    return (PyObject *)array != object && PyArray_SIZE(array) == 0 &&
           PyArray_TYPE(array) == NPY_DOUBLE;
}

static int is_bfloat16(PyArray_Descr *dtype)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)dtype, "name");
    int is = name && PyUnicode_CompareWithASCIIString(name, "bfloat16") == 0;
    Py_XDECREF(name);
    PyErr_Clear();
    return is;
}

static int is_real(PyArray_Descr *dtype, int *is_float)
{
    int type = dtype->type_num;
    *is_float = type == NPY_FLOAT || type == NPY_DOUBLE || type == NPY_HALF;
    if (*is_float || PyTypeNum_ISINTEGER(type) || PyTypeNum_ISBOOL(type))
        return 1;
    return *is_float = PyTypeNum_ISUSERDEF(type) && is_bfloat16(dtype);
}

int attnc_read(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object)
{
    argument->name = name;
    argument->array = as_array(c, name, object);
    if (!argument->array)
        return -1;
    PyArray_Descr *dtype = PyArray_DESCR(argument->array);
    int is_float;
    if (!is_real(dtype, &is_float))
        return attnc_fail(
            c, PyExc_TypeError,
            "%s must hold real numbers (float16, bfloat16, float32, float64; integers "
            "become float64), got dtype %S",
            name, dtype);
    if (is_float) {
        /* the gradient's dtype: native byte order */
        if (PyArray_ISNOTSWAPPED(argument->array))
            argument->dtype = (PyArray_Descr *)Py_NewRef((PyObject *)dtype);
        else if (!(argument->dtype = PyArray_DescrNewByteorder(dtype, NPY_NATIVE)))
            return -1;
    }
    return 0;
}

int attnc_read_optional(attnc_call *c, attnc_argument *argument, const char *name, PyObject *object)
{
    return object == Py_None ? 0 : attnc_read(c, argument, name, object);
}

int attnc_read_sequences(attnc_call *c, PyObject *const *args)
{
    if (attnc_read(c, &c->query, "query", args[0]) < 0 ||
        attnc_read(c, &c->key, "key", args[1]) < 0)
        return -1;
    return attnc_read(c, &c->value, "value", args[2]);
}

/* ---- numbers ---- */

static int fail_got(const attnc_call *c, PyObject *exception, const char *rule, PyObject *object)
{
    return attnc_fail(c, exception, "%s, got %R", rule, object);
}

/* A Python or NumPy real scalar. A bool is none, though Python's is an int. */
static int read_number(const attnc_call *c, const char *rule, PyObject *object, double *value)
{
    if (PyFloat_Check(object) || (PyLong_Check(object) && !PyBool_Check(object)) ||
        (PyArray_IsScalar(object, Number) && !PyArray_IsScalar(object, ComplexFloating))) {
        *value = PyFloat_AsDouble(object);
        if (!(*value == -1 && PyErr_Occurred()))
            return 0;
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        return fail_got(c, PyExc_ValueError, rule, object);
    }
    return fail_got(c, PyExc_TypeError, rule, object);
}

static int is_integer(PyObject *object)
{
    return (PyLong_Check(object) && !PyBool_Check(object)) || PyArray_IsScalar(object, Integer);
}

/* An integer, cut to +-2^60 so that sums with positions cannot overflow and mean the same. */
static int read_index(PyObject *object, ptrdiff_t *value)
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

static int read_flag(const attnc_call *c, const char *rule, PyObject *object, int *value)
{
    if (!PyBool_Check(object) && !PyArray_IsScalar(object, Bool))
        return fail_got(c, PyExc_TypeError, rule, object);
    *value = PyObject_IsTrue(object);
    return *value < 0 ? -1 : 0;
}

int attnc_read_scale(attnc_call *c, PyObject *object, int default_is_rsqrt)
{
    const char *rule = default_is_rsqrt ? "scale must be None, a real number or a 0-d array"
                                        : "scale must be a real number or a 0-d array";
    c->in.scale = 1;
    if (object == Py_None && default_is_rsqrt) {
        c->in.scale = NAN; /* until D is known */
        return 0;
    }
    if (!PyArray_Check(object)) {
        if (read_number(c, rule, object, &c->in.scale) < 0)
            return -1;
        return isfinite(c->in.scale) ? 0 : fail_got(c, PyExc_ValueError, rule, object);
    }
    if (PyArray_NDIM((PyArrayObject *)object) == 0)
        return attnc_read(c, &c->scale, "scale", object);
    PyObject *shape = shape_of((PyArrayObject *)object);
    if (shape)
        attnc_fail(c, PyExc_ValueError,
                   "%s, got an array of shape %R; for a scale per head multiply the query", rule,
                   shape);
    Py_XDECREF(shape);
    return -1;
}

static int read_window(attnc_call *c, PyObject *window)
{
    static const char rule[] =
        "window must be None or a pair (left, right) of integers >= 0 or None (open)";
    c->in.left = c->in.right = -1;
    if (window == Py_None)
        return 0;
    if (!PyTuple_Check(window) && !PyList_Check(window))
        return fail_got(c, PyExc_TypeError, rule, window);
    if (PySequence_Size(window) != 2)
        return fail_got(c, PyExc_ValueError, rule, window);
    ptrdiff_t *sides[] = {&c->in.left, &c->in.right};
    for (int k = 0; k < 2; k++) {
        PyObject *side = PySequence_GetItem(window, k);
        if (!side)
            return -1;
        int none = side == Py_None, integer = is_integer(side);
        int failed = !none && integer && read_index(side, sides[k]) < 0;
        Py_DECREF(side);
        if (failed)
            return -1;
        if (!none && !integer)
            return fail_got(c, PyExc_TypeError, rule, window);
        if (!none && *sides[k] < 0)
            return fail_got(c, PyExc_ValueError, rule, window);
    }
    c->in.window = 1; /* even if open on both sides */
    return 0;
}

int attnc_read_options(attnc_call *c, PyObject *const *options)
{
    if (attnc_read_optional(c, &c->bias, "bias", options[OPTION_BIAS]) < 0 ||
        read_flag(c, "causal must be True or False", options[OPTION_CAUSAL], &c->in.causal) < 0 ||
        read_flag(c, "return_weights must be True or False", options[OPTION_RETURN_WEIGHTS],
                  &c->return_weights) < 0 ||
        read_flag(c, "return_lse must be True or False", options[OPTION_RETURN_LSE],
                  &c->return_lse) < 0 ||
        read_window(c, options[OPTION_WINDOW]) < 0)
        return -1;
    PyObject *softcap = options[OPTION_SOFTCAP], *dropout = options[OPTION_DROPOUT];
    if (softcap != Py_None) {
        static const char rule[] = "softcap must be None or a number > 0";
        if (read_number(c, rule, softcap, &c->in.softcap) < 0)
            return -1;
        if (!(c->in.softcap > 0 && isfinite(c->in.softcap)))
            return fail_got(c, PyExc_ValueError, rule, softcap);
    }
    static const char rule[] = "dropout must be a number with 0 <= dropout < 1";
    if (read_number(c, rule, dropout, &c->in.dropout) < 0)
        return -1;
    if (!(c->in.dropout >= 0 && c->in.dropout < 1))
        return fail_got(c, PyExc_ValueError, rule, dropout);
    if (c->in.dropout == 0)
        return 0;
    /* attnc.functional turns None and Generators into the 64-bit key */
    static const char rng_rule[] =
        "rng must be None, a numpy.random.Generator or an integer in 0..2**64-1";
    PyObject *rng = options[OPTION_RNG];
    if (!is_integer(rng))
        return fail_got(c, PyExc_TypeError, rng_rule, rng);
    c->in.dropout_key = PyLong_AsUnsignedLongLong(rng);
    if (c->in.dropout_key == (uint64_t)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        return fail_got(c, PyExc_ValueError, rng_rule, rng);
    }
    return 0;
}

/* ---- conversion ---- */

static int is_native(PyArrayObject *array, int type)
{
    return PyArray_TYPE(array) == type && PyArray_ISBEHAVED_RO(array);
}

/* Kernels read rows: the last axis must be contiguous, other strides whole elements. */
static int rows_are_readable(PyArrayObject *array)
{
    int ndim = PyArray_NDIM(array);
    npy_intp size = PyArray_ITEMSIZE(array);
    if (ndim > 0 && PyArray_DIM(array, ndim - 1) > 1 && PyArray_STRIDE(array, ndim - 1) != size)
        return 0;
    for (int d = 0; d < ndim - 1; d++)
        if (PyArray_STRIDE(array, d) & (size - 1)) /* of 2, 4 or 8 bytes */
            return 0;
    return 1;
}

static PyObject *converted(PyArrayObject *array, int type)
{
    return PyArray_FROMANY((PyObject *)array, type, 0, 0,
                           NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_FORCECAST |
                               NPY_ARRAY_ENSUREARRAY);
}

/* The same where numpy.errstate(under="raise") refused it: what is too small for the type is 0 in
 * it, or subnormal, and that is no error. */
static PyObject *converted_despite_underflow(PyArrayObject *array, int type)
{
    PyObject *numpy = PyImport_ImportModule("numpy");
    PyObject *errstate = numpy ? PyObject_GetAttrString(numpy, "errstate") : NULL;
    PyObject *none = PyTuple_New(0), *under = Py_BuildValue("{ss}", "under", "ignore");
    PyObject *block = errstate && none && under ? PyObject_Call(errstate, none, under) : NULL;
    PyObject *entered = block ? PyObject_CallMethod(block, "__enter__", NULL) : NULL;
    PyObject *result = entered ? converted(array, type) : NULL;
    if (entered) {
        PyObject *kind, *value, *traceback; /* of an overflow, which stays an error */
        PyErr_Fetch(&kind, &value, &traceback);
        PyObject *left = PyObject_CallMethod(block, "__exit__", "OOO", Py_None, Py_None, Py_None);
        if (kind)
            PyErr_Restore(kind, value, traceback);
        else if (!left)
            Py_CLEAR(result);
        Py_XDECREF(left);
    }
    Py_XDECREF(numpy);
    Py_XDECREF(errstate);
    Py_XDECREF(none);
    Py_XDECREF(under);
    Py_XDECREF(block);
    Py_XDECREF(entered);
    return result;
}

static int make_contiguous(attnc_argument *argument)
{
    if (PyArray_IS_C_CONTIGUOUS(argument->array))
        return 0;
    PyObject *copy = PyArray_NewCopy(argument->array, NPY_CORDER);
    if (!copy)
        return -1;
    ATTNC_REPLACE(argument->array, (PyArrayObject *)copy);
    return 0;
}

/* Whether the kernels read the array in halves, as it is. */
static int stays_in_halves(const attnc_call *c, PyArrayObject *array)
{
    const int type = PyArray_TYPE(array);
    return c->in.f32 && attnc_stored_as(type) != ATTNC_AS_COMPUTED && is_native(array, type);
}

static int convert_argument(attnc_call *c, attnc_argument *argument, int halves)
{
    int type = computing_type(c);
    if (!argument->array)
        return 0;
    if (!is_native(argument->array, type) && !(halves && stays_in_halves(c, argument->array))) {
        PyObject *native = converted(argument->array, type);
        if (!native && PyErr_ExceptionMatches(PyExc_FloatingPointError)) {
            PyErr_Clear();
            native = converted_despite_underflow(argument->array, type);
        }
        if (!native)
            return -1;
        ATTNC_REPLACE(argument->array, (PyArrayObject *)native);
    }
    return rows_are_readable(argument->array) ? 0 : make_contiguous(argument);
}

/* A constant must be a number of the computing dtype that leaves room for what the kernels multiply
 * it with; one that became infinite or subnormal would make rows NaN or wrong. */
static int check_range(const attnc_call *c, const char *name, double value, const char *range,
                       double least, double most)
{
    if (value == 0 || (fabs(value) >= least && fabs(value) <= most))
        return 0;
    PyObject *got = PyFloat_FromDouble(value);
    if (got)
        attnc_fail(c, PyExc_ValueError,
                   "%s must be 0 or of a magnitude in %s to be computed in %s, "
                   "got %R%s",
                   name, range, c->in.f32 ? "float32" : "float64", got,
                   c->in.f32 && isfinite(value) ? "; float64 arrays allow more" : "");
    Py_XDECREF(got);
    return -1;
}

static int check_constants(const attnc_call *c)
{
    /* The scale multiplies the query before the key does, the cap's inverse the scores. */
    const double scale = c->scale.array || isnan(c->in.scale) ? 1 : c->in.scale;
    if (c->in.f32)
        return check_range(c, "scale", scale, "1e-30..1e30", 1e-30, 1e30) < 0
                   ? -1
                   : check_range(c, "softcap", c->in.softcap, "1.2e-38..8.5e37", FLT_MIN,
                                 1 / (double)FLT_MIN);
    return check_range(c, "scale", scale, "1e-300..1e300", 1e-300, 1e300) < 0
               ? -1
               : check_range(c, "softcap", c->in.softcap, "2.3e-308..4.4e307", DBL_MIN,
                             1 / DBL_MIN);
}

int attnc_convert(attnc_call *c)
{
    PyArray_Descr *dtypes[ATTNC_ARGUMENTS];
    int count = 0, floats = 1, doubles = 1;
    for (int k = 0; k < ATTNC_ARGUMENTS; k++) {
        if (!c->arguments[k].array)
            continue;
        PyArray_Descr *dtype = c->arguments[k].dtype;
        const int type = dtype ? dtype->type_num : -1;
        floats = floats && type == NPY_FLOAT;
        doubles = doubles && type == NPY_DOUBLE;
        dtypes[count++] = dtype;
    }
    if (floats)
        c->in.f32 = 1;
    else if (!doubles) {
        PyArray_Descr *wide = PyArray_DescrFromType(NPY_DOUBLE);
        for (int k = 0; k < count; k++)
            if (!dtypes[k])
                dtypes[k] = wide;
        c->output = PyArray_ResultType(0, NULL, count, dtypes);
        Py_DECREF(wide);
        if (!c->output)
            return -1;
        c->in.f32 = c->output->type_num != NPY_DOUBLE;
    }
    for (int k = 0; k < ATTNC_ARGUMENTS; k++) {
        const attnc_argument *a = &c->arguments[k];
        const int halves =
            a == &c->query || a == &c->key || a == &c->value || a == &c->scores || a == &c->bias;
        if (convert_argument(c, &c->arguments[k], halves) < 0)
            return -1;
    }
    if (c->scale.array)
        c->in.scale = c->in.f32 ? *(float *)PyArray_DATA(c->scale.array)
                                : *(double *)PyArray_DATA(c->scale.array);
    return check_constants(c);
}

/* ---- shapes ---- */

/* lead = the broadcast of the leading axes of the n arrays. */
static int broadcast_lead(attnc_call *c, const attnc_argument *const *arguments, int n)
{
    attnc_lead *lead = &c->in.lead;
    const int ndim = PyArray_NDIM(arguments[0]->array) - 2;
    ptrdiff_t *shape = attnc_take(&c->arena, (size_t)ndim, sizeof *shape);
    if (!shape) {
        PyErr_NoMemory();
        return -1;
    }
    *lead = (attnc_lead){ndim, 1, shape};
    for (int d = 0; d < ndim; d++) {
        shape[d] = 1;
        for (int k = 0; k < n; k++) {
            npy_intp size = PyArray_DIM(arguments[k]->array, d);
            if (size != 1 && shape[d] != 1 && size != shape[d])
                return fail_shapes(
                    c,
                    "%s must have the leading axes (batch, heads) of the other arrays, "
                    "equal or 1 in axis %d",
                    arguments[k]->name, d);
            if (size != 1)
                shape[d] = size;
        }
    }
    int empty = 0;
    for (int d = 0; d < ndim; d++)
        empty |= shape[d] == 0;
    for (int d = 0; d < ndim && !empty; d++)
        if (__builtin_mul_overflow(lead->count, shape[d], &lead->count))
            return fail_shapes(c, "query must leave the broadcast leading axes countable");
    if (empty)
        lead->count = 0;
    return 0;
}

static int check_rank(attnc_call *c, const attnc_argument *argument, const attnc_argument *other)
{
    int ndim = PyArray_NDIM(argument->array), rank = PyArray_NDIM(other->array);
    if (ndim < 2)
        return fail_shapes(c,
                           ndim == 1
                               ? "%s must have at least 2 axes (time, feature); for one vector "
                                 "write %s[None, :]"
                               : "%s must have at least 2 axes (time, feature)",
                           argument->name, argument->name);
    if (rank >= 2 && ndim != rank) {
        const attnc_argument *shorter = ndim < rank ? argument : other;
        const int one_step =
            PyArray_NDIM(shorter->array) == 2 && (ndim == 3 || rank == 3) && shorter == &c->query;
        return fail_shapes(c,
                           one_step
                               ? "%s must have as many axes as %s; for one query a sequence write "
                                 "%s[:, None, :]"
                               : "%s must have as many axes as %s; give %s axes of size 1 where "
                                 "it broadcasts",
                           argument->name, other->name, shorter->name);
    }
    return 0;
}

int attnc_check_sequences(attnc_call *c, int same_features)
{
    const attnc_argument *three[] = {&c->query, &c->key, &c->value};
    if (check_rank(c, &c->query, &c->key) < 0 || check_rank(c, &c->key, &c->query) < 0 ||
        check_rank(c, &c->value, &c->key) < 0)
        return -1;
    int last = PyArray_NDIM(c->query.array) - 1;
    c->in.Tq = PyArray_DIM(c->query.array, last - 1);
    c->in.Tk = PyArray_DIM(c->key.array, last - 1);
    c->in.D = PyArray_DIM(c->key.array, last);
    c->in.Dv = PyArray_DIM(c->value.array, last);
    if (same_features && PyArray_DIM(c->query.array, last) != c->in.D)
        return fail_shapes(c, "key must have the feature size of query in its last axis, %zd",
                           (Py_ssize_t)PyArray_DIM(c->query.array, last));
    if (PyArray_DIM(c->value.array, last - 1) != c->in.Tk)
        return fail_shapes(c, "value must have the length of key in its time axis, %zd",
                           (Py_ssize_t)c->in.Tk);
    return broadcast_lead(c, three, 3);
}

int attnc_check_given_scores(attnc_call *c)
{
    const attnc_argument *two[] = {&c->scores, &c->value};
    if (check_rank(c, &c->scores, &c->value) < 0 || check_rank(c, &c->value, &c->scores) < 0)
        return -1;
    int last = PyArray_NDIM(c->scores.array) - 1;
    c->in.Tq = PyArray_DIM(c->scores.array, last - 1);
    c->in.Tk = PyArray_DIM(c->scores.array, last);
    c->in.Dv = PyArray_DIM(c->value.array, last);
    if (PyArray_DIM(c->value.array, last - 1) != c->in.Tk)
        return fail_shapes(c, "value must have one row for each column of scores, %zd",
                           (Py_ssize_t)c->in.Tk);
    return broadcast_lead(c, two, 2);
}

int attnc_check_parameter(attnc_call *c, const attnc_argument *argument, npy_intp m, npy_intp n,
                          const char *rule)
{
    PyArrayObject *array = argument->array;
    if (!array)
        return 0;
    if (n < 0
            ? PyArray_NDIM(array) == 1 && PyArray_DIM(array, 0) == m
            : PyArray_NDIM(array) == 2 && PyArray_DIM(array, 0) == m && PyArray_DIM(array, 1) == n)
        return 0;
    if (n < 0)
        return fail_shapes(c, "%s must have shape (%zd,): %s", argument->name, (Py_ssize_t)m, rule);
    return fail_shapes(c, "%s must have shape (%zd, %zd): %s", argument->name, (Py_ssize_t)m,
                       (Py_ssize_t)n, rule);
}

int attnc_check_vector(attnc_call *c, const attnc_argument *argument)
{
    if (PyArray_NDIM(argument->array) == 1)
        return 0;
    return fail_shapes(c, "%s must have one axis", argument->name);
}

int attnc_check_projected(attnc_call *c, const attnc_argument *argument, npy_intp H,
                          const char *weight)
{
    PyArrayObject *array = argument->array;
    if (PyArray_DIM(array, PyArray_NDIM(array) - 1) == H)
        return 0;
    return fail_shapes(
        c,
        "%s must have the size of score_vector, %zd, in its last axis, because no %s is "
        "given to project it",
        argument->name, (Py_ssize_t)H, weight);
}

/* ---- masks and bias: full rank, axes of size 1 broadcast ---- */

/* The axes of a mask-like argument and their meaning, for its messages. */
typedef struct {
    const char *name, *axes;
    int ndim;
    npy_intp shape[NPY_MAXDIMS];
} full_shape;

static full_shape full_shape_of(const attnc_call *c, const char *name, int with_query, int with_key)
{
    full_shape full = {.name = name, .ndim = c->in.lead.ndim};
    for (int d = 0; d < full.ndim; d++)
        full.shape[d] = c->in.lead.shape[d];
    if (with_query)
        full.shape[full.ndim++] = c->in.Tq;
    if (with_key)
        full.shape[full.ndim++] = c->in.Tk;
    full.axes = with_query ? "(..., Tq, Tk)" : with_key ? "(..., Tk)" : "(...,)";
    return full;
}

static PyObject *tuple_of(const npy_intp *sizes, int n)
{
    PyObject *tuple = PyTuple_New(n);
    for (int d = 0; tuple && d < n; d++) {
        PyObject *size = PyLong_FromSsize_t(sizes[d]);
        if (!size || PyTuple_SetItem(tuple, d, size) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* Ways to put the axes of a low-rank array, in order, onto axes of the full shape that they fit:
 * appends "name[:, None, None, :]" for up to two of them. Trailing axes first, as NumPy aligns. */
static PyObject *index_expressions(const full_shape *full, PyArrayObject *array)
{
    const int n = PyArray_NDIM(array);
    PyObject *text = PyUnicode_FromString("");
    int found = 0, at[NPY_MAXDIMS];
    if (n == 0 || n >= full->ndim || full->ndim > 8)
        return text;
    for (int k = 0; k < n; k++)
        at[k] = full->ndim - n + k;
    while (text && found < 2) {
        int fits = 1;
        for (int k = 0; k < n && fits; k++)
            fits = PyArray_DIM(array, k) == full->shape[at[k]] || PyArray_DIM(array, k) == 1;
        if (fits) {
            PyObject *longer =
                PyUnicode_FromFormat("%U%s%s[", text, found++ ? " or " : "", full->name);
            ATTNC_REPLACE(text, longer);
            for (int d = 0, k = 0; text && d < full->ndim; d++) {
                int here = k < n && at[k] == d;
                k += here;
                longer = PyUnicode_FromFormat("%U%s%s", text, d ? ", " : "", here ? ":" : "None");
                ATTNC_REPLACE(text, longer);
            }
            longer = text ? PyUnicode_FromFormat("%U]", text) : NULL;
            ATTNC_REPLACE(text, longer);
        }
        /* the next choice of axes, counting down: move the first that can move left */
        int k = 0;
        while (k < n && at[k] == (k ? at[k - 1] + 1 : 0))
            k++;
        if (k == n)
            break;
        at[k]--;
        for (int below = k - 1; below >= 0; below--)
            at[below] = at[below + 1] - 1;
    }
    return text;
}

static int check_full_shape(const attnc_call *c, const full_shape *full, PyArrayObject *array)
{
    int right = PyArray_NDIM(array) == full->ndim;
    for (int d = 0; d < full->ndim && right; d++)
        right = PyArray_DIM(array, d) == full->shape[d] || PyArray_DIM(array, d) == 1;
    if (right)
        return 0;
    PyObject *want = tuple_of(full->shape, full->ndim), *got = shape_of(array);
    PyObject *fix = want && got ? index_expressions(full, array) : NULL;
    if (fix) {
        int known = PyUnicode_GetLength(fix) > 0;
        int keys = full->ndim >= 3 && strcmp(full->name, "mask") == 0 && PyArray_NDIM(array) == 2;
        attnc_fail(c, PyExc_ValueError,
                   "%s must have %d axes %s = %R, each of that size or 1, got %R%s%U%s", full->name,
                   full->ndim, full->axes, want, got, known ? "; write " : "", fix,
                   keys ? "; a mask of keys alone goes to key_mask=" : "");
    }
    Py_XDECREF(want);
    Py_XDECREF(got);
    Py_XDECREF(fix);
    return -1;
}

static int read_bool_mask(attnc_call *c, const char *name, PyObject *object, int with_query,
                          PyArrayObject **kept, attnc_operand *operand)
{
    if (object == Py_None)
        return 0;
    PyArrayObject *array = as_array(c, name, object);
    *kept = array;
    if (!array)
        return -1;
    if (PyArray_TYPE(array) != NPY_BOOL && !is_empty_list(array, object))
        return attnc_fail(c, PyExc_TypeError,
                          "%s must be boolean (True: may be attended to), got dtype %S; write "
                          "%s.astype(bool), or pass what is to be added to the scores as bias=",
                          name, PyArray_DESCR(array), name);
    full_shape full = full_shape_of(c, name, with_query, 1);
    if (check_full_shape(c, &full, array) < 0)
        return -1;
    return attnc_operand_of(c, array, operand);
}

/* Lengths or offsets: an integer, or an integer array over the leading axes. */
static int read_integers(attnc_call *c, const char *name, PyObject *object, ptrdiff_t *number,
                         int *given, PyArrayObject **kept, attnc_operand *operand)
{
    *given = object != Py_None;
    if (!*given)
        return 0;
    if (is_integer(object))
        return read_index(object, number);
    PyArrayObject *array = as_array(c, name, object);
    *kept = array;
    if (!array)
        return -1;
    if (!PyTypeNum_ISINTEGER(PyArray_TYPE(array)) && !is_empty_list(array, object))
        return attnc_fail(c, PyExc_TypeError,
                          "%s must be an integer or an array of integers, got dtype %S", name,
                          PyArray_DESCR(array));
    full_shape full = full_shape_of(c, name, 0, 0);
    if (check_full_shape(c, &full, array) < 0)
        return -1;
    if (PyArray_TYPE(array) == NPY_ULONG || PyArray_TYPE(array) == NPY_ULONGLONG) {
        /* beyond int64 there is no position: let it be cut like any large number */
        PyObject *most = PyLong_FromLongLong(1LL << 60);
        PyObject *cut =
            most ? PyObject_CallMethod((PyObject *)array, "clip", "OO", Py_None, most) : NULL;
        Py_XDECREF(most);
        if (!cut)
            return -1;
        PyObject *as_one = PyArray_FROM_O(cut); /* clip of a 0-d array is a scalar */
        Py_DECREF(cut);
        if (!as_one)
            return -1;
        ATTNC_REPLACE(*kept, (PyArrayObject *)as_one);
    }
    PyObject *copy = PyArray_FROMANY((PyObject *)*kept, NPY_INT64, 0, 0,
                                     NPY_ARRAY_CARRAY | NPY_ARRAY_FORCECAST | NPY_ARRAY_ENSURECOPY);
    if (!copy)
        return -1;
    ATTNC_REPLACE(*kept, (PyArrayObject *)copy);
    return attnc_operand_of(c, *kept, operand);
}

static int check_lengths(attnc_call *c, const int64_t *lengths, npy_intp count)
{
    for (npy_intp k = 0; k < count; k++)
        if (lengths[k] < 0 || lengths[k] > c->in.Tk)
            return attnc_fail(c, PyExc_ValueError,
                              "key_lengths must lie in 0..%zd, the number of keys, got %lld",
                              (Py_ssize_t)c->in.Tk, (long long)lengths[k]);
    return 0;
}

int attnc_read_masks(attnc_call *c, PyObject *const *options)
{
    attnc_inputs *in = &c->in;
    int given;
    ptrdiff_t length = in->Tk;
    if (read_bool_mask(c, "mask", options[OPTION_MASK], 1, &c->mask, &in->mask) < 0 ||
        read_bool_mask(c, "key_mask", options[OPTION_KEY_MASK], 0, &c->key_mask, &in->key_mask) <
            0 ||
        read_integers(c, "key_lengths", options[OPTION_KEY_LENGTHS], &length, &given,
                      &c->key_lengths, &in->lengths) < 0)
        return -1;
    in->length = length;
    int64_t one = length;
    if (c->key_lengths
            ? check_lengths(c, PyArray_DATA(c->key_lengths), PyArray_SIZE(c->key_lengths)) < 0
            : check_lengths(c, &one, 1) < 0)
        return -1;

    in->causal_offset = in->Tk - in->Tq;
    if (read_integers(c, "causal_offset", options[OPTION_CAUSAL_OFFSET], &in->causal_offset, &given,
                      &c->causal_offset, &in->offset) < 0)
        return -1;
    if (given && !in->causal && !in->window)
        return attnc_fail(c, PyExc_ValueError,
                          "causal_offset must go with causal=True or window=, got neither");
    if (c->causal_offset) { /* cut like a single one; it is our copy */
        int64_t *offset = PyArray_DATA(c->causal_offset);
        const int64_t most = (int64_t)1 << 60;
        for (npy_intp k = 0; k < PyArray_SIZE(c->causal_offset); k++)
            offset[k] = offset[k] > most ? most : offset[k] < -most ? -most : offset[k];
    }
    if (!c->bias.array)
        return 0;
    full_shape full = full_shape_of(c, "bias", 1, 1);
    return check_full_shape(c, &full, c->bias.array);
}

/* ---- arrays for the engine ---- */

ptrdiff_t attnc_features(const attnc_argument *argument)
{
    return PyArray_DIM(argument->array, PyArray_NDIM(argument->array) - 1);
}

/* A stride of bytes in elements of 1, 2, 4 or 8 bytes. By a constant the processor need not
 * divide. */
static ptrdiff_t in_items(npy_intp bytes, npy_intp item)
{
    return item == 4 ? bytes / 4 : item == 8 ? bytes / 8 : item == 2 ? bytes / 2 : bytes;
}

int attnc_operand_of(attnc_call *c, PyArrayObject *array, attnc_operand *operand)
{
    const int ndim = PyArray_NDIM(array);
    const npy_intp item = PyArray_ITEMSIZE(array);
    const npy_intp *shape = PyArray_DIMS(array), *bytes = PyArray_STRIDES(array);
    ptrdiff_t *stride = attnc_take(&c->arena, (size_t)ndim, sizeof *stride);
    if (!stride) {
        PyErr_NoMemory();
        return -1;
    }
    /* A leading axis of size 1 may have any stride; with 0 the engine need not change it. */
    for (int d = 0; d < ndim; d++)
        stride[d] = d < c->in.lead.ndim && shape[d] == 1 ? 0 : in_items(bytes[d], item);
    *operand =
        (attnc_operand){PyArray_DATA(array), shape, stride, attnc_stored_as(PyArray_TYPE(array))};
    return 0;
}

int attnc_read_gradient(attnc_call *c, PyObject *object, const char *name, const char *output,
                        int ndim, const npy_intp *shape, int halves, PyArrayObject **array)
{
    if (object == Py_None)
        return 0;
    attnc_argument argument = {0};
    if (attnc_read(c, &argument, name, object) < 0)
        goto fail;
    if (!argument.dtype) {
        attnc_fail(c, PyExc_TypeError, "%s must have a float dtype, got dtype %S", name,
                   PyArray_DESCR(argument.array));
        goto fail;
    }
    int right = PyArray_NDIM(argument.array) == ndim;
    for (int d = 0; d < ndim && right; d++)
        right = PyArray_DIM(argument.array, d) == shape[d];
    if (!right) {
        PyObject *want = tuple_of(shape, ndim), *got = shape_of(argument.array);
        if (want && got)
            attnc_fail(c, PyExc_ValueError, "%s must have the shape of %s, %R, got %R", name,
                       output, want, got);
        Py_XDECREF(want);
        Py_XDECREF(got);
        goto fail;
    }
    if (convert_argument(c, &argument, halves) < 0)
        goto fail;
    Py_XDECREF((PyObject *)argument.dtype);
    *array = argument.array;
    return 0;
fail:
    Py_XDECREF((PyObject *)argument.dtype);
    Py_XDECREF((PyObject *)argument.array);
    return -1;
}
