/* call: see call.h. */
#include "call.h"

#include <string.h>

int attnc_ffi_answers(attnc_ffi_call *call)
{
    for (attnc_ffi_extension *e = call->extensions; e; e = e->next)
        if (e->type == ATTNC_FFI_METADATA) {
            attnc_ffi_version *version = &((attnc_ffi_metadata_extension *)e)->metadata->version;
            version->major = ATTNC_FFI_MAJOR;
            version->minor = ATTNC_FFI_MINOR;
            return 1;
        }
    return call->stage != ATTNC_FFI_EXECUTE;
}

attnc_ffi_error *attnc_ffi_fail(const attnc_ffi_call *call, int code, const char *message)
{
    attnc_ffi_error_create_args args = {sizeof args, NULL, message, code};
    return call->api->error_create(&args);
}

const void *attnc_ffi_attribute(const attnc_ffi_call *call, const char *name, int type)
{
    const attnc_ffi_attributes *all = &call->attributes;
    for (int64_t k = 0; k < all->size; k++)
        if (all->names[k]->size == strlen(name) &&
            memcmp(all->names[k]->data, name, all->names[k]->size) == 0)
            return all->types[k] == type ? all->values[k] : NULL;
    return NULL;
}

const void *attnc_ffi_array_attribute(const attnc_ffi_call *call, const char *name, size_t *size)
{
    const attnc_ffi_array *array = attnc_ffi_attribute(call, name, ATTNC_FFI_ARRAY);
    if (!array || array->dtype != ATTNC_FFI_S64)
        return NULL;
    *size = array->size;
    return array->data;
}

int64_t attnc_ffi_bits(const attnc_ffi_call *call, const char *name)
{
    const attnc_ffi_scalar *scalar = attnc_ffi_attribute(call, name, ATTNC_FFI_SCALAR);
    int64_t bits = -1;
    if (scalar && scalar->dtype == ATTNC_FFI_S64)
        memcpy(&bits, scalar->value, sizeof bits);
    return bits < 0 ? -1 : bits;
}
