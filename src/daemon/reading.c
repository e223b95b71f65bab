/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/reading.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BYTES_MAX (INT64_C(1) << 56)
#define PID_MAX (INT64_C(1) << 22)   /* of the kernel on 64-bit machines */

const json_t *pen_reading_open(const char *line, size_t len, json_t **ret_root, const char **ret_error, struct pen_err *err)
{
	json_error_t e;
	json_t *root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &e);
	const char *schema = json_string_value(json_object_get(root, "schema"));
	const json_t *devices = json_object_get(root, "devices");
	if (schema && !strcmp(schema, PEN_READING_SCHEMA) && json_is_array(devices)) {
		*ret_root = root;
		*ret_error = json_string_value(json_object_get(root, "error"));
		return devices;
	}
	pen_err_x(err, -EINVAL, "%s", root ? "another schema" : e.text);
	json_decref(root);
	return NULL;
}

static bool number(const json_t *o, const char *key, json_int_t least, json_int_t most, json_int_t *ret)
{
	const json_t *v = json_object_get(o, key);
	if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most)
		return false;
	*ret = json_integer_value(v);
	return true;
}

static int32_t small(const json_t *o, const char *key, json_int_t least, json_int_t most)
{
	json_int_t v;
	return number(o, key, least, most, &v) ? (int32_t)v : PEN_READING_NONE;
}

static bool bytes(const json_t *o, const char *key, uint64_t *ret)
{
	json_int_t v;
	*ret = 0;
	if (!number(o, key, 0, BYTES_MAX, &v))
		return false;
	*ret = (uint64_t)v;
	return true;
}

/* A process may be on the list of those that compute and on that of those that draw: the figures are of the whole process. */
static bool merge(struct pen_reading_device *d, const struct pen_reading_process *p)
{
	for (unsigned i = 0; i < d->n_processes; i++) {
		struct pen_reading_process *q = &d->process[i];
		if (q->pid != p->pid)
			continue;
		q->mem_bytes = q->mem_bytes > p->mem_bytes ? q->mem_bytes : p->mem_bytes;
		q->has_mem |= p->has_mem;
		q->sm_util = q->sm_util > p->sm_util ? q->sm_util : p->sm_util;
		q->enc_util = q->enc_util > p->enc_util ? q->enc_util : p->enc_util;
		q->dec_util = q->dec_util > p->dec_util ? q->dec_util : p->dec_util;
		return true;
	}
	return false;
}

static void add(struct pen_reading_device *d, const struct pen_reading_process *p)
{
	if (merge(d, p))
		return;
	if (d->n_processes < PEN_READING_PROCESSES) {
		d->process[d->n_processes++] = *p;
		return;
	}
	struct pen_reading_process *smallest = &d->process[0];
	for (unsigned i = 1; i < PEN_READING_PROCESSES; i++)
		if (d->process[i].mem_bytes < smallest->mem_bytes)
			smallest = &d->process[i];
	d->n_left_out++;
	if (p->mem_bytes > smallest->mem_bytes)
		*smallest = *p;
}

static void read_process(const json_t *o, struct pen_reading_device *d)
{
	struct pen_reading_process p;
	json_int_t pid;
	if (!number(o, "pid", 1, PID_MAX, &pid))
		return;
	p.pid = (pid_t)pid;
	p.has_mem = bytes(o, "mem_bytes", &p.mem_bytes);
	p.sm_util = small(o, "sm_util", 0, 100);
	p.enc_util = small(o, "enc_util", 0, 100);
	p.dec_util = small(o, "dec_util", 0, 100);
	add(d, &p);
}

int pen_reading_device(const json_t *o, struct pen_reading_device *ret)
{
	const char *key = json_string_value(json_object_get(o, "key"));
	if (!key || !*key || strlen(key) >= sizeof(ret->key))
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->key, sizeof(ret->key), "%s", key);
	ret->has_used = bytes(o, "mem_used_bytes", &ret->mem_used_bytes);
	ret->lost = json_is_true(json_object_get(o, "lost"));
	ret->gpu_util = small(o, "gpu_util", 0, 100);
	ret->mem_util = small(o, "mem_util", 0, 100);
	ret->enc_util = small(o, "enc_util", 0, 100);
	ret->dec_util = small(o, "dec_util", 0, 100);
	ret->temperature_c = small(o, "temperature_c", 0, 200);
	ret->power_mw = small(o, "power_mw", 0, 10000000);
	ret->xid = small(o, "xid", 1, 100000);
	ret->xid_count = small(o, "xid_count", 0, INT32_MAX);
	ret->has_processes = json_is_array(json_object_get(o, "processes"));
	size_t i;
	json_t *v;
	json_array_foreach(json_object_get(o, "processes"), i, v)
		read_process(v, ret);
	return 0;
}
