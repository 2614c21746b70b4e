/* run: see run.h. */
#include "run.h"

#include "arrays.h"
#include "../engine/pool.h"
#include "../engine/scratch.h"

#include <math.h>
#include <string.h>

/* Calls of fewer multiply-adds keep the GIL: releasing it costs more than they take. */
static const double GIL_MIN_WORK = 2e5;

static size_t real_size(const attnc_call *c) { return c->f32 ? sizeof(float) : sizeof(double); }
static int real_type(const attnc_call *c) { return c->f32 ? NPY_FLOAT : NPY_DOUBLE; }

static void call_end(attnc_call *c)
{
    for (int k = 0; k < c->owned_count; k++)
        attnc_release(c->owned[k]);
    attnc_call_clear(c);
}

static void *block_of_bytes(attnc_call *c, size_t count, size_t size)
{
    size_t bytes;
    void *block = NULL;
    if (!__builtin_mul_overflow(count, size, &bytes))
        block = attnc_allocate(bytes);
    if (!block) {
        PyErr_NoMemory();
        return NULL;
    }
    return c->owned[c->owned_count++] = block;
}

void *attnc_block(attnc_call *c, ptrdiff_t count)
{
    return block_of_bytes(c, (size_t)count, real_size(c));
}

ptrdiff_t attnc_own_count(const attnc_operand *operand)
{
    ptrdiff_t count = 1;
    for (int d = 0; d < PyArray_NDIM(operand->array) - 2; d++)
        count *= PyArray_DIM(operand->array, d);
    return count;
}

/* Runs a kernel over its tasks. work: multiply-adds in all. scratch: bytes a thread. */
static int run(attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks, double work,
               size_t scratch)
{
    int threads = attnc_threads_for(tasks, work);
    size_t stride = (scratch + 63) / 64 * 64, bytes;
    if (tasks == 0)
        return 0;
    if (__builtin_mul_overflow(stride, (size_t)threads, &bytes)) {
        PyErr_NoMemory();
        return -1;
    }
    char *block = attnc_allocate(bytes);
    if (!block) {
        PyErr_NoMemory();
        return -1;
    }
    if (work < GIL_MIN_WORK)
        attnc_parallel_for(kernel, args, tasks, 1, block, stride);
    else {
        Py_BEGIN_ALLOW_THREADS
        attnc_parallel_for(kernel, args, tasks, threads, block, stride);
        Py_END_ALLOW_THREADS
    }
    attnc_release(block);
    return 0;
}

int attnc_run_product(const attnc_call *c, const attnc_product *p)
{
    const attnc_kernels *k = c->kernels;
    return run(k->product, p, k->product_tasks(p), (double)p->M * (double)p->N * (double)p->K,
               k->product_scratch(p));
}

int attnc_run_normalize(attnc_call *c, const attnc_normalize *a, int backward)
{
    const attnc_kernels *k = c->kernels;
    return run(backward ? k->normalize_bwd : k->normalize_fwd, a, a->lead.count,
               (double)a->lead.count * (double)a->T * (double)a->D * 4, 0);
}

int attnc_run_cross_entropy(const attnc_call *c, const attnc_cross_entropy *a, int backward)
{
    const attnc_kernels *k = c->kernels;
    return run(backward ? k->cross_entropy_bwd : k->cross_entropy_fwd, a,
               (a->rows + ATTNC_LOSS_ROWS - 1) / ATTNC_LOSS_ROWS,
               (double)a->rows * (double)a->classes * 8, 0);
}

static ptrdiff_t divide_up(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

/* Time of one pass over all pairs, as far as shapes tell, in multiply-adds. With a few queries what
 * counts is how fast keys and values are read. */
static double pair_work(const attnc_call *c)
{
    const attnc_attention *a = &c->a;
    const int few = a->Tq <= c->kernels->few_queries;
    const double channel = few ? 10 : 1, tanh = few ? 40 : 10;
    const double score = (a->score == ATTNC_ADDITIVE ? tanh : channel) * (double)a->D;
    const double pairs = (double)a->lead.count * (double)a->Tq * (double)a->Tk;
    return pairs * (score + channel * (double)a->Dv + 8) * (a->causal && !few ? 0.5 : 1);
}

/* ---- forward ---- */

/* A new array (lead, Tq) or, with columns >= 0, (lead, Tq, columns) of the computing dtype. */
static PyArrayObject *new_rows(const attnc_call *c, ptrdiff_t columns)
{
    npy_intp shape[NPY_MAXDIMS];
    int ndim = c->a.lead.ndim;
    for (int d = 0; d < ndim; d++)
        shape[d] = c->a.lead.shape[d];
    shape[ndim++] = c->a.Tq;
    if (columns >= 0)
        shape[ndim++] = columns;
    return attnc_new_array(ndim, shape, real_type(c), 0);
}

static int run_forward(attnc_call *c, int save)
{
    attnc_attention *a = &c->a;
    /* Additive scores are the dear ones. Where they take no more memory than the query does,
     * backward reads them instead of computing them again. */
    const int save_scores = save && a->score == ATTNC_ADDITIVE && a->Tk <= a->D;
    const int save_context = save && !c->kernels->whole_rows(a->Tk);
    a->scale = c->scale_value;
    if (!(c->context = new_rows(c, a->Dv)) || (c->return_lse && !(c->lse = new_rows(c, -1))) ||
        (c->return_weights && !(c->weights = new_rows(c, a->Tk))) ||
        (save_context && !(c->saved_context = new_rows(c, a->Dv))) ||
        (save && !(c->stats = new_rows(c, 2))) ||
        (save_scores && !(c->saved_scores = new_rows(c, a->Tk))))
        return -1;
    a->context = PyArray_DATA(c->context);
    /* A copy, because the caller may write to the context it gets. */
    a->context_copy = save_context ? PyArray_DATA(c->saved_context) : NULL;
    a->lse = c->lse ? PyArray_DATA(c->lse) : NULL;
    a->weights = c->weights ? PyArray_DATA(c->weights) : NULL;
    a->stats = c->stats ? PyArray_DATA(c->stats) : NULL;
    a->scores_copy = c->saved_scores ? PyArray_DATA(c->saved_scores) : NULL;

    if (PyArray_SIZE(c->context) == 0 && !c->lse && !c->weights && !save)
        return 0; /* nothing to write, even if there are 2^40 elements of it */

    /* Packing the keys pays over many queries, but every thread wants some tasks. */
    const attnc_kernels *k = c->kernels;
    ptrdiff_t blocks = divide_up(a->Tq, k->query_block), share = 8;
    while (share > 1 && a->lead.count * divide_up(blocks, share) < 4 * attnc_get_num_threads())
        share /= 2;
    a->query_chunk = share * k->query_block;
    a->key_splits = a->Tq <= k->few_queries ? k->segments(a->Tk) : 1;
    const ptrdiff_t tasks = a->lead.count * divide_up(a->Tq, a->query_chunk) * a->key_splits;
    const size_t scratch = k->attention_scratch(a, 0);
    if (a->key_splits > 1) {
        const ptrdiff_t row = divide_up(a->Dv, k->lanes) * k->lanes + 2 * k->lanes;
        if (!(a->parts = attnc_block(c, a->lead.count * a->key_splits * a->Tq * row)))
            return -1;
    }
    if (run(k->attention_fwd, a, tasks, pair_work(c), scratch) < 0)
        return -1;
    if (a->key_splits == 1)
        return 0;
    return run(k->attention_merge, a, a->lead.count,
               (double)a->lead.count * (double)(a->key_splits * a->Tq * a->Dv), scratch);
}

/* A new reference to the array in the dtype of the results. */
static PyObject *in_output_dtype(const attnc_call *c, PyArrayObject *array)
{
    if (!c->output)
        return Py_NewRef((PyObject *)array);
    return attnc_narrowed(array, c->output);
}

static PyObject *forward_result(const attnc_call *c)
{
    PyObject *context = NULL, *weights = NULL, *lse = NULL, *result = NULL;
    if (!(context = in_output_dtype(c, c->context)) ||
        (c->weights && !(weights = in_output_dtype(c, c->weights))))
        goto done;
    /* The lse stays in the computing dtype: rounded to a half it could not be merged. */
    lse = c->lse ? Py_NewRef((PyObject *)c->lse) : NULL;
    if (c->stats) {
        PyObject *saved = PyTuple_Pack(3, c->saved_context ? (PyObject *)c->saved_context : Py_None,
                                       (PyObject *)c->stats,
                                       c->saved_scores ? (PyObject *)c->saved_scores : Py_None);
        if (saved)
            result =
                PyTuple_Pack(4, context, weights ? weights : Py_None, lse ? lse : Py_None, saved);
        Py_XDECREF(saved);
    }
    else if (weights && lse)
        result = PyTuple_Pack(3, context, weights, lse);
    else if (weights || lse)
        result = PyTuple_Pack(2, context, weights ? weights : lse);
    else
        result = Py_NewRef(context);
done:
    Py_XDECREF(context);
    Py_XDECREF(weights);
    Py_XDECREF(lse);
    return result;
}

/* ---- backward ---- */

/* The array (lead, Tq, N) of `saved`, made by the forward call and passed back untouched. */
static const void *saved_array(const attnc_call *c, PyObject *object, ptrdiff_t N)
{
    PyArrayObject *array = (PyArrayObject *)object;
    const attnc_lead *lead = &c->a.lead;
    if (!PyArray_Check(object) || PyArray_TYPE(array) != real_type(c) ||
        !PyArray_IS_C_CONTIGUOUS(array) || PyArray_NDIM(array) != lead->ndim + 2 ||
        PyArray_DIM(array, lead->ndim) != c->a.Tq || PyArray_DIM(array, lead->ndim + 1) != N)
        return NULL;
    for (int d = 0; d < lead->ndim; d++)
        if (PyArray_DIM(array, d) != lead->shape[d])
            return NULL;
    return PyArray_DATA(array);
}

static int read_state(attnc_call *c, PyObject *saved)
{
    attnc_attention *a = &c->a;
    if (PyTuple_Check(saved) && PyTuple_Size(saved) == 3) {
        PyObject *context = PyTuple_GetItem(saved, 0), *scores = PyTuple_GetItem(saved, 2);
        const int no_context = context == Py_None && c->kernels->whole_rows(a->Tk);
        a->saved_context = saved_array(c, context, a->Dv);
        a->saved_stats = saved_array(c, PyTuple_GetItem(saved, 1), 2);
        a->saved_scores = saved_array(c, scores, a->Tk);
        if (a->saved_stats && (a->saved_context || no_context) &&
            (a->saved_scores || scores == Py_None))
            return 0;
    }
    return attnc_fail(c, PyExc_ValueError, "saved must be what the forward call saved");
}

static int read_backward(attnc_call *c, PyObject *const *args)
{
    attnc_attention *a = &c->a;
    const int lead = a->lead.ndim;
    npy_intp shape[NPY_MAXDIMS];
    for (int d = 0; d < lead; d++)
        shape[d] = a->lead.shape[d];
    shape[lead] = a->Tq;
    a->scale = c->scale_value;
    if (!c->return_lse && args[D_LSE] != Py_None)
        return attnc_fail(c, PyExc_ValueError,
                          "dlse must be None unless return_lse=True was asked for");
    if (!c->return_weights && args[D_WEIGHTS] != Py_None)
        return attnc_fail(c, PyExc_ValueError,
                          "dweights must be None unless return_weights=True was asked for");
    if (attnc_read_gradient(c, args[D_LSE], "dlse", "lse", lead + 1, shape, &c->lse) < 0)
        return -1;
    shape[lead + 1] = a->Tk;
    if (attnc_read_gradient(c, args[D_WEIGHTS], "dweights", "weights", lead + 2, shape,
                            &c->weights) < 0)
        return -1;
    shape[lead + 1] = a->Dv;
    if (read_state(c, args[SAVED]) < 0 ||
        attnc_read_gradient(c, args[D_CONTEXT], "dcontext", "context", lead + 2, shape,
                            &c->context) < 0)
        return -1;
    const attnc_operand gradients[] = {{.array = c->context}, {.array = c->weights}};
    if (c->context)
        attnc_view_of(c, &gradients[0], &a->dcontext);
    if (c->weights)
        attnc_view_of(c, &gradients[1], &a->dweights);
    if (c->lse) {
        npy_intp size = PyArray_ITEMSIZE(c->lse);
        a->dlse.data = PyArray_DATA(c->lse);
        for (int d = 0; d < lead; d++)
            a->dlse.lead[d] = PyArray_STRIDE(c->lse, d) / size;
        a->dlse.row = PyArray_STRIDE(c->lse, lead) / size;
    }
    return 0;
}

void *attnc_want(attnc_call *c, attnc_gradients *g, const attnc_operand *operand)
{
    attnc_gradient *new = &g->list[g->count++];
    *new = (attnc_gradient){operand, NULL};
    if (!operand->array)
        return NULL;
    /* Kernels skip the tiles of scores and bias that are not allowed; all else they write whole. */
    const int zeroed = operand == &c->scores || operand == &c->bias;
    new->array = attnc_new_array(PyArray_NDIM(operand->array), PyArray_DIMS(operand->array),
                                 real_type(c), zeroed);
    if (!new->array)
        g->failed = 1;
    return new->array ? PyArray_DATA(new->array) : NULL;
}

/* The gradients as a tuple, each in its argument's dtype, None where there is no argument. */
static PyObject *gradients_result(attnc_gradients *g)
{
    PyObject *result = PyTuple_New(g->count);
    for (int k = 0; result && k < g->count; k++) {
        const attnc_operand *operand = g->list[k].operand;
        PyObject *gradient = Py_NewRef(Py_None);
        if (g->list[k].array) {
            ATTNC_REPLACE(gradient, Py_NewRef((PyObject *)g->list[k].array));
            if (operand->dtype)
                ATTNC_REPLACE(gradient, attnc_narrowed(g->list[k].array, operand->dtype));
        }
        if (!gradient || PyTuple_SetItem(result, k, gradient) < 0)
            Py_CLEAR(result);
    }
    return result;
}

/* Which elements of lead an operand's own leading element stands for: first[u] + group[0..]. */
typedef struct {
    ptrdiff_t U, G, *first, *group;
    attnc_lead own;
} own_map;

/* Every sum over the axes in `axes`, in C order: out[k] = sum of coordinate * stride. */
static void enumerate(const attnc_lead *lead, const ptrdiff_t *axes_shape, ptrdiff_t count,
                      ptrdiff_t *out)
{
    for (ptrdiff_t k = 0; k < count; k++) {
        ptrdiff_t rest = k, stride = 1, offset = 0;
        for (int d = lead->ndim - 1; d >= 0; d--) {
            offset += rest % axes_shape[d] * stride;
            rest /= axes_shape[d];
            stride *= lead->shape[d];
        }
        out[k] = offset;
    }
}

static int map_own(attnc_call *c, const attnc_operand *operand, own_map *map)
{
    const attnc_lead *lead = &c->a.lead;
    ptrdiff_t others[ATTNC_MAX_LEAD];
    map->own.ndim = lead->ndim;
    map->U = map->G = 1;
    for (int d = 0; d < lead->ndim; d++) {
        map->own.shape[d] = PyArray_DIM(operand->array, d);
        others[d] = map->own.shape[d] == 1 ? lead->shape[d] : 1;
        map->U *= map->own.shape[d];
        map->G *= others[d];
    }
    map->own.count = map->U;
    map->first = block_of_bytes(c, (size_t)map->U, sizeof(ptrdiff_t));
    map->group = map->first ? block_of_bytes(c, (size_t)map->G, sizeof(ptrdiff_t)) : NULL;
    if (!map->group)
        return -1;
    enumerate(lead, map->own.shape, map->U, map->first);
    enumerate(lead, others, map->G, map->group);
    return 0;
}

static int run_sum(attnc_call *c, attnc_sum s, const own_map *map)
{
    s.U = map->U;
    s.own_first = map->first;
    s.group = map->group;
    s.group_count = map->G;
    return run(c->kernels->sum, &s, s.U * divide_up(s.rows, ATTNC_SUM_ROWS),
               (double)s.U * (double)map->G * (double)s.segments * (double)s.rows * (double)s.N, 0);
}

/* The gradient of a broadcast bias or scores, into its own shape. */
static int run_dbias(attnc_call *c, const attnc_operand *operand, const own_map *map, int of_scores,
                     void *out)
{
    attnc_attention a = c->a;
    int last = PyArray_NDIM(operand->array) - 1;
    a.dbroadcast = out;
    a.own_count = map->U;
    a.own_first = map->first;
    a.group = map->group;
    a.group_count = map->G;
    a.own_Tq = PyArray_DIM(operand->array, last - 1);
    a.own_Tk = PyArray_DIM(operand->array, last);
    a.of_scores = of_scores;
    return run(c->kernels->attention_dbias, &a,
               a.own_count * divide_up(a.own_Tq, c->kernels->bwd_query_block), 2 * pair_work(c),
               c->kernels->attention_scratch(&a, 1));
}

/* dscores or dbias: in the main pass where nothing broadcasts, else in a pass of its own. */
static int plan_direct(attnc_call *c, const attnc_operand *operand, void *target, own_map *map,
                       void **direct)
{
    if (!target)
        return 0;
    int last = PyArray_NDIM(operand->array) - 1;
    if (map_own(c, operand, map) < 0)
        return -1;
    if (map->G == 1 && PyArray_DIM(operand->array, last - 1) == c->a.Tq &&
        PyArray_DIM(operand->array, last) == c->a.Tk)
        *direct = target;
    return 0;
}

static void store_scale_gradient(const attnc_call *c, void *target, double dscale)
{
    if (target && c->f32)
        *(float *)target = (float)dscale;
    else if (target)
        *(double *)target = dscale;
}

int attnc_run_backward(attnc_call *c, const attnc_gradients *g, attnc_gradient_targets *targets)
{
    if (g->failed)
        return -1;
    attnc_attention *a = &c->a;
    const attnc_kernels *k = c->kernels;
    const int projected = a->score != ATTNC_GIVEN;
    const ptrdiff_t N = a->lead.count, Dp = divide_up(a->D, k->lanes) * k->lanes;
    const size_t scratch = k->attention_scratch(a, 1);
    own_map query, key, value, bias, scores;
    a->segments = k->segments(a->Tk);

    if (map_own(c, &c->value, &value) < 0 ||
        plan_direct(c, &c->bias, targets->bias, &bias, &a->dbias) < 0 ||
        plan_direct(c, &c->scores, targets->scores, &scores, &a->dscores) < 0)
        return -1;
    a->dvalue = value.G == 1 ? targets->value : attnc_block(c, N * a->Tk * a->Dv);
    if (!a->dvalue || (!k->whole_rows(a->Tk) && !(a->delta = attnc_block(c, N * a->Tq))))
        return -1;
    if (projected) {
        if (map_own(c, &c->query, &query) < 0 || map_own(c, &c->key, &key) < 0)
            return -1;
        a->dkey = key.G == 1 ? targets->key : attnc_block(c, N * a->Tk * a->D);
        a->dquery_whole = a->segments == 1 && query.G == 1 && a->D == Dp && !c->scale.array;
        a->dquery_parts =
            a->dquery_whole ? targets->query : attnc_block(c, N * a->segments * a->Tq * Dp);
        if (!a->dkey || !a->dquery_parts)
            return -1;
    }
    if (a->score == ATTNC_ADDITIVE &&
        !(a->dscore_vector_parts = attnc_block(c, N * a->segments * Dp)))
        return -1;

    if (!k->whole_rows(a->Tk) &&
        run(k->attention_delta, a, N * divide_up(a->Tq, k->bwd_query_block),
            a->dweights.data ? pair_work(c) : (double)N * (double)a->Tq * (double)a->Dv,
            scratch) < 0)
        return -1;
    if (run(k->attention_bwd, a, N * a->segments, 2.5 * pair_work(c), scratch) < 0)
        return -1;
    if (targets->bias && !a->dbias && run_dbias(c, &c->bias, &bias, 0, targets->bias) < 0)
        return -1;
    if (targets->scores && !a->dscores && run_dbias(c, &c->scores, &scores, 1, targets->scores) < 0)
        return -1;

    if (value.G != 1 && run_sum(c,
                                (attnc_sum){.out = targets->value,
                                            .parts = a->dvalue,
                                            .rows = a->Tk,
                                            .N = a->Dv,
                                            .ld = a->Dv,
                                            .segments = 1,
                                            .factor = 1},
                                &value) < 0)
        return -1;
    if (!projected)
        return 0;
    if (key.G != 1 && run_sum(c,
                              (attnc_sum){.out = targets->key,
                                          .parts = a->dkey,
                                          .rows = a->Tk,
                                          .N = a->D,
                                          .ld = a->D,
                                          .segments = 1,
                                          .factor = 1},
                              &key) < 0)
        return -1;

    double *row_dot = NULL, dscale = 0;
    if (c->scale.array && !(row_dot = block_of_bytes(c, (size_t)(query.U * a->Tq), sizeof(double))))
        return -1;
    attnc_sum sum = {.out = targets->query,
                     .row_dot = row_dot,
                     .parts = a->dquery_parts,
                     .columns = a->score == ATTNC_ADDITIVE ? a->score_vector : NULL,
                     /* its strides serve its own shape too: axes of size 1 have stride 0 */
                     .with = &a->query,
                     .with_lead = &query.own,
                     .rows = a->Tq,
                     .N = a->D,
                     .ld = Dp,
                     .segments = a->segments,
                     .factor = a->score == ATTNC_DOT ? a->scale : 1};
    if (!a->dquery_whole && run_sum(c, sum, &query) < 0)
        return -1;
    for (ptrdiff_t r = 0; row_dot && r < query.U * a->Tq; r++)
        dscale += row_dot[r];
    store_scale_gradient(c, targets->scale, dscale);

    if (a->score != ATTNC_ADDITIVE)
        return 0;
    /* one vector for all elements: its group is all of lead */
    ptrdiff_t zero = 0;
    own_map all = {.U = 1, .G = N, .first = &zero};
    if (!(all.group = block_of_bytes(c, (size_t)N, sizeof(ptrdiff_t))))
        return -1;
    for (ptrdiff_t n = 0; n < N; n++)
        all.group[n] = n;
    return run_sum(c,
                   (attnc_sum){.out = targets->score_vector,
                               .parts = a->dscore_vector_parts,
                               .rows = 1,
                               .N = a->D,
                               .ld = Dp,
                               .segments = a->segments,
                               .factor = 1},
                   &all);
}

/* ---- a whole call ---- */

PyObject *attnc_forward(const attnc_mechanism *m, PyObject *const *args, Py_ssize_t count)
{
    attnc_call c = {.function = m->name};
    PyObject *result = NULL;
    if (attnc_check_count(m->name, count, m->arrays + OPTIONS + 1) < 0)
        return NULL;
    const int save = args[count - 1] == Py_True;
    if (m->read(&c, args) == 0 && m->prepare(&c) == 0 && run_forward(&c, save) == 0)
        result = forward_result(&c);
    call_end(&c);
    return result;
}

PyObject *attnc_backward(const attnc_mechanism *m, PyObject *const *args, Py_ssize_t count)
{
    attnc_call c = {.function = m->name};
    attnc_gradients g = {0};
    PyObject *result = NULL;
    if (attnc_check_count(m->name, count, BACKWARD_FIRST + m->arrays + OPTIONS) < 0)
        return NULL;
    if (m->read(&c, args + BACKWARD_FIRST) == 0 && read_backward(&c, args) == 0 &&
        m->prepare(&c) == 0 && m->backward(&c, &g) == 0)
        result = gradients_result(&g);
    for (int k = 0; k < g.count; k++)
        Py_XDECREF((PyObject *)g.list[k].array);
    call_end(&c);
    return result;
}
