/* op_recurrent: glue of the recurrent loops. attnc/functional checks what users pass and makes the
 * arrays; here they are only held against each other, so that no call, however wrong, reads or
 * writes beside an array. */
#include "ops.h"

#include "arrays.h"
#include "../engine/dispatch.h"
#include "../engine/pool.h"
#include "../engine/scratch.h"
#include "../engine/steps.h"

#include <string.h>

/* The arrays of one call: of one type, NPY_FLOAT or NPY_DOUBLE; failed once one does not fit. */
typedef struct {
    int type, failed;
    const attnc_kernels *kernels;
    size_t item;
} expected;

/* By the type of the first array. */
static int expect_like(expected *e, PyObject *array)
{
    e->failed = 0;
    e->type = PyArray_Check(array) ? PyArray_TYPE((PyArrayObject *)array) : NPY_NOTYPE;
    if (e->type != NPY_FLOAT && e->type != NPY_DOUBLE)
        return -1;
    e->kernels = attnc_kernels_for(e->type == NPY_FLOAT);
    e->item = e->type == NPY_FLOAT ? sizeof(float) : sizeof(double);
    return 0;
}

static PyObject *do_not_fit(void)
{
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "recurrent: the arrays do not fit each other");
    return NULL;
}

/* No dimension of a weight and no number of rows is larger: no product of sizes here overflows. */
static const ptrdiff_t MOST_UNITS = 1 << 24, MOST_ROWS = PTRDIFF_MAX >> 29;

/* The data of a C-contiguous array of so many elements; NULL for None. */
static void *data_of(expected *e, PyObject *object, int type, npy_intp rows, npy_intp columns)
{
    PyArrayObject *array = (PyArrayObject *)object;
    npy_intp size;
    if (object == Py_None)
        return NULL;
    if (PyArray_Check(object) && PyArray_TYPE(array) == type && PyArray_ISCARRAY_RO(array) &&
        !__builtin_mul_overflow(rows, columns, &size) && PyArray_SIZE(array) == size)
        return PyArray_DATA(array);
    e->failed = 1;
    return NULL;
}

static void *real_of(expected *e, PyObject *object, npy_intp rows, npy_intp columns)
{
    return data_of(e, object, e->type, rows, columns);
}

static void expect_writeable(expected *e, PyObject *object)
{
    if (PyArray_Check(object) && !PyArray_ISWRITEABLE((PyArrayObject *)object))
        e->failed = 1;
}

/* One that is written to. */
static void *written_of(expected *e, PyObject *object, npy_intp rows, npy_intp columns)
{
    expect_writeable(e, object);
    return real_of(e, object, rows, columns);
}

/* ---- weights in panels ---- */

/* Products read whole cache lines of them. */
static void *aligned(void *data) { return (void *)(((uintptr_t)data + 63) / 64 * 64); }
static ptrdiff_t panels_elements(const expected *e, const attnc_panels *p)
{
    return e->kernels->panels_size(p) + (ptrdiff_t)(64 / e->item);
}

/* panels(matrix, groups): a new array, the matrix (K, groups * N) as products read it. */
PyObject *attnc_recurrent_panels(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    expected e;
    attnc_panels p = {0};
    if (attnc_check_count("panels", count, 2) < 0)
        return NULL;
    if (expect_like(&e, args[0]) < 0)
        return do_not_fit();
    PyArrayObject *matrix = (PyArrayObject *)args[0];
    p.groups = PyLong_AsSsize_t(args[1]);
    if (PyArray_NDIM(matrix) != 2 || !PyArray_ISBEHAVED_RO(matrix) || p.groups < 1)
        return do_not_fit();
    int whole = 1;
    p.x = PyArray_DATA(matrix);
    p.row = attnc_stride(matrix, 0, &whole);
    p.col = attnc_stride(matrix, 1, &whole);
    p.K = PyArray_DIM(matrix, 0);
    p.N = PyArray_DIM(matrix, 1) / p.groups;
    if (p.N * p.groups != PyArray_DIM(matrix, 1) || (p.row != 1 && p.col != 1) || !whole)
        return do_not_fit();
    const npy_intp shape[] = {panels_elements(&e, &p)};
    PyArrayObject *out = attnc_new_array(1, shape, e.type, 0);
    if (!out)
        return NULL;
    p.out = aligned(PyArray_DATA(out));
    const ptrdiff_t tasks = (p.N + e.kernels->panel - 1) / e.kernels->panel;
    const int threads = attnc_threads_for(tasks, (double)p.K * (double)(p.N * p.groups));
    Py_BEGIN_ALLOW_THREADS
    attnc_parallel_for(e.kernels->pack_panels, &p, tasks, threads, NULL, 0);
    Py_END_ALLOW_THREADS
    return (PyObject *)out;
}

/* Panels of a matrix (K, groups * N). */
static const void *panels_of(expected *e, PyObject *object, ptrdiff_t K, ptrdiff_t N,
                             ptrdiff_t groups)
{
    const attnc_panels p = {.K = K, .N = N, .groups = groups};
    const int fits = K <= MOST_UNITS && N <= MOST_UNITS;
    void *data = fits ? real_of(e, object, 1, panels_elements(e, &p)) : NULL;
    e->failed |= !data;
    return data ? aligned(data) : NULL;
}

/* ---- keys of additive attention ---- */

static int read_key_forms(expected *e, PyObject *forms, attnc_key_transforms *f)
{
    const ptrdiff_t lanes = e->kernels->lanes, Dp = (f->D + lanes - 1) / lanes * lanes;
    if (!PyTuple_Check(forms) || PyTuple_Size(forms) != 3)
        return -1;
    f->small = real_of(e, PyTuple_GetItem(forms, 0), f->count, f->Tk * Dp);
    f->large = real_of(e, PyTuple_GetItem(forms, 1), f->count, f->Tk * Dp);
    f->top = real_of(e, PyTuple_GetItem(forms, 2), f->count, 1);
    return e->failed || !f->small || !f->large || !f->top ? -1 : 0;
}

/* key_forms(key): what a loop's additive attention reads of a key (B, Tk, D), a tuple of arrays. */
PyObject *attnc_additive_key_forms(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    expected e;
    if (attnc_check_count("key_forms", count, 1) < 0)
        return NULL;
    PyArrayObject *key = (PyArrayObject *)args[0];
    if (expect_like(&e, args[0]) < 0 || PyArray_NDIM(key) != 3 || !PyArray_ISCARRAY_RO(key))
        return do_not_fit();
    attnc_key_transforms f = {.key = PyArray_DATA(key),
                              .count = PyArray_DIM(key, 0),
                              .Tk = PyArray_DIM(key, 1),
                              .D = PyArray_DIM(key, 2)};
    const ptrdiff_t lanes = e.kernels->lanes, Dp = (f.D + lanes - 1) / lanes * lanes;
    const npy_intp shape[] = {f.count, f.Tk, Dp};
    PyObject *small = (PyObject *)attnc_new_array(3, shape, e.type, 0);
    PyObject *large = (PyObject *)attnc_new_array(3, shape, e.type, 0);
    PyObject *top = (PyObject *)attnc_new_array(1, shape, e.type, 0);
    PyObject *forms = small && large && top ? PyTuple_Pack(3, small, large, top) : NULL;
    Py_XDECREF(small);
    Py_XDECREF(large);
    Py_XDECREF(top);
    if (!forms || read_key_forms(&e, forms, &f) < 0) {
        Py_XDECREF(forms);
        return forms ? do_not_fit() : NULL;
    }
    const int threads = attnc_threads_for(f.count, (double)f.count * (double)(f.Tk * Dp) * 20);
    Py_BEGIN_ALLOW_THREADS
    attnc_parallel_for(e.kernels->transform_keys, &f, f.count, threads, NULL, 0);
    Py_END_ALLOW_THREADS
    return forms;
}

/* ---- recurrent layers ---- */

static int read_cell(PyObject *name, attnc_sweep *s)
{
    static const char *const names[] = {"rnn", "gru", "lstm"};
    static const int gates[] = {1, 3, 4};
    for (int k = 0; PyUnicode_Check(name) && k < 3; k++)
        if (PyUnicode_CompareWithASCIIString(name, names[k]) == 0) {
            s->cell = (attnc_cell)k;
            s->gate_count = gates[k];
            return 0;
        }
    return -1;
}

/* counts (steps), falling, of at least 1; the number of rows, or -1 */
static ptrdiff_t read_counts(PyObject *object, attnc_recurrence *r, ptrdiff_t batch)
{
    PyArrayObject *array = (PyArrayObject *)object;
    if (!PyArray_Check(object) || PyArray_TYPE(array) != NPY_INTP || !PyArray_ISCARRAY_RO(array))
        return -1;
    r->counts = PyArray_DATA(array);
    r->steps = PyArray_SIZE(array);
    ptrdiff_t rows = 0, before = batch;
    for (ptrdiff_t t = 0; t < r->steps; t++) {
        if (r->counts[t] < 1 || r->counts[t] > before)
            return -1;
        rows += before = r->counts[t];
    }
    return rows;
}

enum {
    GATES,
    SAVED_ROWS,
    STATES,
    CELL_STATES,
    PANELS,
    INPUT_BIAS,
    STATE_BIAS,
    FLAT,
    D_INPUT,
    D_PRODUCT,
    D_STATE,
    D_CELL_STATE,
    D_INPUT_BIAS,
    D_STATE_BIAS,
    SWEEP_ARRAYS
};

static int read_sweep(expected *e, PyObject *arrays, ptrdiff_t rows, ptrdiff_t places,
                      attnc_sweep *s, const void **panels, int backward)
{
    const ptrdiff_t H = s->H, batch = s->batch, width = s->gate_count * H;
    const ptrdiff_t parts = (batch + ATTNC_SUM_STEP - 1) / ATTNC_SUM_STEP;
    if (!PyTuple_Check(arrays) || PyTuple_Size(arrays) != SWEEP_ARRAYS)
        return -1;
#define ATTNC_ARRAY(INDEX, ROWS, COLUMNS) real_of(e, PyTuple_GetItem(arrays, INDEX), ROWS, COLUMNS)
#define ATTNC_WRITTEN(INDEX, ROWS, COLUMNS)                                                        \
    written_of(e, PyTuple_GetItem(arrays, INDEX), ROWS, COLUMNS)
    s->gates = ATTNC_WRITTEN(GATES, rows, width);
    s->saved = ATTNC_WRITTEN(SAVED_ROWS, rows, H);
    s->h = ATTNC_WRITTEN(STATES, batch + rows, H);
    s->c = ATTNC_WRITTEN(CELL_STATES, batch + rows, H);
    *panels = panels_of(e, PyTuple_GetItem(arrays, PANELS), backward ? width : H, H,
                        backward ? 1 : s->gate_count);
    s->input_bias = ATTNC_ARRAY(INPUT_BIAS, 1, width);
    s->state_bias = ATTNC_ARRAY(STATE_BIAS, 1, width);
    s->flat = data_of(e, PyTuple_GetItem(arrays, FLAT), NPY_INTP, rows, 1);
    s->dinput = ATTNC_WRITTEN(D_INPUT, rows, width);
    s->dproduct = ATTNC_WRITTEN(D_PRODUCT, rows, width);
    s->dh = ATTNC_WRITTEN(D_STATE, batch, H);
    s->dc = ATTNC_WRITTEN(D_CELL_STATE, batch, H);
    s->dinput_bias = ATTNC_WRITTEN(D_INPUT_BIAS, parts, width);
    s->dstate_bias = ATTNC_WRITTEN(D_STATE_BIAS, parts, width);
#undef ATTNC_WRITTEN
#undef ATTNC_ARRAY
    if (e->failed || !s->gates || !s->h || !s->input_bias || !s->state_bias || !s->flat ||
        (s->cell != ATTNC_RNN && !s->saved) || (s->cell == ATTNC_LSTM && !s->c))
        return -1;
    for (ptrdiff_t k = 0; k < rows; k++)
        if (s->flat[k] < 0 || s->flat[k] >= places)
            return -1;
    return 0;
}

static int has_gradients(const attnc_sweep *s)
{
    return s->dinput && s->dproduct && s->dh && s->dinput_bias &&
           (s->cell != ATTNC_LSTM || s->dc) && (s->cell != ATTNC_GRU || s->dstate_bias);
}

/* (cell, units, batch, counts, sweeps, whole): whole is outputs or doutputs (places, sweeps * H) or
 * None. */
enum { CELL, UNITS, BATCH, COUNTS, SWEEPS, WHOLE, RECURRENT_ARGUMENTS };

static int read_recurrence(attnc_recurrence *r, PyObject *const *args, int backward)
{
    attnc_sweep like = {0};
    if (read_cell(args[CELL], &like) < 0 || !PyTuple_Check(args[SWEEPS]) ||
        PyTuple_Size(args[SWEEPS]) < 1 || PyTuple_Size(args[SWEEPS]) > ATTNC_MAX_SWEEPS)
        return -1;
    like.H = PyLong_AsSsize_t(args[UNITS]);
    like.batch = PyLong_AsSsize_t(args[BATCH]);
    if (PyErr_Occurred() || like.H < 1 || like.H > MOST_UNITS || like.batch < 0 ||
        like.batch > MOST_ROWS)
        return -1;
    const ptrdiff_t rows = read_counts(args[COUNTS], r, like.batch);
    r->sweeps = (int)PyTuple_Size(args[SWEEPS]);
    PyObject *first = PyTuple_GetItem(args[SWEEPS], 0);
    expected e;
    if (rows < 0 || !PyTuple_Check(first) || PyTuple_Size(first) != SWEEP_ARRAYS ||
        expect_like(&e, PyTuple_GetItem(first, GATES)) < 0)
        return -1;
    r->item = e.item;
    r->kernels = e.kernels;

    const ptrdiff_t width = r->sweeps * like.H;
    ptrdiff_t places = PTRDIFF_MAX;
    char *whole = NULL;
    if (args[WHOLE] != Py_None) {
        if (!PyArray_Check(args[WHOLE]))
            return -1;
        places = PyArray_SIZE((PyArrayObject *)args[WHOLE]) / width;
        whole = real_of(&e, args[WHOLE], places, width);
        if (!backward)
            expect_writeable(&e, args[WHOLE]);
    }
    for (int i = 0; i < r->sweeps; i++) {
        attnc_sweep *s = &r->sweep[i];
        *s = like;
        if (read_sweep(&e, PyTuple_GetItem(args[SWEEPS], i), rows, places, s, &r->panels[i],
                       backward) < 0 ||
            (backward && !has_gradients(s)))
            return -1;
        char *own = whole ? whole + (size_t)(i * like.H) * r->item : NULL;
        s->outputs = backward ? NULL : own;
        s->doutputs = backward ? own : NULL;
        s->outputs_row = s->doutputs_row = width;
    }
    return 0;
}

static PyObject *run_recurrence(PyObject *const *args, Py_ssize_t count, int backward)
{
    attnc_recurrence r = {0};
    if (attnc_check_count(backward ? "recurrent_backward" : "recurrent_forward", count,
                          RECURRENT_ARGUMENTS) < 0)
        return NULL;
    if (read_recurrence(&r, args, backward) < 0)
        return do_not_fit();
    int (*const pass)(const attnc_recurrence *) =
        backward ? attnc_recurrence_backward : attnc_recurrence_forward;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = pass(&r);
    Py_END_ALLOW_THREADS
    if (status < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyObject *attnc_recurrent_forward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return run_recurrence(args, count, 0);
}

PyObject *attnc_recurrent_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return run_recurrence(args, count, 1);
}

/* ---- a decoder's loop ---- */

/* The items of one operation's tuple, read in order. */
typedef struct {
    expected e;
    PyObject *items;
    Py_ssize_t next;
    ptrdiff_t T, B;
} reader;

static PyObject *next_item(reader *r)
{
    if (PyTuple_Check(r->items) && r->next < PyTuple_Size(r->items))
        return PyTuple_GetItem(r->items, r->next++);
    r->e.failed = 1;
    return Py_None;
}

static ptrdiff_t next_size(reader *r)
{
    const ptrdiff_t size = PyLong_AsSsize_t(next_item(r));
    r->e.failed |= size < 0;
    return size;
}

static double next_number(reader *r)
{
    const double number = PyFloat_AsDouble(next_item(r));
    r->e.failed |= PyErr_Occurred() != NULL;
    return number;
}

/* A C-contiguous array of so many elements, or NULL for None. */
static void *next_array(reader *r, ptrdiff_t rows, ptrdiff_t columns)
{
    return real_of(&r->e, next_item(r), rows, columns);
}

/* The same of one that is written to. */
static void *next_written(reader *r, ptrdiff_t rows, ptrdiff_t columns)
{
    return written_of(&r->e, next_item(r), rows, columns);
}

static void *needed(reader *r, void *data)
{
    r->e.failed |= !data;
    return data;
}

/* An array (n0, n1, features) with features side by side and strides of whole elements; n0 at most
 * `most`. None: no data. *features: what it has, or -1 for any. */
static attnc_series series_of(reader *r, PyObject *object, ptrdiff_t most, ptrdiff_t n1,
                              ptrdiff_t *features)
{
    attnc_series s = {0};
    PyArrayObject *array = (PyArrayObject *)object;
    if (object == Py_None)
        return s;
    if (PyArray_Check(object) && PyArray_TYPE(array) == r->e.type && PyArray_NDIM(array) == 3 &&
        PyArray_ISBEHAVED_RO(array) && PyArray_DIM(array, 0) <= most &&
        PyArray_DIM(array, 1) == n1 && (*features < 0 || PyArray_DIM(array, 2) == *features)) {
        int whole = 1;
        *features = PyArray_DIM(array, 2);
        s.data = PyArray_DATA(array);
        s.steps = PyArray_DIM(array, 0);
        s.step = attnc_stride(array, 0, &whole);
        s.row = attnc_stride(array, 1, &whole);
        if (attnc_stride(array, 2, &whole) == 1 && whole)
            return s;
    }
    r->e.failed = 1;
    return s;
}

/* An array over the steps, (T or fewer, B, features). */
static attnc_series next_series(reader *r, ptrdiff_t *features)
{
    return series_of(r, next_item(r), r->T, r->B, features);
}

/* One with every step, as what is written must be. */
static attnc_series next_whole_series(reader *r, ptrdiff_t *features)
{
    const attnc_series s = next_series(r, features);
    r->e.failed |= s.steps != r->T;
    return s;
}

/* A tuple of (series, panels). */
static void next_terms(reader *r, attnc_operation *o, ptrdiff_t N, ptrdiff_t groups)
{
    PyObject *terms = next_item(r);
    const Py_ssize_t count = PyTuple_Check(terms) ? PyTuple_Size(terms) : -1;
    if (count < 0 || count > ATTNC_MAX_TERMS) {
        r->e.failed = 1;
        return;
    }
    for (o->terms = 0; o->terms < count; o->terms++) {
        PyObject *pair = PyTuple_GetItem(terms, o->terms);
        if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
            r->e.failed = 1;
            return;
        }
        attnc_series_term *term = &o->term[o->terms];
        term->K = -1;
        term->groups = groups;
        term->a = series_of(r, PyTuple_GetItem(pair, 0), r->T, r->B, &term->K);
        r->e.failed |= !term->a.data;
        if (!r->e.failed)
            term->panels = panels_of(&r->e, PyTuple_GetItem(pair, 1), term->K, N, groups);
    }
}

/* A tuple of series. */
static void next_adds(reader *r, attnc_operation *o, ptrdiff_t N, int most)
{
    PyObject *adds = next_item(r);
    const Py_ssize_t count = PyTuple_Check(adds) ? PyTuple_Size(adds) : -1;
    if (count < 0 || count > most) {
        r->e.failed = 1;
        return;
    }
    for (o->adds = 0; o->adds < count; o->adds++) {
        o->add[o->adds] = series_of(r, PyTuple_GetItem(adds, o->adds), r->T, r->B, &N);
        r->e.failed |= !o->add[o->adds].data;
    }
}

/* out, terms, adds, tanh, tanh_of */
static void read_linear(reader *r, attnc_operation *o)
{
    o->N = -1;
    PyObject *out = next_item(r);
    o->out = series_of(r, out, r->T, r->B, &o->N);
    expect_writeable(&r->e, out);
    r->e.failed |= o->out.steps != r->T;
    if (r->e.failed)
        return;
    next_terms(r, o, o->N, 1);
    next_adds(r, o, o->N, 1);
    o->tanh = next_item(r) == Py_True;
    PyObject *tanh_of = next_item(r);
    o->tanh_of = series_of(r, tanh_of, r->T, r->B, &o->N);
    r->e.failed |= tanh_of != Py_None && o->tanh_of.steps != r->T;
}

/* cell, units, gates, saved, h, c */
static void read_cell_states(reader *r, attnc_sweep *s)
{
    const ptrdiff_t rows = r->T * r->B;
    r->e.failed |= read_cell(next_item(r), s) < 0;
    s->H = next_size(r);
    s->batch = r->B;
    if (r->e.failed || s->H < 1 || s->H > MOST_UNITS) {
        r->e.failed = 1;
        return;
    }
    s->gates = needed(r, next_written(r, rows, s->gate_count * s->H));
    s->saved = next_written(r, rows, s->H);
    s->h = needed(r, next_written(r, r->B + rows, s->H));
    s->c = next_written(r, r->B + rows, s->H);
    r->e.failed |= (s->cell != ATTNC_RNN && !s->saved) || (s->cell == ATTNC_LSTM && !s->c);
}

/* ..., input_bias, state_bias, terms, fresh */
static void read_cell_forward(reader *r, attnc_operation *o)
{
    attnc_sweep *s = &o->sweep;
    read_cell_states(r, s);
    if (r->e.failed)
        return;
    s->input_bias = needed(r, next_array(r, 1, s->gate_count * s->H));
    s->state_bias = needed(r, next_array(r, 1, s->gate_count * s->H));
    next_terms(r, o, s->H, s->gate_count);
    o->fresh = next_item(r) == Py_True;
}

/* ..., dinput, dproduct, dh, dc, dinput_bias, dstate_bias, terms, adds */
static void read_cell_backward(reader *r, attnc_operation *o)
{
    attnc_sweep *s = &o->sweep;
    read_cell_states(r, s);
    if (r->e.failed)
        return;
    const ptrdiff_t rows = r->T * r->B, width = s->gate_count * s->H;
    const ptrdiff_t parts = (r->B + ATTNC_SUM_STEP - 1) / ATTNC_SUM_STEP;
    s->dinput = needed(r, next_written(r, rows, width));
    s->dproduct = needed(r, next_written(r, rows, width));
    s->dh = needed(r, next_written(r, r->B, s->H));
    s->dc = next_written(r, r->B, s->H);
    s->dinput_bias = needed(r, next_written(r, parts, width));
    s->dstate_bias = next_written(r, parts, width);
    r->e.failed |= (s->cell == ATTNC_LSTM && !s->dc) || (s->cell == ATTNC_GRU && !s->dstate_bias);
    next_terms(r, o, s->H, 1);
    next_adds(r, o, s->H, 2);
}

/* An array (B, n, features) as attention sees it; lead is where its stride is kept. */
static attnc_view next_view(reader *r, ptrdiff_t n, ptrdiff_t *features, ptrdiff_t *lead)
{
    PyObject *object = next_item(r);
    const attnc_series s = series_of(r, object, r->B, n, features);
    r->e.failed |= object != Py_None && s.steps != r->B;
    *lead = s.step;
    return (attnc_view){.data = s.data, .row = s.row, .col = 1, .lead = lead};
}

/* score, Tk, query, key, value, score_vector, forms, scale, key_mask, context, weights, stats,
 * scores, coverage, coverage_bias, coverage_weight. query (B, T, D), key (B, Tk, D),
 * value (B, Tk, Dv) */
static void read_attend(reader *r, attnc_operation *o)
{
    attnc_problem *a = &o->problem;
    attnc_attention_fwd *f = &o->attention;
    PyObject *score = next_item(r);
    a->score = score == Py_True ? ATTNC_ADDITIVE : ATTNC_DOT;
    o->lead.batch = r->B;
    a->lead = (attnc_lead){1, r->B, &o->lead.batch};
    a->Tq = r->T;
    a->Tk = a->length = next_size(r);
    a->D = a->Dv = -1;
    a->query = next_view(r, r->T, &a->D, &o->lead.query);
    a->key = next_view(r, a->Tk, &a->D, &o->lead.key);
    a->value = next_view(r, a->Tk, &a->Dv, &o->lead.value);
    if (r->e.failed || !a->query.data || !a->key.data || !a->value.data) {
        r->e.failed = 1;
        return;
    }
    a->score_vector = next_array(r, 1, a->D);
    PyObject *forms = next_item(r);
    if (a->score == ATTNC_ADDITIVE) {
        o->forms = (attnc_key_transforms){.count = r->B, .Tk = a->Tk, .D = a->D};
        a->key_transforms = &o->forms;
        r->e.failed |= !a->score_vector || read_key_forms(&r->e, forms, &o->forms) < 0;
    }
    a->scale = next_number(r);
    a->key_mask.data = data_of(&r->e, next_item(r), NPY_BOOL, r->B, a->Tk);
    a->key_mask.col = 1;
    a->key_mask.lead = &o->lead.key_mask;
    o->lead.key_mask = a->Tk;
    a->left = a->right = -1;
    a->one_by_one = 1;
    f->problem = a;
    f->query_chunk = f->key_splits = 1;
    const ptrdiff_t rows = r->B * r->T;
    f->context.data = needed(r, next_written(r, rows, a->Dv));
    f->weights = needed(r, next_written(r, rows, a->Tk));
    f->stats = needed(r, next_written(r, rows, 2));
    f->scores_copy = next_written(r, rows, a->Tk);
    o->attend.coverage = next_written(r, r->B, a->Tk);
    o->attend.coverage_bias = next_written(r, rows, a->Tk);
    o->attend.coverage_weight = next_number(r);
    if (o->attend.coverage) {
        r->e.failed |= !o->attend.coverage_bias;
        o->lead.coverage_bias = r->T * a->Tk;
        a->bias = (attnc_view){.data = o->attend.coverage_bias,
                               .row = a->Tk,
                               .col = 1,
                               .lead = &o->lead.coverage_bias};
    }
}

/* ..., dcontext (B, T, Dv), dweights, dquery (T, B, D), dweights_total */
static void read_attend_back(reader *r, attnc_operation *o)
{
    attnc_problem *a = &o->problem;
    read_attend(r, o);
    if (r->e.failed)
        return;
    o->attend.dcontext = next_view(r, r->T, &a->Dv, &o->lead.dcontext);
    o->attend.dweights = next_view(r, r->T, &a->Tk, &o->lead.dweights);
    const ptrdiff_t rows = r->B * r->T;
    o->attend.dquery = needed(r, next_written(r, rows, a->D));
    o->attend.dweights_total = next_written(r, rows, a->Tk);
    r->e.failed |= !o->attend.dcontext.data;
}

/* x (T, B, D), unit (T, B, D), norm; back: dunit, dx, unit, norm */
static void read_normalize(reader *r, attnc_operation *o)
{
    o->N = -1;
    o->x = next_whole_series(r, &o->N);
    if (r->e.failed)
        return;
    const ptrdiff_t rows = r->T * r->B;
    o->out = (attnc_series){needed(r, next_written(r, rows, o->N)), r->T, r->B * o->N, o->N};
    if (o->kind == ATTNC_NORMALIZE_BACK) {
        o->unit = (attnc_series){needed(r, next_written(r, rows, o->N)), r->T, r->B * o->N, o->N};
        r->e.failed |= r->B > 1 && o->x.row != o->N; /* read as one block */
    }
    o->norm = needed(r, next_written(r, rows, 1));
}

static int read_operation(reader *r, PyObject *items, attnc_operation *o)
{
    static const struct {
        const char *name;
        void (*read)(reader *, attnc_operation *);
    } kinds[] = {
        [ATTNC_LINEAR] = {"linear", read_linear},
        [ATTNC_CELL] = {"cell", read_cell_forward},
        [ATTNC_CELL_BACK] = {"cell_back", read_cell_backward},
        [ATTNC_ATTEND] = {"attend", read_attend},
        [ATTNC_ATTEND_BACK] = {"attend_back", read_attend_back},
        [ATTNC_NORMALIZE] = {"normalize", read_normalize},
        [ATTNC_NORMALIZE_BACK] = {"normalize_back", read_normalize},
    };
    r->items = items;
    r->next = 0;
    PyObject *name = next_item(r);
    if (!PyUnicode_Check(name))
        return -1;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (PyUnicode_CompareWithASCIIString(name, kinds[k].name) == 0) {
            o->kind = (attnc_operation_kind)k;
            kinds[k].read(r, o);
            return r->e.failed || r->next != PyTuple_Size(items) ? -1 : 0;
        }
    return -1;
}

/* loop(like, steps, batch, operations, backward) */
PyObject *attnc_recurrent_loop(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    reader r = {0};
    if (attnc_check_count("loop", count, 5) < 0)
        return NULL;
    if (expect_like(&r.e, args[0]) < 0 || !PyTuple_Check(args[3]))
        return do_not_fit();
    r.T = PyLong_AsSsize_t(args[1]);
    r.B = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred() || r.T < 0 || r.B < 0 || r.T > MOST_ROWS || r.B > MOST_ROWS / (r.T + 1))
        return do_not_fit();
    attnc_loop loop = {.kernels = r.e.kernels,
                       .item = r.e.item,
                       .steps = r.T,
                       .batch = r.B,
                       .operations = (int)PyTuple_Size(args[3]),
                       .backward = args[4] == Py_True};
    const size_t bytes = (size_t)loop.operations * sizeof *loop.operation;
    loop.operation = attnc_allocate(bytes);
    int status = loop.operation ? 0 : -1, fits = 1;
    if (loop.operation)
        memset(loop.operation, 0, bytes);
    for (int k = 0; status == 0 && fits && k < loop.operations; k++)
        fits = read_operation(&r, PyTuple_GetItem(args[3], k), &loop.operation[k]) == 0;
    if (status == 0 && fits) {
        Py_BEGIN_ALLOW_THREADS
        status = attnc_loop_run(&loop);
        Py_END_ALLOW_THREADS
    }
    attnc_release(loop.operation);
    if (!fits)
        return do_not_fit();
    if (status < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}
