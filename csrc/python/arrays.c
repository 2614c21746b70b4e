/* arrays: see arrays.h. */
#include "arrays.h"

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
    size_t bytes = type == NPY_FLOAT ? sizeof(float) : sizeof(double);
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

/* ---- half precision ---- */

/* The 16 bits of a float32 that bfloat16 keeps, rounded to nearest, ties to even. */
static uint16_t bfloat16_of(uint32_t bits)
{
    if ((bits & 0x7fffffff) > 0x7f800000) /* NaN: quiet, with its sign */
        return (uint16_t)((bits >> 16 & 0x8000) | 0x7fc0);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* A float32 as float16, rounded to nearest, ties to even. */
static uint16_t float16_of(uint32_t bits)
{
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) /* NaN */
        return (uint16_t)(sign | 0x7e00);
    if (size >= 0x477ff000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (size >= 0x38800000) { /* 2^-14 and above: normal numbers, 13 bits go */
        const uint32_t rebased = size - ((127 - 15) << 23);
        return (uint16_t)(sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
    }
    if (size < 0x33000000) /* below 2^-25: 0 */
        return (uint16_t)sign;
    /* subnormal: the mantissa, with its leading 1, in units of 2^-24 */
    const int shift = 126 - (int)(size >> 23); /* 14 .. 24 */
    const uint32_t mantissa = (size & 0x7fffff) | 0x800000, half = 1u << (shift - 1);
    const uint32_t kept = mantissa >> shift, rest = mantissa & (2 * half - 1);
    return (uint16_t)(sign | (kept + (rest > half || (rest == half && (kept & 1)))));
}

PyObject *attnc_narrowed(PyArrayObject *array, PyArray_Descr *dtype)
{
    if (dtype->type_num == PyArray_TYPE(array))
        return Py_NewRef((PyObject *)array);
    Py_INCREF((PyObject *)dtype); /* what is called below steals it */
    if (PyArray_TYPE(array) != NPY_FLOAT || PyDataType_ELSIZE(dtype) != 2)
        return PyArray_CastToType(array, dtype, 0);
    PyObject *result = PyArray_Empty(PyArray_NDIM(array), PyArray_DIMS(array), dtype, 0);
    const uint32_t *from = PyArray_DATA(array);
    uint16_t *to = result ? PyArray_DATA((PyArrayObject *)result) : NULL;
    const int is_float16 = dtype->type_num == NPY_HALF;
    for (npy_intp k = 0; result && k < PyArray_SIZE(array); k++)
        to[k] = is_float16 ? float16_of(from[k]) : bfloat16_of(from[k]);
    return result;
}
