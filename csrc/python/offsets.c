/* offsets: the options that make a packed batch of a call: where its sequences begin and end in the
 * axes of time. All is checked here, on copies, before anything is counted from them. */
#include "options.h"

#include "../engine/values.h"

/* What has no meaning in a packed batch, and what to do instead. */
static const struct {
    const char *name, *instead;
} REFUSED[] = {
    {"mask", "key_mask= says which keys of all sequences may be attended to"},
    {"key_lengths", "the offsets say where each sequence ends"},
    {"query_lengths", "the offsets say where each sequence ends"},
    {"bias", "a padded batch takes one"},
};
enum { REFUSED_COUNT = sizeof REFUSED / sizeof *REFUSED };

int attnc_check_packed(attnc_call *c, PyObject *const *options)
{
    PyObject *query_offsets = attnc_option_given(options, "query_offsets");
    PyObject *key_offsets = attnc_option_given(options, "key_offsets");
    if (!query_offsets)
        return attnc_fail(c, PyExc_ValueError,
                          "query_offsets must be given with key_offsets, got None; a packed batch "
                          "has sequences of queries too");
    if (c->in.mechanism == &attnc_given_scores)
        return attnc_fail(c, PyExc_ValueError,
                          "query_offsets must be None, for scores (..., Tq, Tk) are those of one "
                          "sequence; call it on each of them");
    for (int k = 0; k < REFUSED_COUNT; k++)
        if (attnc_option_given(options, REFUSED[k].name))
            return attnc_fail(c, PyExc_ValueError,
                              "%s must be None with query_offsets, got one; %s", REFUSED[k].name,
                              REFUSED[k].instead);
    PyObject *causal_offset = attnc_option_given(options, "causal_offset");
    if (causal_offset && !attnc_is_integer(causal_offset))
        return attnc_complain_got(c->function, PyExc_ValueError,
                                  "causal_offset must be None or one integer with query_offsets, "
                                  "counted from the first query and key of each sequence",
                                  causal_offset);
    c->in.from_start = causal_offset != NULL;
    if (!key_offsets && c->in.Tk != c->in.Tq)
        return attnc_fail(
            c, PyExc_ValueError,
            "key_offsets must be given where there are not as many keys as queries, %zd, "
            "got None and %zd keys",
            (Py_ssize_t)c->in.Tq, (Py_ssize_t)c->in.Tk);
    if (c->return_weights)
        return attnc_fail(c, PyExc_ValueError,
                          "return_weights must be False with query_offsets, for every sequence has "
                          "weights of a shape of its own; call it on each of them");
    return 0;
}

/* The offsets of sequences along an axis of T rows of `what`: a copy in *kept. */
static int fit_offsets(attnc_call *c, const char *name, PyObject *object, ptrdiff_t T,
                       const char *what, PyArrayObject **kept)
{
    static const char rule[] = "a 1-D array of integers, 0 = o_0 <= ... <= o_B = T";
    char said[ATTNC_SAID];
    PyArrayObject *array = *kept = attnc_as_array(c->function, name, object, 1);
    if (!array)
        return -1;
    if (!PyTypeNum_ISINTEGER(PyArray_TYPE(array)) && !attnc_is_empty_list(array, object))
        return attnc_fail(c, PyExc_TypeError, "%s must be %s, got dtype %S", name, rule,
                          PyArray_DESCR(array));
    if (PyArray_NDIM(array) != 1 || PyArray_SIZE(array) == 0) {
        PyObject *shape = attnc_tuple_of(PyArray_DIMS(array), PyArray_NDIM(array));
        if (shape)
            attnc_fail(c, PyExc_ValueError, "%s must be %s, got shape %R", name, rule, shape);
        Py_XDECREF(shape);
        return -1;
    }
    if (attnc_copy_integers(kept) < 0)
        return -1;
    const int64_t *offsets = PyArray_DATA(*kept);
    if (attnc_check_offsets(name, offsets, PyArray_SIZE(*kept), T, what, said) == 0)
        return 0;
    return attnc_fail(c, PyExc_ValueError, "%s", said);
}

int attnc_fit_query_offsets(attnc_call *c, PyObject *query_offsets)
{
    if (fit_offsets(c, "query_offsets", query_offsets, c->in.Tq, "queries", &c->query_offsets) < 0)
        return -1;
    c->in.query_offsets = c->in.key_offsets = PyArray_DATA(c->query_offsets);
    c->in.sequences = PyArray_SIZE(c->query_offsets) - 1;
    return 0;
}

/* After query_offsets, which serve where none are given for the keys. */
int attnc_fit_key_offsets(attnc_call *c, PyObject *key_offsets)
{
    if (fit_offsets(c, "key_offsets", key_offsets, c->in.Tk, "keys", &c->key_offsets) < 0)
        return -1;
    if (PyArray_SIZE(c->key_offsets) - 1 != c->in.sequences)
        return attnc_fail(
            c, PyExc_ValueError, "key_offsets must be as many as query_offsets, %zd, got %zd",
            (Py_ssize_t)(c->in.sequences + 1), (Py_ssize_t)PyArray_SIZE(c->key_offsets));
    c->in.key_offsets = PyArray_DATA(c->key_offsets);
    return 0;
}
