/* op_loop: a loop over time as Python calls it: the list of operations, read into what
 * engine/loop.h runs; and what a loop needs made in advance, weights in panels and the transforms
 * of additive keys.
 *
 * attnc/functional checks what users pass and makes the arrays, so these texts are for whoever
 * writes operations. But no call, however wrong, reads or writes beside an array. */
#include "ops.h"

#include "arrays.h"
#include "../engine/dispatch.h"
#include "../engine/loop.h"
#include "../engine/pool.h"
#include "../engine/scratch.h"
#include "../engine/work.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What all real arrays of one call are of: NPY_FLOAT or NPY_DOUBLE. */
typedef struct {
    int type;
    const attnc_kernels *kernels;
    size_t item; /* bytes of an element */
} real_type;

/* That of an array; -1 with an error. */
static int real_type_of(const char *where, PyObject *array, real_type *e)
{
    e->type = PyArray_Check(array) ? PyArray_TYPE((PyArrayObject *)array) : NPY_NOTYPE;
    if (e->type != NPY_FLOAT && e->type != NPY_DOUBLE) {
        PyErr_Format(PyExc_TypeError, "%s must be an array of float32 or float64, got %S", where,
                     (PyObject *)Py_TYPE(array));
        return -1;
    }
    e->kernels = attnc_kernels_for(e->type == NPY_FLOAT);
    e->item = e->type == NPY_FLOAT ? sizeof(float) : sizeof(double);
    return 0;
}

/* No weight has more rows or columns than MOST_UNITS, no loop more rows than MOST_ROWS: so products
 * of sizes do not overflow. */
static const ptrdiff_t MOST_UNITS = 1 << 24, MOST_ROWS = PTRDIFF_MAX >> 29;

/* Products read whole cache lines of panels. */
static void *aligned(void *data) { return (void *)(((uintptr_t)data + 63) / 64 * 64); }
static ptrdiff_t panels_elements(const real_type *e, const attnc_panels *p)
{
    return e->kernels->panels_size(p) + (ptrdiff_t)(64 / e->item);
}

/* panels(matrix, gates): a new array, the matrix (K, gates * N) as products read it. */
PyObject *attnc_pack_panels(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    real_type e;
    attnc_panels p = {0};
    if (attnc_check_count("panels", count, 2) < 0 ||
        real_type_of("panels: matrix", args[0], &e) < 0)
        return NULL;
    PyArrayObject *matrix = (PyArrayObject *)args[0];
    p.gates = PyLong_AsSsize_t(args[1]);
    if (p.gates == -1 && PyErr_Occurred())
        return NULL;
    int whole = 1;
    if (PyArray_NDIM(matrix) == 2 && PyArray_ISBEHAVED_RO(matrix) && p.gates >= 1) {
        p.x = PyArray_DATA(matrix);
        p.row = attnc_stride(matrix, 0, &whole);
        p.col = attnc_stride(matrix, 1, &whole);
        p.K = PyArray_DIM(matrix, 0);
        p.N = PyArray_DIM(matrix, 1) / p.gates;
    }
    if (!p.x || p.N * p.gates != PyArray_DIM(matrix, 1) || (p.row != 1 && p.col != 1) || !whole)
        return PyErr_Format(PyExc_ValueError,
                            "panels: matrix must have two axes, one of them contiguous, and a "
                            "multiple of %zd columns",
                            p.gates);
    const npy_intp shape[] = {panels_elements(&e, &p)};
    PyArrayObject *out = attnc_new_array(1, shape, e.type, 0);
    if (!out)
        return NULL;
    p.out = aligned(PyArray_DATA(out));
    const ptrdiff_t tasks = attnc_divide_up(p.N, e.kernels->panel);
    const int threads = attnc_threads_for(tasks, attnc_panels_work(&p));
    Py_BEGIN_ALLOW_THREADS
    attnc_parallel_for(e.kernels->pack_panels, &p, tasks, threads, NULL, 0);
    Py_END_ALLOW_THREADS
    return (PyObject *)out;
}

/* Elements of a transformed row of a key. */
static ptrdiff_t padded(const real_type *e, ptrdiff_t D)
{
    return attnc_divide_up(D, e->kernels->lanes) * e->kernels->lanes;
}

/* transform_keys(key): what a loop's additive attention reads of a key (B, Tk, D): a tuple of
 * arrays. */
PyObject *attnc_transform_keys(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    real_type e;
    if (attnc_check_count("transform_keys", count, 1) < 0 ||
        real_type_of("transform_keys: key", args[0], &e) < 0)
        return NULL;
    PyArrayObject *key = (PyArrayObject *)args[0];
    if (PyArray_NDIM(key) != 3 || !PyArray_ISCARRAY_RO(key))
        return PyErr_Format(PyExc_ValueError,
                            "transform_keys: key must be C-contiguous with three axes");
    const npy_intp B = PyArray_DIM(key, 0), Tk = PyArray_DIM(key, 1), D = PyArray_DIM(key, 2);
    const npy_intp shape[] = {B, Tk, padded(&e, D)};
    PyArrayObject *small = attnc_new_array(3, shape, e.type, 0);
    PyArrayObject *large = attnc_new_array(3, shape, e.type, 0);
    PyArrayObject *top = attnc_new_array(1, shape, e.type, 0);
    PyObject *transforms = small && large && top ? PyTuple_Pack(3, small, large, top) : NULL;
    if (transforms) {
        attnc_key_transforms f = {.key = PyArray_DATA(key),
                                  .small = PyArray_DATA(small),
                                  .large = PyArray_DATA(large),
                                  .top = PyArray_DATA(top),
                                  .count = B,
                                  .Tk = Tk,
                                  .D = D};
        const int threads = attnc_threads_for(B, attnc_key_transforms_work(&f));
        Py_BEGIN_ALLOW_THREADS
        attnc_parallel_for(e.kernels->transform_keys, &f, B, threads, NULL, 0);
        Py_END_ALLOW_THREADS
    }
    Py_XDECREF((PyObject *)small);
    Py_XDECREF((PyObject *)large);
    Py_XDECREF((PyObject *)top);
    return transforms;
}

/* ---- the fields of an operation ---- */

/* Where reading a call of loop() has got to. Fields are read in their order; the first that does
 * not fit sets an error, and those after it are not read any more. */
typedef struct {
    real_type e;
    ptrdiff_t T, B, rows; /* steps, batch, rows of all steps */
    PyObject *operation;  /* which is read now: */
    Py_ssize_t index;     /* its place in the list */
    const char *name;     /* of its type */
    Py_ssize_t next;      /* the field to be read next */
    Py_ssize_t part;      /* which item of a field that is a tuple; -1: the field itself */
    int failed;
} reader;

/* What was given, for an error: a new string. */
static PyObject *description(PyObject *got)
{
    PyArrayObject *array = (PyArrayObject *)got;
    if (got == Py_None || PyLong_Check(got) || PyFloat_Check(got) || PyUnicode_Check(got))
        return PyObject_Repr(got);
    if (!PyArray_Check(got))
        return PyObject_Str((PyObject *)Py_TYPE(got));
    PyObject *shape = PyObject_GetAttrString(got, "shape"), *text = NULL;
    if (shape)
        text = PyUnicode_FromFormat("%S %S%s%s", (PyObject *)PyArray_DESCR(array), shape,
                                    PyArray_ISWRITEABLE(array) ? "" : ", read-only",
                                    PyArray_ISCARRAY_RO(array) ? "" : ", not C-contiguous");
    Py_XDECREF(shape);
    return text;
}

/* The name of the field that was read last, and of the part of it: a new string. */
static PyObject *field_name(const reader *r)
{
    PyObject *fields = PyObject_GetAttrString((PyObject *)Py_TYPE(r->operation), "_fields");
    PyObject *field = fields ? PySequence_GetItem(fields, r->next - 1) : NULL, *name = NULL;
    if (field)
        name = r->part < 0 ? PyObject_Str(field) : PyUnicode_FromFormat("%S[%zd]", field, r->part);
    Py_XDECREF(fields);
    Py_XDECREF(field);
    return name;
}

/* "loop: operation 2 (Attend): key must ..., got ...", for the first that does not fit. Returns
 * NULL. */
static void *refuse(reader *r, PyObject *got, PyObject *exception, const char *format, ...)
{
    if (r->failed)
        return NULL;
    r->failed = 1;
    va_list arguments;
    va_start(arguments, format);
    PyObject *rule = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    PyObject *name = field_name(r), *text = description(got);
    if (rule && name && text)
        PyErr_Format(exception, "loop: operation %zd (%s): %U must %U, got %U", r->index, r->name,
                     name, rule, text);
    Py_XDECREF(rule);
    Py_XDECREF(name);
    Py_XDECREF(text);
    return NULL;
}

static PyObject *next_field(reader *r)
{
    r->part = -1;
    if (!r->failed && r->next < PyTuple_Size(r->operation))
        return PyTuple_GetItem(r->operation, r->next++);
    if (!r->failed)
        PyErr_Format(PyExc_TypeError, "loop: operation %zd (%s) must have more than %zd fields",
                     r->index, r->name, r->next);
    r->failed = 1;
    return Py_None;
}

static double next_number(reader *r)
{
    PyObject *field = next_field(r);
    if (PyFloat_Check(field))
        return PyFloat_AsDouble(field);
    refuse(r, field, PyExc_TypeError, "be a float");
    return 0;
}

static int next_flag(reader *r)
{
    PyObject *field = next_field(r);
    if (!PyBool_Check(field))
        refuse(r, field, PyExc_TypeError, "be True or False");
    return field == Py_True;
}

/* The index of the name that the field is; `list` is the names for an error. */
static int next_choice(reader *r, const char *const *names, int count, const char *list)
{
    PyObject *field = next_field(r);
    for (int k = 0; PyUnicode_Check(field) && k < count; k++)
        if (PyUnicode_CompareWithASCIIString(field, names[k]) == 0)
            return k;
    refuse(r, field, PyExc_ValueError, "be one of %s", list);
    return 0;
}

/* A tuple of `most` items or fewer; *count is how many. */
static PyObject *next_tuple(reader *r, Py_ssize_t most, int *count)
{
    PyObject *field = next_field(r);
    *count = 0;
    if (PyTuple_Check(field) && PyTuple_Size(field) <= most)
        *count = (int)PyTuple_Size(field);
    else
        refuse(r, field, PyExc_TypeError, "be a tuple of up to %zd items", most);
    return field;
}

/* How an array may be: it is written to; it may be None; it may have fewer than all steps. */
enum { READ = 0, WRITTEN = 1, OPTIONAL = 2, SHORTER = 4 };

/* Whether the item is an array of that type. Where it is not, or is None and may be, none of its
 * other checks is made. */
static int is_array(reader *r, PyObject *item, int type, int how)
{
    if (r->failed || (item == Py_None && how & OPTIONAL))
        return 0;
    if (PyArray_Check(item) && PyArray_TYPE((PyArrayObject *)item) == type)
        return 1;
    refuse(r, item, PyExc_TypeError, "be an array of %s%s",
           type == NPY_FLOAT    ? "float32"
           : type == NPY_DOUBLE ? "float64"
           : type == NPY_BOOL   ? "bool"
                                : "intp",
           how & OPTIONAL ? ", or None" : "");
    return 0;
}

/* The data of a C-contiguous array of rows times columns elements; NULL for None. */
static void *data_of(reader *r, PyObject *item, int type, ptrdiff_t rows, ptrdiff_t columns,
                     int how)
{
    PyArrayObject *array = (PyArrayObject *)item;
    npy_intp size;
    if (!is_array(r, item, type, how))
        return NULL;
    if (PyArray_ISCARRAY_RO(array) && !__builtin_mul_overflow(rows, columns, &size) &&
        PyArray_SIZE(array) == size && (!(how & WRITTEN) || PyArray_ISWRITEABLE(array)))
        return PyArray_DATA(array);
    return refuse(r, item, PyExc_ValueError, "be C-contiguous%s with %zd rows of %zd",
                  how & WRITTEN ? ", writeable," : "", rows, columns);
}

static void *next_array(reader *r, ptrdiff_t rows, ptrdiff_t columns, int how)
{
    return data_of(r, next_field(r), r->e.type, rows, columns, how);
}

/* A size for an error, -1 as "any". */
enum { SIZE_TEXT = 24 };
static void write_size(char *text, ptrdiff_t size)
{
    if (size < 0)
        strcpy(text, "any");
    else
        snprintf(text, SIZE_TEXT, "%td", size);
}

/* An array (n0, n1, features), the last axis contiguous. *n1 and *features may be -1: they become
 * what the array has. */
static attnc_rows rows_of(reader *r, PyObject *item, ptrdiff_t n0, ptrdiff_t *n1,
                          ptrdiff_t *features, int how)
{
    PyArrayObject *array = (PyArrayObject *)item;
    if (!is_array(r, item, r->e.type, how))
        return (attnc_rows){0};
    if (PyArray_NDIM(array) == 3 && PyArray_ISBEHAVED_RO(array) &&
        (!(how & WRITTEN) || PyArray_ISWRITEABLE(array)) &&
        (how & SHORTER ? PyArray_DIM(array, 0) <= n0 : PyArray_DIM(array, 0) == n0) &&
        (*n1 < 0 || PyArray_DIM(array, 1) == *n1) &&
        (*features < 0 || PyArray_DIM(array, 2) == *features)) {
        int whole = 1;
        const attnc_rows x = {.data = PyArray_DATA(array),
                              .size = PyArray_DIM(array, 0),
                              .stride = attnc_stride(array, 0, &whole),
                              .row_stride = attnc_stride(array, 1, &whole)};
        if (attnc_stride(array, 2, &whole) == 1 && whole) {
            *n1 = PyArray_DIM(array, 1);
            *features = PyArray_DIM(array, 2);
            return x;
        }
    }
    char sizes[2][SIZE_TEXT];
    write_size(sizes[0], *n1);
    write_size(sizes[1], *features);
    refuse(r, item, PyExc_ValueError, "have shape (%s%zd, %s, %s) and a contiguous last axis%s",
           how & SHORTER ? "up to " : "", n0, sizes[0], sizes[1],
           how & WRITTEN ? ", and be writeable" : "");
    return (attnc_rows){0};
}

/* An array over the steps, (T, B, features). */
static attnc_rows next_steps(reader *r, ptrdiff_t *features, int how)
{
    return rows_of(r, next_field(r), r->T, &r->B, features, how);
}

/* An array that attention reads, (B, *n, features). */
static attnc_rows next_sequences(reader *r, ptrdiff_t *n, ptrdiff_t *features, int how)
{
    return rows_of(r, next_field(r), r->B, n, features, how);
}

/* Panels of a matrix (K, gates * N). */
static const void *panels_of(reader *r, PyObject *item, ptrdiff_t K, ptrdiff_t N, ptrdiff_t gates)
{
    const attnc_panels p = {.K = K, .N = N, .gates = gates};
    if (r->failed)
        return NULL;
    if (K > MOST_UNITS || N > MOST_UNITS)
        return refuse(r, item, PyExc_ValueError, "be panels of a matrix of up to %zd rows, columns",
                      MOST_UNITS);
    void *data = data_of(r, item, r->e.type, 1, panels_elements(&r->e, &p), READ);
    return data ? aligned(data) : NULL;
}

/* A tuple of pairs: an array over the steps, (T or fewer, B, K), and panels of (K, gates * N). */
static void next_terms(reader *r, int most, ptrdiff_t N, ptrdiff_t gates, attnc_loop_term *term,
                       int *terms)
{
    PyObject *field = next_tuple(r, most, terms);
    for (int k = 0; k < *terms && !r->failed; k++) {
        PyObject *pair = PyTuple_GetItem(field, k);
        r->part = k;
        if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
            refuse(r, pair, PyExc_TypeError, "be a pair of an array and panels");
            return;
        }
        term[k].K = -1;
        term[k].x = rows_of(r, PyTuple_GetItem(pair, 0), r->T, &r->B, &term[k].K, SHORTER);
        term[k].panels = panels_of(r, PyTuple_GetItem(pair, 1), term[k].K, N, gates);
    }
}

/* ---- operations, in the order of operations.py ---- */

static void read_linear(reader *r, attnc_operation *operation)
{
    attnc_loop_linear *o = &operation->linear;
    o->N = -1;
    PyObject *out = next_field(r);
    o->out = rows_of(r, out, r->T, &r->B, &o->N, WRITTEN);
    if (o->N == 0) /* of no elements there could be steps without end */
        refuse(r, out, PyExc_ValueError, "have at least one column");
    next_terms(r, ATTNC_MAX_TERMS, o->N, 1, o->term, &o->terms);
    o->add = next_steps(r, &o->N, OPTIONAL | SHORTER);
    o->tanh = next_flag(r);
    o->tanh_of = next_steps(r, &o->N, OPTIONAL);
}

/* cell, h, c, gates, saved */
static void read_states(reader *r, attnc_recurrence *s, int how)
{
    static const char *const names[] = {"rnn", "gru", "lstm"};
    static const int gates[] = {1, 3, 4};
    const int k = next_choice(r, names, 3, "'rnn', 'gru', 'lstm'");
    s->kind = (attnc_cell)k;
    s->gate_count = gates[k];
    s->batch = r->B;
    PyObject *h = next_field(r);
    if (is_array(r, h, r->e.type, READ)) {
        const int axes = PyArray_NDIM((PyArrayObject *)h);
        s->H = axes > 0 ? PyArray_DIM((PyArrayObject *)h, axes - 1) : 0;
        if (s->H < 1 || s->H > MOST_UNITS)
            refuse(r, h, PyExc_ValueError, "have a last axis of 1..%zd units", MOST_UNITS);
    }
    s->h = data_of(r, h, r->e.type, r->B + r->rows, s->H, how);
    s->c = next_array(r, r->B + r->rows, s->H, how | (s->kind == ATTNC_LSTM ? READ : OPTIONAL));
    s->gates = next_array(r, r->rows, s->gate_count * s->H, how);
    s->saved = next_array(r, r->rows, s->H, how | (s->kind == ATTNC_RNN ? OPTIONAL : READ));
}

/* outputs or doutputs (places, H), or None, and places: which of its rows each row of the loop has.
 * Sets *row to how far rows are apart. */
static void *next_places(reader *r, attnc_recurrence *s, ptrdiff_t *row, int how)
{
    PyObject *outputs = next_field(r);
    void *data = NULL;
    npy_intp count = PTRDIFF_MAX;
    if (is_array(r, outputs, r->e.type, how | OPTIONAL)) {
        PyArrayObject *array = (PyArrayObject *)outputs;
        int whole = 1;
        if (PyArray_NDIM(array) == 2 && PyArray_DIM(array, 1) == s->H &&
            PyArray_ISBEHAVED_RO(array) && (!(how & WRITTEN) || PyArray_ISWRITEABLE(array))) {
            count = PyArray_DIM(array, 0);
            *row = attnc_stride(array, 0, &whole);
            if (attnc_stride(array, 1, &whole) == 1 && whole)
                data = PyArray_DATA(array);
        }
        if (!data)
            refuse(r, outputs, PyExc_ValueError, "have rows of %zd, contiguous%s", s->H,
                   how & WRITTEN ? " and writeable" : "");
    }
    PyObject *places = next_field(r);
    s->place = data_of(r, places, NPY_INTP, r->rows, 1, data ? READ : OPTIONAL);
    for (ptrdiff_t k = 0; s->place && k < r->rows; k++)
        if (s->place[k] < 0 || s->place[k] >= count)
            return refuse(r, places, PyExc_ValueError, "lie in 0..%zd, and not be %zd", count - 1,
                          s->place[k]);
    return data;
}

/* Whether the cell stands beside the one before it in the list, which it must match then. */
static int next_beside(reader *r, const attnc_operation *o)
{
    const int beside = next_flag(r);
    const attnc_operation *before = r->index > 0 ? o - 1 : NULL;
    if (beside && (!before || before->type != o->type || before->cell.beside ||
                   before->cell.recurrence.kind != o->cell.recurrence.kind ||
                   before->cell.recurrence.H != o->cell.recurrence.H))
        refuse(r, Py_True, PyExc_ValueError,
               "be False unless the operation before is a cell like this one, and beside none");
    return beside;
}

static void read_cell(reader *r, attnc_operation *operation)
{
    attnc_loop_cell *o = &operation->cell;
    attnc_recurrence *s = &o->recurrence;
    read_states(r, s, WRITTEN);
    o->panels = panels_of(r, next_field(r), s->H, s->H, s->gate_count);
    s->input_bias = next_array(r, 1, s->gate_count * s->H, READ);
    s->state_bias = next_array(r, 1, s->gate_count * s->H, READ);
    next_terms(r, ATTNC_MAX_TERMS - 1, s->H, s->gate_count, o->term, &o->terms);
    s->gates_hold_input = next_flag(r);
    s->outputs = next_places(r, s, &s->outputs_row, WRITTEN);
    o->beside = next_beside(r, operation);
}

static void read_cell_back(reader *r, attnc_operation *operation)
{
    attnc_loop_cell *o = &operation->cell;
    attnc_recurrence *s = &o->recurrence;
    read_states(r, s, READ);
    const ptrdiff_t width = s->gate_count * s->H, parts = attnc_divide_up(r->B, ATTNC_BIAS_ROWS);
    o->panels = panels_of(r, next_field(r), width, s->H, 1);
    s->dinput = next_array(r, r->rows, width, WRITTEN);
    s->dproduct = next_array(r, r->rows, width, WRITTEN);
    s->dh = next_array(r, r->B, s->H, WRITTEN);
    s->dc = next_array(r, r->B, s->H, WRITTEN | (s->kind == ATTNC_LSTM ? READ : OPTIONAL));
    s->dinput_bias = next_array(r, parts, width, WRITTEN);
    s->dstate_bias =
        next_array(r, parts, width, WRITTEN | (s->kind == ATTNC_GRU ? READ : OPTIONAL));
    next_terms(r, ATTNC_MAX_TERMS - 1, s->H, 1, o->term, &o->terms);
    PyObject *adds = next_tuple(r, 2, &o->adds);
    for (int k = 0; k < o->adds; k++) {
        r->part = k;
        o->add[k] = rows_of(r, PyTuple_GetItem(adds, k), r->T, &r->B, &s->H, SHORTER);
    }
    s->doutputs = next_places(r, s, &s->doutputs_row, READ);
    o->beside = next_beside(r, operation);
}

/* What transform_keys made of a key (B, Tk, D) where `wanted`, else None. */
static void next_transforms(reader *r, const char *score, int wanted, ptrdiff_t Tk, ptrdiff_t D,
                            attnc_key_transforms *transforms)
{
    PyObject *field = next_field(r);
    if (!wanted && field != Py_None)
        refuse(r, field, PyExc_TypeError, "be None for the score '%s'", score);
    if (!wanted)
        return;
    if (!PyTuple_Check(field) || PyTuple_Size(field) != 3)
        refuse(r, field, PyExc_TypeError, "be what transform_keys returned");
    void *arrays[3] = {NULL};
    const ptrdiff_t columns[] = {Tk * padded(&r->e, D), Tk * padded(&r->e, D), 1};
    for (int k = 0; k < 3 && !r->failed; k++) {
        r->part = k;
        arrays[k] = data_of(r, PyTuple_GetItem(field, k), r->e.type, r->B, columns[k], READ);
    }
    *transforms = (attnc_key_transforms){
        .small = arrays[0], .large = arrays[1], .top = arrays[2], .count = r->B, .Tk = Tk, .D = D};
}

/* score, query, key, value, score_vector, coverage_vector, key_transforms, scale, weights,
 * coverage_weight, coverage_rate, width, sigma, renormalize, center, last, position,
 * position_vector */
static void read_attention(reader *r, attnc_loop_attend *o, int how)
{
    enum { DOT, ADDITIVE, COVERED };
    static const char *const names[] = {"dot", "additive", "covered"};
    const int k = next_choice(r, names, 3, "'dot', 'additive', 'covered'");
    const int additive = k != DOT, transformed = k == ADDITIVE;
    o->score = additive ? ATTNC_ADDITIVE : ATTNC_DOT;
    ptrdiff_t T = r->T;
    o->Tk = o->D = o->Dv = -1;
    o->query = next_sequences(r, &T, &o->D, READ);
    o->key = next_sequences(r, &o->Tk, &o->D, READ);
    if (!r->failed && (o->Tk > MOST_ROWS || o->D > MOST_UNITS)) /* of no elements */
        refuse(r, PyTuple_GetItem(r->operation, r->next - 1), PyExc_ValueError,
               "have up to %zd rows of up to %zd", MOST_ROWS, MOST_UNITS);
    o->value = next_sequences(r, &o->Tk, &o->Dv, READ);
    o->score_vector = next_array(r, 1, o->D, additive ? READ : OPTIONAL);
    PyObject *vector = next_field(r);
    if (k == COVERED)
        o->coverage_vector = data_of(r, vector, r->e.type, 1, o->D, READ);
    else if (vector != Py_None)
        refuse(r, vector, PyExc_TypeError, "be None for the score '%s'", names[k]);
    next_transforms(r, names[k], transformed, o->Tk, o->D, &o->transforms);
    o->scale = next_number(r);
    o->weights = next_array(r, r->B * r->T, o->Tk, how);
    o->coverage_weight = next_number(r);
    o->coverage_rate = next_array(r, r->B, o->Tk, OPTIONAL);
    PyObject *item = next_field(r);
    const int local = item != Py_None;
    if (local && !attnc_is_integer(item))
        refuse(r, item, PyExc_TypeError, "be an integer or None");
    else if (local && !r->failed && attnc_read_index(item, &o->width) < 0)
        r->failed = 1;
    else if (local && o->width < 1)
        refuse(r, item, PyExc_ValueError, "be at least 1");
    o->sigma = next_number(r);
    if (!r->failed && !(o->sigma > 0))
        refuse(r, PyTuple_GetItem(r->operation, r->next - 1), PyExc_ValueError, "be above 0");
    o->renormalize = next_flag(r);
    o->center =
        data_of(r, next_field(r), NPY_DOUBLE, r->B, r->T, WRITTEN | (local ? READ : OPTIONAL));
    PyObject *last = next_field(r);
    o->last = data_of(r, last, NPY_DOUBLE, r->B, 1, OPTIONAL);
    if (o->last && !local)
        refuse(r, last, PyExc_TypeError, "be None without a width");
    const int predicted = o->last ? READ : OPTIONAL;
    o->P = -1;
    o->position = next_sequences(r, &T, &o->P, predicted);
    if (o->position.data && !o->last)
        refuse(r, PyTuple_GetItem(r->operation, r->next - 1), PyExc_TypeError,
               "be None without last");
    o->position_vector = next_array(r, 1, o->P < 0 ? 0 : o->P, predicted);
}

static void read_attend(reader *r, attnc_operation *operation)
{
    attnc_loop_attend *o = &operation->attend;
    const ptrdiff_t rows = r->B * r->T;
    read_attention(r, o, WRITTEN);
    const int covered = o->coverage_vector || o->coverage_rate;
    o->coverage = next_array(r, r->B, o->Tk, WRITTEN | (covered ? READ : OPTIONAL));
    o->coverage_bias = next_array(r, rows, o->Tk, WRITTEN | (o->coverage ? READ : OPTIONAL));
    o->key_mask = data_of(r, next_field(r), NPY_BOOL, r->B, o->Tk, OPTIONAL);
    o->context = next_array(r, rows, o->Dv, WRITTEN);
    o->stats = next_array(r, rows, 2, WRITTEN);
    o->scores = next_array(r, rows, o->Tk, WRITTEN | OPTIONAL);
}

static void read_attend_back(reader *r, attnc_operation *operation)
{
    attnc_loop_attend *o = &operation->attend;
    const ptrdiff_t rows = r->B * r->T;
    ptrdiff_t T = r->T;
    read_attention(r, o, READ);
    const int inside = o->coverage_vector ? READ : OPTIONAL;
    const int rate = o->coverage_rate ? READ : OPTIONAL;
    o->coverage = next_array(r, r->B, o->Tk, WRITTEN | (inside & rate));
    o->coverage_bias = next_array(r, rows, o->Tk, inside);
    o->dcontext = next_sequences(r, &T, &o->Dv, READ);
    o->dweights = next_sequences(r, &T, &o->Tk, OPTIONAL);
    o->dquery = next_array(r, rows, o->D, WRITTEN);
    o->dweights_total = next_array(r, rows, o->Tk, WRITTEN | OPTIONAL);
    o->dcoverage_rate = next_array(r, r->B, o->Tk, WRITTEN | rate);
    o->dkey = next_array(r, r->B, o->Tk * o->D, WRITTEN | inside);
    o->dscore_vector = next_array(r, r->B, o->D, WRITTEN | inside);
    o->dcoverage_vector = next_array(r, r->B, o->D, WRITTEN | inside);
    o->dcenter =
        data_of(r, next_field(r), NPY_DOUBLE, r->B, r->T, WRITTEN | (o->center ? READ : OPTIONAL));
    o->dposition =
        next_array(r, rows, o->P < 0 ? 0 : o->P, WRITTEN | (o->position.data ? READ : OPTIONAL));
}

static void read_normalize(reader *r, attnc_operation *operation)
{
    attnc_loop_normalize *o = &operation->normalize;
    o->D = -1;
    o->x = next_steps(r, &o->D, READ);
    o->unit = next_array(r, r->T * r->B, o->D, WRITTEN);
    o->norm = next_array(r, r->T * r->B, 1, WRITTEN);
}

static void read_normalize_back(reader *r, attnc_operation *operation)
{
    attnc_loop_normalize *o = &operation->normalize;
    PyObject *dunit = next_field(r);
    o->D = -1;
    rows_of(r, dunit, r->T, &r->B, &o->D, READ);
    o->dunit = data_of(r, dunit, r->e.type, r->T * r->B, o->D, READ);
    o->dx = next_array(r, r->T * r->B, o->D, WRITTEN);
    o->unit = next_array(r, r->T * r->B, o->D, READ);
    o->norm = next_array(r, r->T * r->B, 1, READ);
}

/* score, query, key, score_vector, key_transforms, scale, of the queries of all steps */
static void read_energies_of(reader *r, attnc_loop_energies *o)
{
    static const char *const names[] = {"dot", "additive"};
    const int additive = next_choice(r, names, 2, "'dot', 'additive'");
    ptrdiff_t T = r->T;
    o->score = additive ? ATTNC_ADDITIVE : ATTNC_DOT;
    o->D = -1;
    o->query = next_sequences(r, &T, &o->D, READ);
    o->key = next_sequences(r, &o->Tk, &o->D, READ);
    if (!r->failed && (o->Tk > MOST_ROWS || o->D > MOST_UNITS)) /* of no elements */
        refuse(r, PyTuple_GetItem(r->operation, r->next - 1), PyExc_ValueError,
               "have up to %zd rows of up to %zd", MOST_ROWS, MOST_UNITS);
    o->score_vector = next_array(r, 1, o->D, additive ? READ : OPTIONAL);
    next_transforms(r, names[additive], additive, o->Tk, o->D, &o->transforms);
    o->scale = next_number(r);
}

static void read_energies(reader *r, attnc_operation *operation)
{
    attnc_loop_energies *o = &operation->energies;
    const ptrdiff_t rows = r->B * r->T;
    o->Tk = -1;
    read_energies_of(r, o);
    o->scores = next_array(r, rows, o->Tk, WRITTEN);
    o->probability = next_array(r, rows, o->Tk, WRITTEN | OPTIONAL);
    o->offset = next_number(r);
    o->noise = next_array(r, rows, o->Tk, OPTIONAL);
}

static void read_energies_back(reader *r, attnc_operation *operation)
{
    attnc_loop_energies *o = &operation->energies;
    const ptrdiff_t rows = r->B * r->T;
    o->Tk = -1;
    read_energies_of(r, o);
    o->scores = next_array(r, rows, o->Tk, WRITTEN);
    o->probability = next_array(r, rows, o->Tk, OPTIONAL);
    o->dprobability = next_array(r, rows, o->Tk, o->probability ? READ : OPTIONAL);
    o->adds = next_flag(r);
    o->dquery = next_steps(r, &o->D, WRITTEN);
}

/* An array (B, T, Tk), or with one of them NULL: the first says what Tk is. */
static void *next_pairs(reader *r, ptrdiff_t *Tk, int how)
{
    ptrdiff_t T = r->T;
    PyObject *item = next_field(r);
    const attnc_rows x = rows_of(r, item, r->B, &T, Tk, how);
    if (x.data && !PyArray_ISCARRAY_RO((PyArrayObject *)item))
        return refuse(r, item, PyExc_ValueError, "be C-contiguous");
    return x.data;
}

static void read_monotonic(reader *r, attnc_operation *operation)
{
    attnc_loop_monotonic *o = &operation->monotonic;
    o->Tk = -1;
    o->probability = next_pairs(r, &o->Tk, READ);
    o->previous = next_array(r, r->B, o->Tk, READ);
    o->key_mask = data_of(r, next_field(r), NPY_BOOL, r->B, o->Tk, OPTIONAL);
    o->alignment = next_pairs(r, &o->Tk, WRITTEN);
    o->reach = next_pairs(r, &o->Tk, WRITTEN | OPTIONAL);
}

static void read_monotonic_back(reader *r, attnc_operation *operation)
{
    attnc_loop_monotonic *o = &operation->monotonic;
    o->Tk = -1;
    o->probability = next_pairs(r, &o->Tk, READ);
    o->key_mask = data_of(r, next_field(r), NPY_BOOL, r->B, o->Tk, OPTIONAL);
    o->reach = next_pairs(r, &o->Tk, READ);
    o->dalignment = next_pairs(r, &o->Tk, READ);
    o->dprobability = next_pairs(r, &o->Tk, WRITTEN);
    o->dprevious = next_array(r, r->B, o->Tk, WRITTEN);
}

/* A whole number of at least 1. */
static ptrdiff_t next_width(reader *r)
{
    PyObject *field = next_field(r);
    ptrdiff_t width = 0;
    if (!r->failed && PyLong_Check(field)) {
        width = PyLong_AsSsize_t(field);
        if (width == -1)
            PyErr_Clear(); /* of one beyond all sizes */
    }
    if (width >= 1)
        return width;
    refuse(r, field, PyExc_ValueError, "be an int of 1 or more");
    return 1;
}

/* alignment, scores, width, key_mask */
static void read_chunks(reader *r, attnc_loop_chunkwise *o)
{
    o->Tk = -1;
    o->alignment = next_pairs(r, &o->Tk, READ);
    o->scores = next_pairs(r, &o->Tk, READ);
    o->width = next_width(r);
    o->key_mask = data_of(r, next_field(r), NPY_BOOL, r->B, o->Tk, OPTIONAL);
}

static void read_chunkwise(reader *r, attnc_operation *operation)
{
    attnc_loop_chunkwise *o = &operation->chunkwise;
    read_chunks(r, o);
    o->weights = next_pairs(r, &o->Tk, WRITTEN);
}

static void read_chunkwise_back(reader *r, attnc_operation *operation)
{
    attnc_loop_chunkwise *o = &operation->chunkwise;
    read_chunks(r, o);
    o->dweights = next_pairs(r, &o->Tk, READ);
    o->dalignment = next_pairs(r, &o->Tk, WRITTEN);
    o->dscores = next_pairs(r, &o->Tk, WRITTEN);
}

static void read_read(reader *r, attnc_operation *operation)
{
    attnc_loop_read *o = &operation->read;
    o->Tk = o->Dv = -1;
    o->weights = next_pairs(r, &o->Tk, READ);
    o->value = next_sequences(r, &o->Tk, &o->Dv, READ);
    o->context = next_array(r, r->B * r->T, o->Dv, WRITTEN);
}

static void read_read_back(reader *r, attnc_operation *operation)
{
    attnc_loop_read *o = &operation->read;
    ptrdiff_t T = r->T;
    o->Tk = o->Dv = -1;
    o->value = next_sequences(r, &o->Tk, &o->Dv, READ);
    o->key_mask = data_of(r, next_field(r), NPY_BOOL, r->B, o->Tk, OPTIONAL);
    o->dcontext = next_sequences(r, &T, &o->Dv, READ);
    o->dweights = next_sequences(r, &T, &o->Tk, OPTIONAL);
    o->dtotal = next_pairs(r, &o->Tk, WRITTEN);
}

static void read_hard(reader *r, attnc_operation *operation)
{
    attnc_loop_hard *o = &operation->hard;
    o->energies.Tk = -1;
    read_energies_of(r, &o->energies);
    o->energies.offset = next_number(r);
    o->chunk.Tk = o->energies.Tk;
    o->width = next_width(r);
    read_energies_of(r, &o->chunk);
    o->key_mask = data_of(r, next_field(r), NPY_BOOL, r->B, o->energies.Tk, OPTIONAL);
    o->position = next_array(r, r->B, o->energies.Tk, WRITTEN);
    o->weights = next_pairs(r, &o->energies.Tk, WRITTEN);
}

/* Every operation: what its NamedTuple is called, who reads it, and what the engine does. */
static const struct {
    const char *name;
    void (*read)(reader *, attnc_operation *);
    const attnc_operation_type *type;
} OPERATIONS[] = {
    {"Linear", read_linear, &attnc_operation_linear},
    {"Cell", read_cell, &attnc_operation_cell},
    {"CellBack", read_cell_back, &attnc_operation_cell_back},
    {"Attend", read_attend, &attnc_operation_attend},
    {"AttendBack", read_attend_back, &attnc_operation_attend_back},
    {"Normalize", read_normalize, &attnc_operation_normalize},
    {"NormalizeBack", read_normalize_back, &attnc_operation_normalize_back},
    {"Energies", read_energies, &attnc_operation_energies},
    {"EnergiesBack", read_energies_back, &attnc_operation_energies_back},
    {"Monotonic", read_monotonic, &attnc_operation_monotonic},
    {"MonotonicBack", read_monotonic_back, &attnc_operation_monotonic_back},
    {"Chunkwise", read_chunkwise, &attnc_operation_chunkwise},
    {"ChunkwiseBack", read_chunkwise_back, &attnc_operation_chunkwise_back},
    {"Read", read_read, &attnc_operation_read},
    {"ReadBack", read_read_back, &attnc_operation_read_back},
    {"Hard", read_hard, &attnc_operation_hard},
};

/* -1 with an error. */
static int read_operation(reader *r, attnc_operation *o)
{
    PyObject *type = PyType_GetName(Py_TYPE(r->operation));
    if (!type)
        return -1;
    size_t k = 0, count = sizeof OPERATIONS / sizeof *OPERATIONS;
    while (k < count && PyUnicode_CompareWithASCIIString(type, OPERATIONS[k].name) != 0)
        k++;
    Py_DECREF(type);
    if (k == count || !PyTuple_Check(r->operation)) {
        PyErr_Format(PyExc_TypeError,
                     "loop: operation %zd must be one of attnc.functional.operations, got %S",
                     r->index, (PyObject *)Py_TYPE(r->operation));
        return -1;
    }
    r->name = OPERATIONS[k].name;
    r->next = 0;
    o->type = OPERATIONS[k].type;
    OPERATIONS[k].read(r, o);
    if (!r->failed && r->next != PyTuple_Size(r->operation)) {
        PyErr_Format(PyExc_TypeError, "loop: operation %zd (%s) must have %zd fields, got %zd",
                     r->index, r->name, r->next, PyTuple_Size(r->operation));
        return -1;
    }
    return r->failed ? -1 : 0;
}

/* ---- the loop ---- */

enum { LIKE, STEPS, BATCH, LIST, BACKWARD, LOOP_ARGUMENTS };

/* steps, a number, or counts (steps) of the sequences that take part; batch. Sets T, B, rows. */
static int read_sizes(reader *r, PyObject *steps, PyObject *batch, attnc_loop *loop)
{
    PyArrayObject *counts = (PyArrayObject *)steps;
    const int counted = PyArray_Check(steps);
    if (counted && (PyArray_TYPE(counts) != NPY_INTP || !PyArray_ISCARRAY_RO(counts))) {
        PyErr_Format(PyExc_TypeError, "loop: counts must be a C-contiguous array of intp");
        return -1;
    }
    r->T = counted ? PyArray_SIZE(counts) : PyLong_AsSsize_t(steps);
    r->B = PyErr_Occurred() ? -1 : PyLong_AsSsize_t(batch);
    if (PyErr_Occurred())
        return -1;
    if (r->T < 0 || r->B < 0 || r->T > MOST_ROWS || r->B > MOST_ROWS / (r->T + 1)) {
        PyErr_Format(PyExc_ValueError,
                     "loop: steps and batch must lie in 0..%zd together, got %zd and %zd",
                     MOST_ROWS, r->T, r->B);
        return -1;
    }
    loop->steps = r->T;
    loop->batch = r->B;
    loop->counts = counted ? PyArray_DATA(counts) : NULL;
    r->rows = counted ? 0 : r->T * r->B;
    for (ptrdiff_t t = 0; counted && t < r->T; t++) {
        const ptrdiff_t most = t > 0 ? loop->counts[t - 1] : r->B;
        if (loop->counts[t] < 1 || loop->counts[t] > most) {
            PyErr_Format(PyExc_ValueError,
                         "loop: counts must fall, from %zd at most to 1 at least, got %zd at %zd",
                         r->B, loop->counts[t], t);
            return -1;
        }
        r->rows += loop->counts[t];
    }
    return 0;
}

/* loop(like, steps, batch, operations, backward): see attnc/functional/operations.py. */
PyObject *attnc_run_loop(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    reader r = {0};
    attnc_loop loop = {0};
    if (attnc_check_count("loop", count, LOOP_ARGUMENTS) < 0 ||
        real_type_of("loop: like", args[LIKE], &r.e) < 0 ||
        read_sizes(&r, args[STEPS], args[BATCH], &loop) < 0)
        return NULL;
    if (!PyTuple_Check(args[LIST]))
        return PyErr_Format(PyExc_TypeError, "loop: operations must be a tuple");
    loop.f32 = r.e.type == NPY_FLOAT;
    loop.backward = args[BACKWARD] == Py_True;
    loop.operations = (int)PyTuple_Size(args[LIST]);
    const size_t bytes = (size_t)loop.operations * sizeof *loop.operation;
    attnc_operation *operation = attnc_allocate(bytes);
    if (!operation)
        return PyErr_NoMemory();
    memset(operation, 0, bytes);
    loop.operation = operation;
    int status = 0;
    for (r.index = 0; status == 0 && r.index < loop.operations; r.index++) {
        r.operation = PyTuple_GetItem(args[LIST], r.index);
        status = read_operation(&r, &operation[r.index]);
    }
    if (status == 0) {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_loop_run(&loop, NULL);
        Py_END_ALLOW_THREADS
        if (status < 0)
            PyErr_NoMemory();
    }
    attnc_release(operation);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}
