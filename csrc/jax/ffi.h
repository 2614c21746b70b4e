/* ffi: the part of XLA's C interface for foreign functions that handlers need: version 0.3, as in
 * xla/ffi/api/c_api.h of jaxlib, so that the extension is built without it. XLA promises to read
 * what was built with an older version for a year at least; a struct grows at its end alone, and
 * its first field says how large it is. tests/test_jax_ffi.py holds every size and offset here
 * against the header of the jaxlib that is installed.
 *
 * defines: attnc_ffi_*, ATTNC_FFI_*
 */
#ifndef ATTNC_FFI_H
#define ATTNC_FFI_H

#include <stddef.h>
#include <stdint.h>

enum { ATTNC_FFI_MAJOR = 0, ATTNC_FFI_MINOR = 3 };

/* Dtypes of buffers and scalars that attnc knows. */
enum {
    ATTNC_FFI_PRED = 1,
    ATTNC_FFI_S8 = 2,
    ATTNC_FFI_S16 = 3,
    ATTNC_FFI_S32 = 4,
    ATTNC_FFI_S64 = 5,
    ATTNC_FFI_U8 = 6,
    ATTNC_FFI_U16 = 7,
    ATTNC_FFI_U32 = 8,
    ATTNC_FFI_U64 = 9,
    ATTNC_FFI_F16 = 10,
    ATTNC_FFI_F32 = 11,
    ATTNC_FFI_F64 = 12,
    ATTNC_FFI_BF16 = 16
};

enum { ATTNC_FFI_METADATA = 1 }; /* a type of extension */
enum { ATTNC_FFI_EXECUTE = 3 };  /* a stage of a call */
enum { ATTNC_FFI_BUFFER = 1 };   /* a type of argument and of result */
enum { ATTNC_FFI_ARRAY = 1, ATTNC_FFI_SCALAR = 3, ATTNC_FFI_STRING = 4 }; /* of attributes */
enum { ATTNC_FFI_INVALID_ARGUMENT = 3, ATTNC_FFI_RESOURCE_EXHAUSTED = 8 };

typedef struct attnc_ffi_error attnc_ffi_error;     /* XLA's own */
typedef struct attnc_ffi_context attnc_ffi_context; /* the same: of one execution */

typedef struct attnc_ffi_extension {
    size_t struct_size;
    int type;
    struct attnc_ffi_extension *next;
} attnc_ffi_extension;

typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    int major, minor;
} attnc_ffi_version;

/* How XLA asks a handler for what it was built with. */
typedef struct {
    size_t struct_size;
    attnc_ffi_version version;
    uint32_t traits;
    int64_t state_type_id;
} attnc_ffi_metadata;
typedef struct {
    attnc_ffi_extension extension;
    attnc_ffi_metadata *metadata;
} attnc_ffi_metadata_extension;

/* ---- values ---- */

/* An array, C-contiguous. */
typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    int dtype;
    void *data;
    int64_t rank;
    int64_t *dims;
} attnc_ffi_buffer;

typedef struct {
    const char *data; /* without a 0 at the end */
    size_t size;
} attnc_ffi_span; /* a string, and the name of an attribute */
typedef struct {
    int dtype;
    void *value;
} attnc_ffi_scalar;
typedef struct {
    int dtype;
    size_t size;
    void *data;
} attnc_ffi_array;

/* Arguments, and results: of what type each is, and where. */
typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    int64_t size;
    int *types;
    void **values;
} attnc_ffi_values;

/* Attributes: constants of the program, sorted by name. */
typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    int64_t size;
    int *types;
    attnc_ffi_span **names;
    void **values;
} attnc_ffi_attributes;

/* ---- what a handler may call ---- */

typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    const char *message;
    int code;
} attnc_ffi_error_create_args;
typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    attnc_ffi_error *error;
} attnc_ffi_error_destroy_args;
typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    attnc_ffi_context *context;
    void (*task)(void *data);
    void *data;
} attnc_ffi_schedule_args;
typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    attnc_ffi_context *context;
    int64_t *threads;
} attnc_ffi_num_threads_args;

typedef void (*attnc_ffi_unused)(void);
typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    attnc_ffi_version version;
    const void *internal;
    attnc_ffi_error *(*error_create)(attnc_ffi_error_create_args *args);
    attnc_ffi_unused error_get_message;
    void (*error_destroy)(attnc_ffi_error_destroy_args *args);
    attnc_ffi_unused handler_register, stream_get, type_register, context_get, state_set, state_get;
    attnc_ffi_unused memory_allocate, memory_free;
    attnc_ffi_error *(*schedule)(attnc_ffi_schedule_args *args);
    attnc_ffi_error *(*num_threads)(attnc_ffi_num_threads_args *args);
} attnc_ffi_api;

/* ---- a call ---- */

typedef struct {
    size_t struct_size;
    attnc_ffi_extension *extensions;
    const attnc_ffi_api *api;
    attnc_ffi_context *context;
    int stage;
    attnc_ffi_values arguments, results;
    attnc_ffi_attributes attributes;
} attnc_ffi_call; /* longer in the header, by what handlers may leave alone */

/* NULL: all went well. */
typedef attnc_ffi_error *attnc_ffi_handler(attnc_ffi_call *call);

#endif
