/* SPDX-License-Identifier: GPL-2.0 */
#include <linux/types.h>

typedef void *kedr_obtain_t(size_t size);
typedef void kedr_release_t(void *p);

void *kedr_west_obtain(size_t size);
void *kedr_west_jump(size_t size);
void kedr_west_release(void *p);
void kedr_west_ask(kedr_obtain_t *obtain, kedr_release_t *release);
