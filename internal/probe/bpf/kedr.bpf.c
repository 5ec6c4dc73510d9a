/* SPDX-License-Identifier: GPL-2.0 */
/* One object of all programs: they share their maps and globals. */
#include "obtain.c"
#include "release.c"
#include "kprobe.c"
#include "note.c"
#include "trace.c"
#include "module.c"
#include "query.c"
#include "files.c"

char LICENSE[] SEC("license") = "GPL";
