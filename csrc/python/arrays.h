/* arrays: the new arrays of a call, what it returns and what it keeps for backward.
 *
 * NumPy hands the memory of a middle-sized array back to the system when the array goes, and the
 * next one then pays for its pages again, which takes longer than many a call. So these arrays get
 * the memory that scratch.c keeps, through NumPy's own interface for that (NEP 49): they own their
 * data like any other.
 *
 * defines: attnc_arrays_init, attnc_new_array, attnc_stored_as, attnc_narrowed, attnc_floats,
 *          attnc_optional_floats
 */
#ifndef ATTNC_ARRAYS_H
#define ATTNC_ARRAYS_H

#include "args.h"

/* Once, when the module is imported. -1 on error. */
int attnc_arrays_init(void);

/* C-contiguous, zeroed or not filled; or NULL with an error. */
PyArrayObject *attnc_new_array(int ndim, const npy_intp *shape, int type, int zeroed);

/* For functions whose arguments Python has checked: *data is that of a C-contiguous array of *type,
 * float or double, with so many numbers. size -1: any; *type NPY_NOTYPE: either, and it becomes the
 * one that it is. Returns 0, or -1 without an error set. The second takes None too: data NULL. */
int attnc_floats(PyObject *object, int *type, ptrdiff_t size, void **data);
int attnc_optional_floats(PyObject *object, int *type, ptrdiff_t size, void **data);

/* How numbers of a real type that attnc_read accepts lie in memory. */
attnc_stored attnc_stored_as(int type);

/* A new reference to a contiguous array: the array itself if it is of that dtype, else its numbers
 * in it; or NULL. Floats are rounded to float16 or bfloat16 whatever numpy.errstate says of it. */
PyObject *attnc_narrowed(PyArrayObject *array, PyArray_Descr *dtype);

#endif
