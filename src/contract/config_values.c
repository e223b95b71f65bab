/* SPDX-License-Identifier: Apache-2.0 */
/* Values of node configuration: text to member and exactly back. */
#include "contract/config.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "contract/internal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <string.h>

#define TICK_MIN PEN_MS
#define TICK_MAX (100 * PEN_MS)
#define PERIOD_MIN (100 * PEN_MS)
#define PERIOD_MAX (60 * PEN_S)
#define QUANTUM_MIN PEN_MS
#define QUANTUM_MAX PEN_S
#define DB_SIZE_MIN PEN_MIB
#define DB_SIZE_MAX (PEN_GIB * 1024)
#define RESERVE_MAX (PEN_GIB * 1024)

static const char out_of_range[] = N_("is out of range");

/* A closed set of words: its parser, formatter and name function from its list. */
#define CHOICE(kind, type, count, name_fn, LIST) \
	static const char *const kind##_names[] = { LIST(PEN_X_) }; \
	static_assert(PEN_ARRAY_LEN(kind##_names) == (count), "one name per value"); \
	const char *name_fn(type v) \
	{ \
		return (size_t)v < PEN_ARRAY_LEN(kind##_names) ? kind##_names[v] : "?"; \
	} \
	int pen_value_parse_##kind(void *member, const char *s, const char **why) \
	{ \
		(void)why; \
		int i = pen_value_choice(kind##_names, PEN_ARRAY_LEN(kind##_names), s); \
		if (i < 0) \
			return i; \
		*(type *)member = (type)i; \
		return 0; \
	} \
	void pen_value_format_##kind(const void *member, char *buf, size_t n) \
	{ \
		snprintf(buf, n, "%s", name_fn(*(const type *)member)); \
	}

#define PEN_X_(id, name, ...) #name,
#define LEVELS(X) X(ERROR, error) X(WARN, warn) X(INFO, info) X(DEBUG, debug)
CHOICE(order, enum pen_order, PEN_ORDER_MAX_, pen_order_name, PEN_ORDERS)
CHOICE(share, enum pen_share, PEN_SHARE_MAX_, pen_share_name, PEN_SHARES)
CHOICE(rate, enum pen_rate, PEN_RATE_MAX_, pen_rate_name, PEN_RATES)
CHOICE(mode, enum pen_mode, PEN_RUN_MAX_, pen_mode_name, PEN_MODES)
CHOICE(unknown, enum pen_unknown, PEN_UNKNOWN_MAX_, pen_unknown_name, PEN_UNKNOWNS)
static const char *level_name(enum pen_log_level v);
CHOICE(level, enum pen_log_level, PEN_LOG_MAX_, level_name, LEVELS)
#undef PEN_X_

uint64_t pen_share_quantum_ns(enum pen_share v)
{
#define PEN_X_(id, name, quantum_ms) (quantum_ms) * PEN_MS,
	static const uint64_t quantum_ns[] = { PEN_SHARES(PEN_X_) };
#undef PEN_X_
	return quantum_ns[(size_t)v < PEN_ARRAY_LEN(quantum_ns) ? v : 0];
}

static int parse_between(int (*parse)(const char *s, uint64_t *ret), const char *s, uint64_t min, uint64_t max,
			 uint64_t *ret, const char **why)
{
	uint64_t v;
	int r = parse(s, &v);
	if (r == 0 && (v < min || v > max))
		r = -ERANGE;
	if (r == -ERANGE)
		*why = out_of_range;
	if (r == 0)
		*ret = v;
	return r;
}

int pen_value_parse_tick(void *member, const char *s, const char **why)
{
	return parse_between(pen_parse_duration, s, TICK_MIN, TICK_MAX, member, why);
}

void pen_value_format_tick(const void *member, char *buf, size_t n)
{
	pen_exact_duration(buf, n, *(const uint64_t *)member);
}

int pen_value_parse_period(void *member, const char *s, const char **why)
{
	return parse_between(pen_parse_duration, s, PERIOD_MIN, PERIOD_MAX, member, why);
}

void pen_value_format_period(const void *member, char *buf, size_t n)
{
	pen_exact_duration(buf, n, *(const uint64_t *)member);
}

int pen_value_parse_quantum(void *member, const char *s, const char **why)
{
	return parse_between(pen_parse_duration, s, QUANTUM_MIN, QUANTUM_MAX, member, why);
}

void pen_value_format_quantum(const void *member, char *buf, size_t n)
{
	pen_exact_duration(buf, n, *(const uint64_t *)member);
}

int pen_value_parse_max_size(void *member, const char *s, const char **why)
{
	return parse_between(pen_parse_bytes, s, DB_SIZE_MIN, DB_SIZE_MAX, member, why);
}

void pen_value_format_max_size(const void *member, char *buf, size_t n)
{
	pen_exact_bytes(buf, n, *(const uint64_t *)member);
}

int pen_value_parse_reserve(void *member, const char *s, const char **why)
{
	return parse_between(pen_parse_bytes, s, 0, RESERVE_MAX, member, why);
}

void pen_value_format_reserve(const void *member, char *buf, size_t n)
{
	pen_exact_bytes(buf, n, *(const uint64_t *)member);
}

/* Digits only; false also above @max. */
static bool parse_uint(const char *s, unsigned long max, unsigned long *ret)
{
	size_t len = strspn(s, "0123456789");
	if (!len || len > 9 || s[len])
		return false;
	unsigned long v = strtoul(s, NULL, 10);
	*ret = v;
	return v <= max;
}

int pen_value_parse_days(void *member, const char *s, const char **why)
{
	unsigned long v;
	(void)why;
	if (!parse_uint(s, 3650, &v) || v < 1)
		return -EINVAL;
	*(uint32_t *)member = (uint32_t)v;
	return 0;
}

void pen_value_format_days(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%u", *(const uint32_t *)member);
}

int pen_value_parse_path(void *member, const char *s, const char **why)
{
	size_t len = strlen(s);
	if (s[0] != '/')
		return -EINVAL;
	if (len > PEN_CONFIG_PATH_MAX) {
		*why = N_("is too long");
		return -EINVAL;
	}
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return -EINVAL;
	memcpy(member, s, len + 1);
	return 0;
}

void pen_value_format_path(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", (const char *)member);
}

int pen_value_parse_path_or_auto(void *member, const char *s, const char **why)
{
	if (strcmp(s, "auto"))
		return pen_value_parse_path(member, s, why);
	*(char *)member = 0;
	return 0;
}

void pen_value_format_path_or_auto(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", *(const char *)member ? (const char *)member : "auto");
}

int pen_value_parse_path_or_none(void *member, const char *s, const char **why)
{
	if (strcmp(s, "none"))
		return pen_value_parse_path(member, s, why);
	*(char *)member = 0;
	return 0;
}

void pen_value_format_path_or_none(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", *(const char *)member ? (const char *)member : "none");
}

int pen_value_parse_path_list(void *member, const char *s, const char **why)
{
	char path[PEN_CONFIG_PATH_MAX + 1];
	if (strlen(s) > PEN_CONFIG_PATH_MAX) {
		*why = N_("is too long");
		return -EINVAL;
	}
	for (const char *at = s;; at++) {
		size_t len = strcspn(at, ":");
		char one[sizeof(path)];
		snprintf(one, sizeof(one), "%.*s", (int)len, at);
		if (pen_value_parse_path(path, one, why) < 0)
			return -EINVAL;
		at += len;
		if (!*at)
			break;
	}
	memcpy(member, s, strlen(s) + 1);
	return 0;
}

void pen_value_format_path_list(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", (const char *)member);
}

/* YAML's own words for it, and those that people type. */
int pen_value_parse_path_list_or_none(void *member, const char *s, const char **why)
{
	if (strcmp(s, "none"))
		return pen_value_parse_path_list(member, s, why);
	*(char *)member = 0;
	return 0;
}

void pen_value_format_path_list_or_none(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", *(const char *)member ? (const char *)member : "none");
}

int pen_value_parse_toggle(void *member, const char *s, const char **why)
{
	static const char *const words[] = { "false", "true", "no", "yes", "off", "on" };
	int i = pen_value_choice(words, PEN_ARRAY_LEN(words), s);
	(void)why;
	if (i < 0)
		return i;
	*(bool *)member = i & 1;
	return 0;
}

void pen_value_format_toggle(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", *(const bool *)member ? "true" : "false");
}

int pen_value_parse_domain(void *member, const char *s, const char **why)
{
	static const char reserved[] = "kubernetes.io";
	size_t len = strlen(s), own = sizeof(reserved) - 1;
	if (!pen_dns_name(s, len) || len > 127)
		return -EINVAL;
	if (len >= own && !strcmp(s + len - own, reserved) && (len == own || s[len - own - 1] == '.')) {
		*why = N_("is Kubernetes' own");
		return -EINVAL;
	}
	memcpy(member, s, len + 1);
	return 0;
}

void pen_value_format_domain(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", (const char *)member);
}

int pen_value_parse_unix_group(void *member, const char *s, const char **why)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t len = strlen(s);
	(void)why;
	if (!len || len > 31 || s[0] == '-' || strspn(s, allowed) != len)
		return -EINVAL;
	snprintf(member, 32, "%s", strcmp(s, "none") ? s : "");
	return 0;
}

void pen_value_format_unix_group(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", *(const char *)member ? (const char *)member : "none");
}

int pen_value_parse_lease(void *member, const char *s, const char **why)
{
	return parse_between(pen_parse_duration, s, PEN_S, 86400 * PEN_S, member, why);
}

void pen_value_format_lease(const void *member, char *buf, size_t n)
{
	pen_exact_duration(buf, n, *(const uint64_t *)member);
}

int pen_value_parse_interval(void *member, const char *s, const char **why)
{
	return parse_between(pen_parse_duration, s, PEN_S, 3600 * PEN_S, member, why);
}

void pen_value_format_interval(const void *member, char *buf, size_t n)
{
	pen_exact_duration(buf, n, *(const uint64_t *)member);
}

/* Numbers only: a name would have to be resolved, and the answer may change between check and use. */
int pen_value_parse_listen(void *member, const char *s, const char **why)
{
	char host[48];
	unsigned char addr[sizeof(struct in6_addr)];
	unsigned long port;
	const char *colon = strrchr(s, ':');

	(void)why;
	if (!strcmp(s, "none")) {
		*(char *)member = 0;
		return 0;
	}
	if (!colon || !parse_uint(colon + 1, 65535, &port) || port == 0)
		return -EINVAL;
	size_t len = (size_t)(colon - s);
	bool v6 = len >= 2 && s[0] == '[' && s[len - 1] == ']';
	if (len >= sizeof(host))
		return -EINVAL;
	memcpy(host, s + v6, len - 2 * v6);
	host[len - 2 * v6] = 0;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, host, addr) != 1)
		return -EINVAL;
	snprintf(member, 64, "%s", s);
	return 0;
}

void pen_value_format_listen(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", *(const char *)member ? (const char *)member : "none");
}

int pen_value_parse_pods(void *member, const char *s, const char **why)
{
	if (!strcmp(s, "auto")) {
		memcpy(member, "auto", 5);
		return 0;
	}
	return *s == '[' ? -EINVAL : pen_value_parse_listen(member, s, why);   /* kubelets listen on IPv4 */
}

void pen_value_format_pods(const void *member, char *buf, size_t n)
{
	pen_value_format_listen(member, buf, n);
}
