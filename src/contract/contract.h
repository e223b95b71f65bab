/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CONTRACT_CONTRACT_H
#define PEN_CONTRACT_CONTRACT_H
/*
 * A contract: what one tenant was promised. Parsed, validated, printed, compared and admitted here and nowhere else:
 * options of the command line, `penstock set`, YAML files and the JSON of the control API all go through
 * pen_contract_set(), so that one spelling means one thing everywhere.
 *
 * One grammar for memory, compute, bandwidth (whose guarantee nothing could keep yet: cap only) and units:
 *   X      guaranteed and capped at X            X..Y   guaranteed X, capped at Y
 *   X..    guaranteed X, may borrow everything   ..Y    cap only
 *   unlimited   neither                          a lower bound without unit takes the upper one's: 1..2G, 30..60%
 *
 * Units in memory: bytes, parts per million of one device, bytes per second, nanoseconds.
 * Threading: plain data, no globals; a contract belongs to whoever holds it. Lifetime: the struct owns nothing, copy it
 * by assignment. Library: base, libyaml, jansson; not for use inside a tenant's process.
 */
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define PEN_NAME_MAX 63          /* [a-z0-9][a-z0-9._-]{0,62}: also a directory and a DNS-like label */
#define PEN_DEVICE_MAX 127
#define PEN_VALUE_TEXT 160       /* every field's text fits, with its terminator */
#define PEN_UNLIMITED UINT64_MAX
#define PEN_CONTRACT_FILE_MAX (UINT32_C(1) << 20)   /* bytes of any configuration file */

/* Spelling in files, constant. Urgent = LATENCY. */
#define PEN_CLASSES(X) \
	X(LATENCY, "latency")       \
	X(NORMAL, "normal")         \
	X(BESTEFFORT, "besteffort")

#define PEN_X_(id, text) PEN_CLASS_##id,
enum pen_class { PEN_CLASSES(PEN_X_) PEN_CLASS_MAX_ };
#undef PEN_X_

struct pen_range64 {
	uint64_t guaranteed;   /* 0 = nothing promised */
	uint64_t cap;          /* PEN_UNLIMITED = no cap; else >= guaranteed and > 0 */
};

enum pen_units_kind {
	PEN_UNITS_NONE,      /* no spatial share asked for: range is {0, PEN_UNLIMITED} */
	PEN_UNITS_COUNT,     /* compute units of the device (cores, SMs, AI cores) */
	PEN_UNITS_PERCENT,   /* range in ppm of the device's units */
};

struct pen_units {
	enum pen_units_kind kind;
	struct pen_range64 range;
};

struct pen_contract {
	char name[PEN_NAME_MAX + 1];     /* "" = not named yet: `penstock run` and the daemon make one up */
	char device[PEN_DEVICE_MAX + 1]; /* UUID, PCI address or model name; "" = any */
	enum pen_class cls;
	int priority;                    /* 0..100, higher = more urgent among tenants of one class; default 50 */
	struct pen_range64 memory;       /* bytes */
	struct pen_range64 compute;      /* ppm of device time */
	struct pen_range64 bandwidth;    /* bytes/s; never guaranteed */
	struct pen_units units;
	uint64_t sla_ns;                 /* latency target of one request; 0 = none */
	uint32_t duty_ppm;               /* device time that a latency tenant says it will use; 0 = not declared */
	uint32_t set_mask;               /* bit (1u << enum pen_field): was set, is not a default */
};

/*
 * The fields, once. id/name, kind (how the text is parsed), member, changeable while the tenant runs, argument name for
 * help, default, allowed, help. Drives parser, printer, JSON, diff, command-line help and docs/config-reference.md.
 */
#define PEN_CONTRACT_FIELDS(X) \
	X(name, name, name, false, N_("NAME"), "", \
	  N_("1 to 63 of a-z 0-9 . _ -, first a letter or digit"), \
	  N_("name of the tenant; made up if it is not given")) \
	X(device, device, device, false, N_("DEVICE"), "any", \
	  N_("any, or up to 127 printable characters: UUID, PCI address or model name"), \
	  N_("device on which the tenant runs")) \
	X(class, class, cls, true, N_("CLASS"), "normal", \
	  N_("latency, normal or besteffort"), \
	  N_("latency tenants go first, besteffort tenants last")) \
	X(priority, priority, priority, true, N_("N"), "50", \
	  N_("0 to 100, higher is more urgent"), \
	  N_("order among tenants of one class")) \
	X(memory, bytes_range, memory, true, N_("X..Y"), "unlimited", \
	  N_("X, X..Y, X.., ..Y or unlimited, in sizes such as 512M or 4G (G = GiB), cap at least 4K"), \
	  N_("device memory")) \
	X(compute, share_range, compute, true, N_("X..Y"), "unlimited", \
	  N_("X, X..Y, X.., ..Y or unlimited, in per cent of one device, at most 100%"), \
	  N_("share of device time")) \
	X(bandwidth, rate_cap, bandwidth, true, N_("..Y"), "unlimited", \
	  N_("..Y or unlimited, in rates such as ..500MB/s or ..6GB/s (GB = 10^9 bytes)"), \
	  N_("bytes that copies and fills move per second; a cap only")) \
	X(units, units, units, true, N_("X..Y"), "unlimited", \
	  N_("X, X..Y, X.., ..Y or unlimited, as a count of 1 to 65536 or in per cent"), \
	  N_("compute units (cores, SMs) on which it runs; a change holds for queues made after it")) \
	X(sla, sla, sla_ns, true, N_("TIME"), "none", \
	  N_("none, or a time from 1us to 1h such as 20ms"), \
	  N_("latency target of one request")) \
	X(duty, duty, duty_ppm, true, N_("SHARE"), "none", \
	  N_("none, or a share of device time up to 100%, for class latency only"), \
	  N_("device time that a latency tenant says it will use; admission counts it like a guarantee"))

#define PEN_X_(id, ...) PEN_FIELD_##id,
enum pen_field { PEN_CONTRACT_FIELDS(PEN_X_) PEN_FIELD_MAX_ };
#undef PEN_X_

struct pen_contract_field {
	const char *name;
	bool live;             /* can be changed while the tenant runs */
	const char *arg;       /* argument name in option help; the last three: for gettext, English here */
	const char *deflt;     /* text that pen_contract_set() accepts; "" only for the name: none yet */
	const char *allowed;
	const char *help;
};

/* Iterates: i = 0, 1, ... until NULL. The order is that of the list above. */
const struct pen_contract_field *pen_contract_field(size_t i);
/* Return: index, enum pen_field; -ENOENT. */
int pen_contract_field_find(const char *name);

const char *pen_class_name(enum pen_class cls);
bool pen_name_valid(const char *name);

/* Accounted, unlimited, class normal. */
void pen_contract_init(struct pen_contract *c);

/**
 * pen_contract_set - parse one field
 * @value: text as a person writes it; "none", "unlimited" and "any" take a promise back where the field allows it
 *
 * @c is unchanged on failure. What concerns two fields (a duty without class latency) is pen_contract_validate()'s.
 * Return: 0; -ENOENT unknown field; -EINVAL, -ERANGE value. The text names field, value and what is allowed.
 */
int pen_contract_set(struct pen_contract *c, const char *field, const char *value, struct pen_err *err);
/* Back to the default; the field is then no longer set. */
int pen_contract_unset(struct pen_contract *c, const char *field, struct pen_err *err);
/* Exact text of a field: pen_contract_set() of it gives the same value. @n of PEN_VALUE_TEXT always suffices. */
char *pen_contract_get(const struct pen_contract *c, enum pen_field field, char *buf, size_t n);

/* Fields that contradict each other. Return: 0; -EINVAL. */
int pen_contract_validate(const struct pen_contract *c, struct pen_err *err);

/*
 * Weight among tenants that borrow: the compute guarantee; without one 10 % (besteffort: 1 %) of a device, at most the
 * cap. In ppm, never 0.
 */
uint32_t pen_contract_weight(const struct pen_contract *c);

/**
 * pen_contract_load_file - one contract, a YAML mapping of the fields above
 *
 * Unknown and doubled keys are errors. Validated. @err: "FILE:LINE: FIELD: what is wrong; allowed: ...".
 * Read with libyaml's document nodes, not libcyaml: a cyaml value has lost its line by the time the range grammar
 * sees it, and cyaml's own errors reach the caller only as several log lines.
 * Return: 0; -EINVAL, -ERANGE content; -EFBIG over 1 MiB; negative errno of open/read.
 */
int pen_contract_load_file(const char *path, struct pen_contract *ret_contract, struct pen_err *err);
/* As above from memory; @origin stands for the file name in messages. */
int pen_contract_load_bytes(const char *origin, const void *data, size_t len, struct pen_contract *ret_contract,
			    struct pen_err *err);

/* All fields as text (priority as a number), so that it reads back exactly. Return: new reference; NULL no memory. */
json_t *pen_contract_to_json(const struct pen_contract *c);
/*
 * Applies the object's members to @c (a full contract onto pen_contract_init(), or a change onto a live one); null
 * takes a field back to its default. All or nothing: @c is unchanged on failure. Validated.
 */
int pen_contract_from_json(struct pen_contract *c, const json_t *object, struct pen_err *err);
/*
 * Takes out the members that are no fields here: of a contract that was stored by another version, which must not end for
 * want of a field that said nothing.
 */
void pen_contract_json_prune(json_t *object);
/*
 * YAML that pen_contract_load_file() reads back. @indent spaces before each line. @all: also the fields that were not
 * set, marked "# default". Return: 0; -EIO.
 */
int pen_contract_print(const struct pen_contract *c, FILE *out, int indent, bool all);

/* A list of differences, for `set`, reload and events. Zero-initialise; pen_diff_clear() frees. */
struct pen_change {
	char *what;     /* field, e.g. "memory" or "contract 'cam1': memory" */
	char *from;     /* "" = was not there */
	char *to;       /* "" = is no longer there */
	bool restart;   /* takes effect only when the tenant, or for node keys the daemon, starts anew */
};
struct pen_diff {
	struct pen_change *v;
	size_t n;
};
int pen_diff_add(struct pen_diff *d, bool restart, const char *from, const char *to, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* One line each: "memory: 512M -> 1G". */
int pen_diff_print(const struct pen_diff *d, FILE *out);
void pen_diff_clear(struct pen_diff *d);

/* Appends the fields that differ. @prefix before the field's name, may be "". Return: 0; -ENOMEM. */
int pen_contract_diff(const struct pen_contract *old, const struct pen_contract *new, const char *prefix,
		      struct pen_diff *d);

/* What a device has to promise from. */
struct pen_capacity {
	uint64_t memory;      /* bytes */
	uint64_t reserve;     /* bytes that are promised to nobody (driver, contexts, the node's own use) */
	uint32_t units;       /* 0 = the device cannot be divided in space: a guarantee of units is refused */
	const uint64_t *taken;   /* bytes that each of the held has taken, above its guarantee too; NULL = not known */
};

/**
 * pen_contract_admit - can @new be kept beside the contracts that the device has
 * @held:  contracts on the device; one of the same name as @new counts as replaced by it
 *
 * Memory: sum of guarantees, or of what is taken where that is more (it cannot be taken back), <= memory - reserve.
 * Compute: sum of max(guarantee, duty of class latency) <= 100 %: a declared duty is use of the same time as the guarantee,
 * not more on top. Units as memory.
 * Return: 0; -EAGAIN not beside these (waiting can help); -ERANGE never on this device. The text says what is asked,
 * what is left, and who holds how much.
 */
int pen_contract_admit(const struct pen_contract *const *held, size_t n_held, const struct pen_capacity *cap,
		       const struct pen_contract *new, struct pen_err *err);

/* Units of @u on a device with @units of them; per cent are rounded up. PEN_UNLIMITED stays. */
struct pen_range64 pen_units_on(const struct pen_units *u, uint32_t units);

#endif
