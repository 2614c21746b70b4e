/* options: see options.h. */
#include "options.h"

#include <math.h>
#include <string.h>

/* ---- readers of single values ---- */

/* A mask passed as a bias would add 0 or 1 and exclude nothing. */
static int read_bias(attnc_call *c, PyObject *bias)
{
    if (attnc_read(c, &c->bias, "bias", bias) < 0)
        return -1;
    if (PyArray_TYPE(c->bias.array) == NPY_BOOL && PyArray_SIZE(c->bias.array) > 0)
        return attnc_fail(c, PyExc_TypeError,
                          "bias must be numbers that are added to the scores, got dtype bool; pass "
                          "mask= what may be attended to, or write bias.astype(float)");
    return 0;
}

static int read_causal(attnc_call *c, PyObject *causal)
{
    return attnc_read_flag(c->function, "causal must be True or False", causal, &c->in.causal);
}

static int read_return_weights(attnc_call *c, PyObject *flag)
{
    return attnc_read_flag(c->function, "return_weights must be True or False", flag,
                           &c->return_weights);
}

static int read_return_lse(attnc_call *c, PyObject *flag)
{
    return attnc_read_flag(c->function, "return_lse must be True or False", flag, &c->return_lse);
}

static int read_window(attnc_call *c, PyObject *window)
{
    static const char rule[] =
        "window must be None or a pair (left, right) of integers >= 0 or None (open)";
    if (!PyTuple_Check(window) && !PyList_Check(window))
        return attnc_complain_got(c->function, PyExc_TypeError, rule, window);
    if (PySequence_Size(window) != 2)
        return attnc_complain_got(c->function, PyExc_ValueError, rule, window);
    ptrdiff_t *sides[] = {&c->in.left, &c->in.right};
    for (int k = 0; k < 2; k++) {
        PyObject *side = PySequence_GetItem(window, k);
        if (!side)
            return -1;
        int none = side == Py_None, integer = attnc_is_integer(side);
        int failed = !none && integer && attnc_read_index(side, sides[k]) < 0;
        Py_DECREF(side);
        if (failed)
            return -1;
        if (!none && !integer)
            return attnc_complain_got(c->function, PyExc_TypeError, rule, window);
        if (!none && *sides[k] < 0)
            return attnc_complain_got(c->function, PyExc_ValueError, rule, window);
    }
    c->in.window = 1; /* even if open on both sides */
    return 0;
}

static int read_softcap(attnc_call *c, PyObject *softcap)
{
    static const char rule[] = "softcap must be None or a number > 0";
    if (attnc_read_number(c->function, rule, softcap, &c->in.softcap) < 0)
        return -1;
    if (c->in.softcap > 0 && isfinite(c->in.softcap))
        return 0;
    return attnc_complain_got(c->function, PyExc_ValueError, rule, softcap);
}

/* A number, which is kept as a double, or a real array, which has a gradient. */
static int read_numbers(attnc_call *c, const char *name, const char *rule, PyObject *object,
                        attnc_argument *argument, PyArrayObject **numbers)
{
    double value;
    const int number = PyFloat_Check(object) || PyLong_Check(object) ||
                       (PyArray_IsScalar(object, Number) || PyArray_IsScalar(object, Bool));
    if (!number)
        return attnc_read(c, argument, name, object);
    if (attnc_read_number(c->function, rule, object, &value) < 0)
        return -1;
    *numbers = (PyArrayObject *)PyArray_SimpleNew(0, NULL, NPY_DOUBLE);
    if (!*numbers)
        return -1;
    *(double *)PyArray_DATA(*numbers) = value;
    return 0;
}

static int read_slope(attnc_call *c, PyObject *slope)
{
    static const char rule[] = "slope must be None, a finite number or a real array";
    if (read_numbers(c, "slope", rule, slope, &c->slope, &c->slopes) < 0)
        return -1;
    if (!c->slopes || isfinite(*(double *)PyArray_DATA(c->slopes)))
        return 0;
    return attnc_complain_got(c->function, PyExc_ValueError, rule, slope);
}

static int read_sink(attnc_call *c, PyObject *sink)
{
    return read_numbers(c, "sink", "sink must be None, a number or a real array", sink, &c->sink,
                        &c->sinks);
}

static int read_center(attnc_call *c, PyObject *center)
{
    return read_numbers(c, "center", "center must be None, a number or a real array", center,
                        &c->center, &c->centers);
}

static int read_sigma(attnc_call *c, PyObject *sigma)
{
    static const char rule[] = "sigma must be None or a number > 0 (inf: no Gaussian)";
    if (attnc_read_number(c->function, rule, sigma, &c->in.sigma) < 0)
        return -1;
    return c->in.sigma > 0 ? 0 : attnc_complain_got(c->function, PyExc_ValueError, rule, sigma);
}

static int read_renormalize(attnc_call *c, PyObject *flag)
{
    return attnc_read_flag(c->function, "renormalize must be True or False", flag,
                           &c->in.renormalize);
}

/* What goes with a center, and what it needs. */
static int check_center(attnc_call *c)
{
    const int given = c->center.array || c->centers;
    if (!given && (c->in.sigma > 0 || c->in.renormalize))
        return attnc_fail(c, PyExc_ValueError, "%s must go with center=, got none",
                          c->in.sigma > 0 ? "sigma" : "renormalize");
    if (!given)
        return 0;
    if (!c->in.window)
        return attnc_fail(c, PyExc_ValueError,
                          "center must go with window=(left, right), which counts from "
                          "floor(center), got none");
    if (c->in.sigma > 0)
        return 0;
    if (c->in.left <= 0)
        return attnc_fail(c, PyExc_ValueError,
                          "sigma must be given where the window has no keys on the left to take "
                          "half of, got None with window left %s; inf is no Gaussian",
                          c->in.left < 0 ? "open" : "0");
    c->in.sigma = (double)c->in.left / 2;
    return 0;
}

static const char *const normalizers[] = {
    [ATTNC_SOFTMAX] = "softmax", [ATTNC_SPARSEMAX] = "sparsemax", [ATTNC_ENTMAX15] = "entmax15"};

static int read_normalizer(attnc_call *c, PyObject *normalizer)
{
    static const char rule[] = "normalizer must be 'softmax', 'sparsemax' or 'entmax15'";
    if (!PyUnicode_Check(normalizer))
        return attnc_complain_got(c->function, PyExc_TypeError, rule, normalizer);
    for (attnc_normalizer k = ATTNC_SOFTMAX; k <= ATTNC_ENTMAX15; k++)
        if (PyUnicode_CompareWithASCIIString(normalizer, normalizers[k]) == 0) {
            c->in.normalizer = k;
            return 0;
        }
    return attnc_complain_got(c->function, PyExc_ValueError, rule, normalizer);
}

/* What has no meaning where weights are no quotients of exponentials. */
static int check_normalizer(attnc_call *c)
{
    const char *wrong = c->return_lse                   ? "return_lse must be False"
                        : c->sink.array || c->sinks     ? "sink must be None"
                        : c->center.array || c->centers ? "center must be None"
                        : c->packed                     ? "query_offsets must be None"
                                                        : NULL;
    if (c->in.normalizer == ATTNC_SOFTMAX || !wrong)
        return 0;
    return attnc_fail(c, PyExc_ValueError, "%s with normalizer='%s', got one; %s", wrong,
                      normalizers[c->in.normalizer],
                      c->packed ? "call it on each sequence" : "it belongs to the softmax");
}

static int read_offsets(attnc_call *c, PyObject *offsets)
{
    (void)offsets; /* it is read against the shapes */
    c->packed = 1;
    return 0;
}

static int read_dropout(attnc_call *c, PyObject *dropout)
{
    static const char rule[] = "dropout must be a number with 0 <= dropout < 1";
    if (attnc_read_number(c->function, rule, dropout, &c->in.dropout) < 0)
        return -1;
    if (c->in.dropout >= 0 && c->in.dropout < 1)
        return 0;
    return attnc_complain_got(c->function, PyExc_ValueError, rule, dropout);
}

/* The key itself: attnc.functional draws it where None or a Generator was passed. */
int attnc_read_key(attnc_call *c, PyObject *rng, uint64_t *key)
{
    static const char rule[] =
        "rng must be None, a numpy.random.Generator or an integer in 0..2**64-1";
    if (!attnc_is_integer(rng))
        return attnc_complain_got(c->function, PyExc_TypeError, rule, rng);
    *key = PyLong_AsUnsignedLongLong(rng);
    if (*key == (uint64_t)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        return attnc_complain_got(c->function, PyExc_ValueError, rule, rng);
    }
    return 0;
}

static int read_rng(attnc_call *c, PyObject *rng)
{
    if (c->in.dropout == 0)
        return 0; /* nothing is drawn, whatever it is */
    return attnc_read_key(c, rng, &c->in.dropout_key);
}

/* ---- the table ---- */

typedef enum { NONE, FALSE, ZERO, SOFTMAX } default_value;

/* In the order of the documentation, which attnc/functional/options.py takes from here. */
static const struct {
    const char *name;
    default_value value;
    int (*read)(attnc_call *c, PyObject *object); /* or NULL, before shapes are known */
    int (*fit)(attnc_call *c, PyObject *object);  /* or NULL, against the shapes */
} table[] = {
    {"mask", NONE, NULL, attnc_fit_mask},
    {"key_mask", NONE, NULL, attnc_fit_key_mask},
    {"key_lengths", NONE, NULL, attnc_fit_key_lengths},
    {"query_lengths", NONE, NULL, attnc_fit_query_lengths},
    {"bias", NONE, read_bias, attnc_fit_bias},
    {"causal", FALSE, read_causal, NULL},
    {"causal_offset", NONE, NULL, attnc_fit_causal_offset},
    {"window", NONE, read_window, NULL},
    {"center", NONE, read_center, attnc_fit_center},
    {"sigma", NONE, read_sigma, NULL},
    {"renormalize", FALSE, read_renormalize, NULL},
    {"query_offsets", NONE, read_offsets, attnc_fit_query_offsets},
    {"key_offsets", NONE, read_offsets, attnc_fit_key_offsets}, /* after query_offsets */
    {"softcap", NONE, read_softcap, NULL},
    {"slope", NONE, read_slope, attnc_fit_slope},
    {"sink", NONE, read_sink, attnc_fit_sink},
    {"normalizer", SOFTMAX, read_normalizer, NULL},
    {"dropout", ZERO, read_dropout, NULL},
    {"rng", NONE, read_rng, NULL}, /* after dropout */
    {"return_weights", FALSE, read_return_weights, NULL},
    {"return_lse", FALSE, read_return_lse, NULL},
};
_Static_assert(sizeof table / sizeof *table == ATTNC_OPTIONS, "options.h knows how many");

/* Names as Python interns them, so that one that is given is found by its address. */
static PyObject *names[ATTNC_OPTIONS];

int attnc_options_init(void)
{
    for (int k = 0; k < ATTNC_OPTIONS; k++)
        if (!names[k] && !(names[k] = PyUnicode_InternFromString(table[k].name)))
            return -1;
    return 0;
}

PyObject *attnc_option_defaults(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    PyObject *defaults = PyDict_New();
    for (int k = 0; defaults && k < ATTNC_OPTIONS; k++) {
        PyObject *value = table[k].value == NONE    ? Py_NewRef(Py_None)
                          : table[k].value == FALSE ? Py_NewRef(Py_False)
                          : table[k].value == ZERO  ? PyFloat_FromDouble(0)
                                                    : PyUnicode_FromString("softmax");
        if (!value || PyDict_SetItem(defaults, names[k], value) < 0)
            Py_CLEAR(defaults);
        Py_XDECREF(value);
    }
    return defaults;
}

int attnc_option_of(PyObject *name)
{
    for (int k = 0; k < ATTNC_OPTIONS; k++)
        if (name == names[k])
            return k;
    for (int k = 0; k < ATTNC_OPTIONS; k++) /* one that is not interned */
        if (PyUnicode_CompareWithASCIIString(name, table[k].name) == 0)
            return k;
    return -1;
}

int attnc_option_of_pairs(int k)
{
    static const char *const of_pairs[] = {
        "mask", "key_mask", "key_lengths", "query_lengths", "causal", "causal_offset", "window"};
    for (size_t p = 0; p < sizeof of_pairs / sizeof *of_pairs; p++)
        if (strcmp(table[k].name, of_pairs[p]) == 0)
            return 1;
    return 0;
}

/* Whether the object says more than the default None does. */
static int given(int k, PyObject *object)
{
    return object && !(object == Py_None && table[k].value == NONE);
}

PyObject *attnc_option_given(PyObject *const *options, const char *name)
{
    for (int k = 0; k < ATTNC_OPTIONS; k++)
        if (strcmp(table[k].name, name) == 0)
            return given(k, options[k]) ? options[k] : NULL;
    return NULL;
}

int attnc_read_options(attnc_call *c, PyObject *const *options)
{
    c->in.left = c->in.right = -1;
    if (!options)
        return 0;
    for (int k = 0; k < ATTNC_OPTIONS; k++)
        if (table[k].read && given(k, options[k]) && table[k].read(c, options[k]) < 0)
            return -1;
    return check_center(c) < 0 ? -1 : check_normalizer(c);
}

int attnc_fit_options(attnc_call *c, PyObject *const *options)
{
    c->in.length = c->in.Tk;
    c->in.query_length = c->in.Tq;
    c->in.causal_offset = c->in.Tk - c->in.Tq;
    if (!options)
        return 0;
    if (c->packed && attnc_check_packed(c, options) < 0)
        return -1;
    for (int k = 0; k < ATTNC_OPTIONS; k++)
        if (table[k].fit && given(k, options[k]) && table[k].fit(c, options[k]) < 0)
            return -1;
    return 0;
}
