/* arrays: see arrays.h. */
#include "arrays.h"

#include "../engine/calls.h"
#include "../engine/scratch.h"

#include <string.h>

/* ---- scratch.c as an allocator of NumPy's ---- */

static void *new_bytes(void *context, size_t bytes)
{
    (void)context;
    return attnc_allocate(bytes);
}

static void *new_zeros(void *context, size_t count, size_t size)
{
    size_t bytes;
    (void)context;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *block = attnc_allocate(bytes);
    return block ? memset(block, 0, bytes) : NULL;
}

/* ndarray.resize in place */
static void *resized(void *context, void *block, size_t bytes)
{
    (void)context;
    void *other = attnc_allocate(bytes);
    if (other && block) {
        const size_t there = attnc_block_size(block);
        memcpy(other, block, there < bytes ? there : bytes);
        attnc_release(block);
    }
    return other;
}

static void release(void *context, void *block, size_t bytes)
{
    (void)context, (void)bytes;
    attnc_release(block);
}

static PyDataMem_Handler handler = {
    .name = "attnc",
    .version = 1,
    .allocator = {NULL, new_bytes, new_zeros, resized, release},
};
static PyObject *capsule; /* of the handler; lives as long as the process */

int attnc_arrays_init(void)
{
    if (!capsule)
        capsule = PyCapsule_New(&handler, "mem_handler", NULL);
    return capsule ? 0 : -1;
}

/* ---- new arrays ---- */

static int is_kept(int ndim, const npy_intp *shape, int type)
{
    size_t bytes = attnc_stored_size(attnc_stored_as(type),
                                     type == NPY_FLOAT ? sizeof(float) : sizeof(double));
    for (int d = 0; d < ndim; d++)
        if (__builtin_mul_overflow(bytes, (size_t)shape[d], &bytes))
            return 0;
    return attnc_is_kept(bytes);
}

static PyObject *new_array(int ndim, const npy_intp *shape, int type, int zeroed)
{
    return zeroed ? PyArray_ZEROS(ndim, shape, type, 0) : PyArray_SimpleNew(ndim, shape, type);
}

PyArrayObject *attnc_new_array(int ndim, const npy_intp *shape, int type, int zeroed)
{
    PyObject *array = NULL, *before = PyDataMem_GetHandler();
    if (!before)
        return NULL;
    if (before != PyDataMem_DefaultHandler || !is_kept(ndim, shape, type))
        array = new_array(ndim, shape, type, zeroed); /* an allocator that the user chose stays */
    else {
        PyObject *same = PyDataMem_SetHandler(capsule);
        if (same)
            array = new_array(ndim, shape, type, zeroed);
        PyObject *ours = same ? PyDataMem_SetHandler(before) : NULL;
        if (!ours)
            Py_CLEAR(array);
        Py_XDECREF(same);
        Py_XDECREF(ours);
    }
    Py_DECREF(before);
    return (PyArrayObject *)array;
}

/* ---- arrays that Python has checked ---- */

int attnc_floats(PyObject *object, int *type, ptrdiff_t size, void **data)
{
    if (!PyArray_Check(object) || !PyArray_ISCARRAY_RO((PyArrayObject *)object))
        return -1;
    PyArrayObject *array = (PyArrayObject *)object;
    const int found = PyArray_TYPE(array);
    if ((found != NPY_FLOAT && found != NPY_DOUBLE) || (*type != NPY_NOTYPE && *type != found) ||
        (size >= 0 && PyArray_SIZE(array) != size))
        return -1;
    *type = found;
    *data = PyArray_DATA(array);
    return 0;
}

int attnc_optional_floats(PyObject *object, int *type, ptrdiff_t size, void **data)
{
    *data = NULL;
    return object == Py_None ? 0 : attnc_floats(object, type, size, data);
}

/* ---- half precision ---- */

attnc_stored attnc_stored_as(int type)
{
    if (type == NPY_HALF)
        return ATTNC_FLOAT16;
    return PyTypeNum_ISUSERDEF(type) ? ATTNC_BFLOAT16 : ATTNC_AS_COMPUTED;
}

PyObject *attnc_narrowed(PyArrayObject *array, PyArray_Descr *dtype)
{
    const attnc_stored stored = attnc_stored_as(dtype->type_num);
    if (dtype->type_num == PyArray_TYPE(array))
        return Py_NewRef((PyObject *)array);
    if (PyArray_TYPE(array) != NPY_FLOAT || stored == ATTNC_AS_COMPUTED) {
        Py_INCREF((PyObject *)dtype); /* which is stolen */
        return PyArray_CastToType(array, dtype, 0);
    }
    PyArrayObject *result =
        attnc_new_array(PyArray_NDIM(array), PyArray_DIMS(array), dtype->type_num, 0);
    if (!result)
        return NULL;
    const attnc_narrow n = {.out = {PyArray_DATA(result), stored},
                            .x = PyArray_DATA(array),
                            .count = PyArray_SIZE(array)};
    if (attnc_call_narrow(&n, NULL) == 0)
        return (PyObject *)result;
    Py_DECREF((PyObject *)result);
    return PyErr_NoMemory();
}
