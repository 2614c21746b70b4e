/* options: the options that all attention functions share, named once in C: a table of their names,
 * their defaults and who reads them. masks.c reads those that are arrays of the call's axes,
 * offsets.c those that make a packed batch of it.
 *
 * defines: ATTNC_OPTIONS, attnc_options_init, attnc_option_defaults, attnc_option_of,
 *          attnc_option_of_pairs, attnc_option_given, attnc_read_options, attnc_fit_options,
 *          attnc_fit_*, attnc_place_of, attnc_read_key, attnc_check_packed, attnc_copy_integers,
 *          attnc_boolean_mask
 */
#ifndef ATTNC_OPTIONS_H
#define ATTNC_OPTIONS_H

#include "args.h"

enum { ATTNC_OPTIONS = 20 };

/* Once, when the module is imported. -1 on error. */
int attnc_options_init(void);
/* A dict of names and defaults, in the order in which they are documented. */
PyObject *attnc_option_defaults(PyObject *module, PyObject *none);
/* The place of the option of that name, or -1. */
int attnc_option_of(PyObject *name);
/* Whether the option in that place says which pairs are allowed, and no more. */
int attnc_option_of_pairs(int k);
/* The object of the option of that name, or NULL where it says no more than the default. */
PyObject *attnc_option_given(PyObject *const *options, const char *name);

/* Both take the objects by place, NULL: not given; or NULL, where there are none. The first reads
 * what needs no shape, before the arrays are converted; the second the rest, against the shapes of
 * the arrays. */
int attnc_read_options(attnc_call *c, PyObject *const *options);
int attnc_fit_options(attnc_call *c, PyObject *const *options);

/* masks, bias, slope, sink and center (masks.c): full rank, axes of size 1 broadcast */
int attnc_fit_mask(attnc_call *c, PyObject *mask);
int attnc_fit_key_mask(attnc_call *c, PyObject *key_mask);
int attnc_fit_key_lengths(attnc_call *c, PyObject *key_lengths);
int attnc_fit_query_lengths(attnc_call *c, PyObject *query_lengths);
int attnc_fit_causal_offset(attnc_call *c, PyObject *causal_offset);
int attnc_fit_bias(attnc_call *c, PyObject *bias);
int attnc_fit_slope(attnc_call *c, PyObject *slope);
int attnc_fit_sink(attnc_call *c, PyObject *sink);
int attnc_fit_center(attnc_call *c, PyObject *center);

/* hard attention (masks.c): the keys to be chosen, full rank; and which query `at` is */
int attnc_fit_index(attnc_call *c, PyObject *index);
PyObject *attnc_place_of(const attnc_call *c, npy_intp at);
/* A 64-bit key of random numbers, an integer (options.c). */
int attnc_read_key(attnc_call *c, PyObject *rng, uint64_t *key);

/* offsets of sequences (offsets.c): 1-D, for all leading axes */
int attnc_fit_query_offsets(attnc_call *c, PyObject *query_offsets);
int attnc_fit_key_offsets(attnc_call *c, PyObject *key_offsets);
/* Of a packed batch: that no option is given that has no meaning there. */
int attnc_check_packed(attnc_call *c, PyObject *const *options);
/* Replaces an array of integers by a copy in int64; what is beyond that is cut to 2^60. */
int attnc_copy_integers(PyArrayObject **array);

/* For Python: boolean_mask(where, name, value, shape, axes), an array of bools. */
PyObject *attnc_boolean_mask(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
