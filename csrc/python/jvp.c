/* jvp: forward mode of the attention functions (run.h): reads the tangents, each against its
 * argument, and runs the engine.
 */
#include "run.h"

#include "arrays.h"
#include "../engine/work.h"

/* ---- reading ---- */

/* Options that have tangents: bias, slope, sink and center. The last three are read in double. */
enum { MOVING_OPTIONS = ATTNC_MOVING - ATTNC_OWN_MOST };

/* An argument that may have a tangent. */
typedef struct {
    const char *name;
    attnc_argument *argument;
    PyArrayObject *numbers; /* in double, of the shape that the engine reads; or NULL */
    attnc_operand *operand; /* NULL: the scale */
} moving;

static int moving_count(const attnc_function *f)
{
    return f->own_count + (f->scores_alone ? 0 : MOVING_OPTIONS);
}

static moving moving_at(attnc_call *c, const attnc_function *f, int k, attnc_tangents *t)
{
    const moving options[] = {{"bias", &c->bias, NULL, &t->bias},
                              {"slope", &c->slope, c->slopes, &t->slope},
                              {"sink", &c->sink, c->sinks, &t->sink},
                              {"center", &c->center, c->centers, &t->center}};
    if (k >= f->own_count)
        return options[k - f->own_count];
    const attnc_own *own = &f->own[k];
    attnc_argument *argument = attnc_argument_at(c, own->argument);
    return (moving){own->name, argument, NULL,
                    argument == &c->scale ? NULL : (void *)((char *)t + own->tangent)};
}

/* The array in double, contiguous, and with the axes of `like`. */
static int convert_numbers(PyArrayObject **array, PyArrayObject *like)
{
    PyArray_Dims axes = {PyArray_DIMS(like), PyArray_NDIM(like)};
    PyObject *numbers =
        PyArray_FROMANY((PyObject *)*array, NPY_DOUBLE, 0, 0,
                        NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST | NPY_ARRAY_ENSUREARRAY);
    PyObject *spread =
        numbers ? PyArray_Newshape((PyArrayObject *)numbers, &axes, NPY_CORDER) : NULL;
    Py_XDECREF(numbers);
    if (!spread)
        return -1;
    ATTNC_REPLACE(*array, (PyArrayObject *)spread);
    return 0;
}

/* Reads one tangent, whose array is kept in *held. */
static int read_tangent(attnc_call *c, const moving *m, PyObject *object, attnc_tangents *t,
                        PyArrayObject **held)
{
    PyArrayObject *array = m->argument->array;
    if (object == Py_None)
        return 0;
    if (!array)
        return attnc_fail(c, PyExc_ValueError,
                          "tangent of %s must be None unless %s is passed as a real array, got one",
                          m->name, m->name);
    PyObject *text = PyUnicode_FromFormat("tangent of %s", m->name);
    const char *name = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    const int halves = m->argument == &c->query || m->argument == &c->key ||
                       m->argument == &c->value || m->argument == &c->scores ||
                       m->argument == &c->bias;
    const int status = name ? attnc_read_gradient(c, object, name, m->name, PyArray_NDIM(array),
                                                  PyArray_DIMS(array), halves, held)
                            : -1;
    Py_XDECREF(text);
    if (status < 0 || (m->numbers && convert_numbers(held, m->numbers) < 0))
        return -1;
    if (m->operand)
        return attnc_operand_of(c, *held, m->operand);
    t->scale = c->in.f32 ? *(float *)PyArray_DATA(*held) : *(double *)PyArray_DATA(*held);
    return 0;
}

/* Which argument has that name, or -1 with an error. */
static int find_moving(attnc_call *c, const attnc_function *f, PyObject *name)
{
    attnc_tangents unused;
    for (int k = 0; PyUnicode_Check(name) && k < moving_count(f); k++) {
        const moving m = moving_at(c, f, k, &unused);
        if (m.argument != &c->none && PyUnicode_CompareWithASCIIString(name, m.name) == 0)
            return k;
    }
    return attnc_fail(c, PyExc_TypeError,
                      "tangents must be named as the real arrays that the function takes, got %R",
                      name);
}

int attnc_read_tangents(attnc_call *c, const attnc_function *f, PyObject *tangents,
                        attnc_tangents *t, PyArrayObject **held)
{
    PyObject *name, *object;
    Py_ssize_t place = 0;
    int status = 0;
    if (!PyDict_Check(tangents))
        return attnc_complain_got(c->function, PyExc_TypeError,
                                  "tangents must be a dict of arrays by the name of their argument",
                                  tangents);
    /* A copy: to make an array of an object may run Python, which may change the dict. */
    PyObject *own = PyDict_Copy(tangents);
    if (!own)
        return -1;
    while (status == 0 && PyDict_Next(own, &place, &name, &object)) {
        const int k = find_moving(c, f, name);
        const moving m = moving_at(c, f, k < 0 ? 0 : k, t);
        status = k < 0 ? -1 : read_tangent(c, &m, object, t, &held[k]);
    }
    Py_DECREF(own);
    return status;
}

/* ---- running ---- */

static int run_jvp(const attnc_call *c, const attnc_tangents *tangents, const attnc_outputs *out,
                   const attnc_output_tangents *moved)
{
    int status;
    if (ATTNC_TANGENT_PASSES * attnc_attention_work(&c->in, 0) < ATTNC_GIL_MIN_WORK)
        status = attnc_attention_jvp(&c->in, tangents, out, moved, NULL);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_attention_jvp(&c->in, tangents, out, moved, NULL);
        Py_END_ALLOW_THREADS
    }
    if (status < 0)
        PyErr_NoMemory();
    return status;
}

/* (output, tangent); takes both references. */
static PyObject *pair(PyObject *output, PyObject *tangent)
{
    PyObject *result = output && tangent ? PyTuple_Pack(2, output, tangent) : NULL;
    Py_XDECREF(output);
    Py_XDECREF(tangent);
    return result;
}

static PyObject *attention_jvp(attnc_call *c, const attnc_function *f,
                               const attnc_tangents *tangents)
{
    const attnc_own_results *own = attnc_results_of(f);
    attnc_outputs out = {0};
    attnc_output_tangents moved = {0};
    if (own->make(c, 0, &out) < 0 || own->make_tangents(c, &moved) < 0 ||
        run_jvp(c, tangents, &out, &moved) < 0)
        return NULL;
    PyObject *output = own->result(c);
    return pair(output, output ? own->tangent_result(c) : NULL);
}

static PyObject *scores_jvp(attnc_call *c, const attnc_function *f, const attnc_tangents *tangents)
{
    const int type = attnc_output_type(c);
    attnc_outputs out = {.scores.stored = attnc_stored_as(type)};
    attnc_output_tangents moved = {.scores.stored = attnc_stored_as(type)};
    PyObject *output = NULL, *tangent = NULL;
    (void)f;
    PyArrayObject *scores = attnc_new_rows(c, c->in.Tk, type, &out.scores.data);
    PyArrayObject *moving = scores ? attnc_new_rows(c, c->in.Tk, type, &moved.scores.data) : NULL;
    if (moving && run_jvp(c, tangents, &out, &moved) == 0 &&
        (output = attnc_in_output_dtype(c, scores)) != NULL)
        tangent = attnc_in_output_dtype(c, moving);
    Py_XDECREF((PyObject *)scores);
    Py_XDECREF((PyObject *)moving);
    return pair(output, tangent);
}

static PyObject *
jvp(const attnc_function *f, PyObject *const *args, Py_ssize_t count, PyObject *names,
    PyObject *(*of_call)(attnc_call *, const attnc_function *, const attnc_tangents *))
{
    _Alignas(64) char first[ATTNC_CALL_BYTES];
    attnc_call c;
    attnc_tangents tangents = {0};
    PyArrayObject *held[ATTNC_MOVING] = {NULL};
    PyObject *result = NULL;
    attnc_call_begin(&c, f, first);
    if (count < 1)
        attnc_fail(&c, PyExc_TypeError, "jvp takes a dict of tangents first");
    else if (attnc_read_whole_call(&c, f, args + 1, count - 1, names) == 0 &&
             attnc_read_tangents(&c, f, args[0], &tangents, held) == 0)
        result = of_call(&c, f, &tangents);
    for (int k = 0; k < ATTNC_MOVING; k++)
        Py_XDECREF((PyObject *)held[k]);
    attnc_call_clear(&c);
    return result;
}

PyObject *attnc_jvp(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                    PyObject *names)
{
    return jvp(f, args, count, names, attention_jvp);
}

PyObject *attnc_scores_jvp(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                           PyObject *names)
{
    return jvp(f, args, count, names, scores_jvp);
}
