/* dispatch: which set of kernels runs here.
 *
 * defines: attnc_kernels_for, attnc_isa_count, attnc_isa_name, attnc_isa_current, attnc_isa_select
 */
#ifndef ATTNC_DISPATCH_H
#define ATTNC_DISPATCH_H

#include "../kernels.h"

/* The kernels in force for float (f32) or double. */
const attnc_kernels *attnc_kernels_for(int f32);

/* The instruction sets that this processor and build have, slowest first. */
int attnc_isa_count(void);
const char *attnc_isa_name(int index);

int attnc_isa_current(void);
void attnc_isa_select(int index);

#endif
