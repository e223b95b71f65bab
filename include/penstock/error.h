/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PENSTOCK_ERROR_H
#define PENSTOCK_ERROR_H
/*
 * Results of libpenstock. Functions return PENSTOCK_OK (0) or one of these, which are negative; what they
 * hand back through a pointer is written on success only, unless their comment says otherwise.
 *
 * The first five are the exit codes of penstock(1), negated; the word in the comment is the name, which for
 * what the control API knows too is its code (docs/API.md). Values are never changed or used again; new
 * ones may be added.
 *
 * Threads: any. Nothing of this library exits, aborts, prints on its own account, raises or handles a
 * signal, or changes the environment; errno is left as it was.
 */
#ifdef __cplusplus
extern "C" {
#endif

/* X(constant, value, name, text) */
#define PENSTOCK_ERRORS(X)                                                                                             \
	X(PENSTOCK_OK, 0, "ok", "success")                                                                             \
	X(PENSTOCK_ERR_FAILED, -1, "internal", "a system call failed, or there was no host memory")                    \
	X(PENSTOCK_ERR_INVALID, -2, "field-invalid", "an argument, a field or its value is not valid")                 \
	X(PENSTOCK_ERR_UNREACHABLE, -3, "unreachable", "the daemon cannot be reached")                                 \
	X(PENSTOCK_ERR_REFUSED, -4, "refused", "the contract, its token or the daemon does not allow it")              \
	X(PENSTOCK_ERR_NOT_FOUND, -5, "no-such-object", "there is no such device, contract or file")                   \
	X(PENSTOCK_ERR_NO_CONTRACT, -16, "no-contract", "this process is not under a contract; nothing was done")      \
	X(PENSTOCK_ERR_NO_DEVICE, -17, "no-device", "this process uses no device under its contract yet")              \
	X(PENSTOCK_ERR_TOO_MANY, -18, "too-many", "as many are open at once as there may be")                          \
	X(PENSTOCK_ERR_NOT_OPEN, -19, "not-open", "the handle was ended before, or is another process's")              \
	X(PENSTOCK_ERR_OUT_OF_MEMORY, -20, "out-of-memory", "the contract's device memory is used up")                 \
	X(PENSTOCK_ERR_STOPPED, -21, "stopped", "the contract has ended, or the device is lost")

enum penstock_error {
#define PENSTOCK_X_(constant, value, name, text) constant = value,
	PENSTOCK_ERRORS(PENSTOCK_X_)
#undef PENSTOCK_X_
	/* Not a result: makes the type wide enough for those to come. */
	PENSTOCK_ERR_LAST_ = -32767
};

/*
 * English text of a result, for a log: never NULL, constant, also for a value that this version does not
 * know.
 */
const char *penstock_strerror(int error);

/* Its name, "no-contract": for output that a program reads. Never NULL ("unknown"), constant. */
const char *penstock_error_name(int error);

/* Version of the library that runs, "0.1.0". Constant. */
const char *penstock_version(void);

#ifdef __cplusplus
}
#endif

#endif
