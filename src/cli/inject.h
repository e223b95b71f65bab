/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CLI_INJECT_H
#define PEN_CLI_INJECT_H
/*
 * What gets into a program's way under `penstock run`: environment variables that its loaders read, and nothing else. For
 * OpenCL the name of a layer; for CUDA a folder, first in LD_LIBRARY_PATH, in which libcuda.so.1 and libnvidia-ml.so.1 are ours.
 * Single-threaded, as the command line is.
 */
#include "base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

/* Why the shim goes untrimmed: programs then see names that the driver beside it lacks, and get the driver's "not found" late. */
#define PEN_UNTRIMMED(X)                                                                    \
	X(NO, "")                                                                           \
	X(TOOL, N_("penstock-cuda-trim is not beside penstock"))                            \
	X(FAILED, N_("penstock-cuda-trim failed"))                                          \
	X(FOLDER, N_("there is no runtime directory that only you can write to"))           \
	X(NOEXEC, N_("the runtime directory is mounted noexec"))
enum pen_untrimmed {
#define X(id, text) PEN_UNTRIMMED_##id,
	PEN_UNTRIMMED(X)
#undef X
};

struct pen_cuda_paths {
	char driver[PATH_MAX];         /* the real libcuda.so.1; "" = none on this machine: then the rest is not looked for */
	char shim[PATH_MAX];           /* ours, as it is installed; "" = it is not */
	char view[PATH_MAX];           /* ours of libnvidia-ml.so.1; "" = likewise */
	char folders[2 * PATH_MAX];    /* what stands first in LD_LIBRARY_PATH; "" = nothing */
	enum pen_untrimmed untrimmed;
};

/* Looks, and where it must makes a trimmed copy of the shim below the user's runtime directory. Never fails: it says what it found. */
void pen_cuda_find(struct pen_cuda_paths *ret);
const char *pen_untrimmed_text(enum pen_untrimmed why);   /* translated */

/* Sets the variables for a program of the tenant in @dir. Return: 0; -ENOENT our library is missing; another negative errno. */
int pen_inject(const char *dir, struct pen_err *err);
/* Does all that miss @program, because the loader keeps our variables from it, or it has no loader? */
enum pen_doubt { PEN_DOUBT_NONE, PEN_DOUBT_PRIVILEGED, PEN_DOUBT_STATIC };
enum pen_doubt pen_inject_doubt(const char *program);

#endif
