/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices as this tenant may see them: their records and keys, the gate of each, and compute units by sub-device.
 *
 * A platform is enumerated whole when its first device is met, because the key of a device without a PCI address or UUID
 * counts equal names in the platform's order, and the daemon's probe counts in the same way.
 */
#include "shim/opencl/cl.h"

#include "base/auto.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct pen_cl_device *devices[PEN_CL_DEVICES];
static _Atomic uint32_t ndevices;
static struct pen_forklock devices_lock = PEN_FORKLOCK_INIT;

/* A value of fixed size, or @fallback when the driver does not know the question. */
static uint64_t info_u64(cl_device_id id, cl_device_info what, size_t size, uint64_t fallback)
{
	uint64_t v = 0;   /* little endian: a shorter answer fills the low bytes */
	if (BELOW(clGetDeviceInfo)(id, what, size, &v, NULL) != CL_SUCCESS)
		return fallback;
	return v;
}

static void info_text(cl_device_id id, cl_device_info what, char *buf, size_t n)
{
	char tmp[1024];
	size_t got = 0;
	buf[0] = 0;
	if (BELOW(clGetDeviceInfo)(id, what, sizeof(tmp), tmp, &got) != CL_SUCCESS || got > sizeof(tmp))
		return;
	tmp[sizeof(tmp) - 1] = 0;
	size_t len = strnlen(tmp, n - 1);
	memcpy(buf, tmp, len);
	buf[len] = 0;
}

/* "OpenCL 3.0 ..." -> 30. */
static unsigned version_of(const char *text)
{
	if (strncmp(text, "OpenCL ", 7) || text[7] < '1' || text[7] > '9' || text[8] != '.' || text[9] < '0' || text[9] > '9')
		return 10;
	return (unsigned)(text[7] - '0') * 10 + (unsigned)(text[9] - '0');
}

unsigned pen_cl_platform_version(cl_platform_id p)
{
	char text[256] = "";
	if (BELOW(clGetPlatformInfo)(p, CL_PLATFORM_VERSION, sizeof(text) - 1, text, NULL) != CL_SUCCESS)
		return 10;
	return version_of(text);
}

static bool has_extension(cl_device_id id, const char *name)
{
	size_t n = 0;
	if (BELOW(clGetDeviceInfo)(id, CL_DEVICE_EXTENSIONS, 0, NULL, &n) != CL_SUCCESS || !n)
		return false;
	char *text = calloc(1, n + 1);
	bool found = false;
	if (text && BELOW(clGetDeviceInfo)(id, CL_DEVICE_EXTENSIONS, n, text, NULL) == CL_SUCCESS) {
		size_t len = strlen(name);
		for (const char *at = text; (at = strstr(at, name)) && !found; at += len)
			found = (at == text || at[-1] == ' ') && (at[len] == ' ' || !at[len]);
	}
	free(text);
	return found;
}

static void find_pci(cl_device_id id, struct pen_devkey_facts *f)
{
	if (has_extension(id, "cl_khr_pci_bus_info")) {
		struct { cl_uint domain, bus, device, function; } at;
		if (BELOW(clGetDeviceInfo)(id, 0x410F, sizeof(at), &at, NULL) == CL_SUCCESS) {
			f->has_pci = 1;
			f->pci_domain = at.domain;
			f->pci_bus = at.bus;
			f->pci_device = at.device;
			f->pci_function = at.function;
		}
	} else if (has_extension(id, "cl_nv_device_attribute_query")) {
		uint64_t none = UINT64_MAX, bus = info_u64(id, 0x4008, sizeof(cl_uint), none);
		uint64_t slot = info_u64(id, 0x4009, sizeof(cl_uint), none);
		if (bus != none && slot != none) {
			f->has_pci = 1;
			f->pci_domain = (uint32_t)info_u64(id, 0x400A, sizeof(cl_uint), 0);
			f->pci_bus = (uint32_t)bus;
			f->pci_device = (uint32_t)(slot >> 3);     /* the vendor packs device and function */
			f->pci_function = (uint32_t)(slot & 7);
		}
	}
	if (has_extension(id, "cl_khr_device_uuid") &&
	    BELOW(clGetDeviceInfo)(id, CL_DEVICE_UUID_KHR, sizeof(f->uuid), f->uuid, NULL) == CL_SUCCESS)
		f->has_uuid = 1;
}

/* Oclgrind answers a partition with an error, rusticl crashes on it: ask first. */
static bool find_can_partition(cl_device_id id, unsigned version)
{
	cl_device_partition_property props[8] = { 0 };
	size_t got = 0;
	if (version < 12 || info_u64(id, CL_DEVICE_PARTITION_MAX_SUB_DEVICES, sizeof(cl_uint), 0) < 2)
		return false;
	if (BELOW(clGetDeviceInfo)(id, CL_DEVICE_PARTITION_PROPERTIES, sizeof(props), props, &got) != CL_SUCCESS)
		return false;
	for (size_t i = 0; i < got / sizeof(props[0]); i++)
		if (props[i] == CL_DEVICE_PARTITION_BY_COUNTS)
			return true;
	return false;
}

static void add_device(cl_platform_id platform, const char *platform_name, unsigned version, cl_device_id id)
{
	uint32_t n = atomic_load_explicit(&ndevices, memory_order_relaxed);
	for (uint32_t i = 0; i < n; i++)
		if (devices[i]->id == id)
			return;
	struct pen_cl_device *d = n < PEN_CL_DEVICES ? calloc(1, sizeof(*d)) : NULL;
	if (!d)
		return;
	char name[128], text[256];
	info_text(id, CL_DEVICE_NAME, name, sizeof(name));
	info_text(id, CL_DEVICE_VERSION, text, sizeof(text));
	d->id = id;
	d->platform = platform;
	d->version = version;
	d->device_version = PEN_MIN(version_of(text), version);
	snprintf(d->model, sizeof(d->model), "%s", name);
	snprintf(d->platform_name, sizeof(d->platform_name), "%s", platform_name);
	d->mem_bytes = info_u64(id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(cl_ulong), 0);
	d->max_alloc_bytes = info_u64(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(cl_ulong), 0);
	d->units = (uint32_t)info_u64(id, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof(cl_uint), 1);
	d->unified = info_u64(id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof(cl_bool), 0) != 0;
	d->timed = info_u64(id, CL_DEVICE_PROFILING_TIMER_RESOLUTION, sizeof(size_t), 0) != 0;
	d->can_partition = find_can_partition(id, version);
	atomic_init(&d->clock_offset, INT64_MAX);
	struct pen_devkey_facts f = { .api = "opencl", .platform = platform_name, .name = name };
	find_pci(id, &f);
	for (uint32_t i = 0; i < n; i++)
		if (!strcmp(devices[i]->platform_name, d->platform_name) && !strcmp(devices[i]->model, d->model))
			f.nth++;
	pen_devkey(d->key, &f);
	devices[n] = d;
	atomic_store_explicit(&ndevices, n + 1, memory_order_release);
}

static void add_platform(cl_platform_id platform)
{
	cl_device_id ids[PEN_CL_DEVICES];
	cl_uint n = 0;
	char name[128] = "";
	unsigned version = pen_cl_platform_version(platform);
	if (BELOW(clGetPlatformInfo)(platform, CL_PLATFORM_NAME, sizeof(name) - 1, name, NULL) != CL_SUCCESS)
		memcpy(name, "unknown", 8);
	if (BELOW(clGetDeviceIDs)(platform, CL_DEVICE_TYPE_ALL, PEN_CL_DEVICES, ids, &n) != CL_SUCCESS)
		n = 0;
	n = PEN_MIN(n, (cl_uint)PEN_CL_DEVICES);
	/* The lock is ours alone: no callback of a driver ends here. */
	pen_forklock_take(&devices_lock);
	for (cl_uint i = 0; i < n; i++)
		add_device(platform, name, version, ids[i]);
	pen_forklock_give(&devices_lock);
}

static struct pen_cl_device *known(cl_device_id id)
{
	uint32_t n = atomic_load_explicit(&ndevices, memory_order_acquire);
	for (uint32_t i = 0; i < n; i++)
		if (devices[i]->id == id)
			return devices[i];
	return NULL;
}

struct pen_cl_device *pen_cl_device(cl_device_id id)
{
	struct pen_cl_device *d = NULL;
	for (int depth = 0; id && depth < 8; depth++) {
		d = known(id);
		if (d)
			return d;
		cl_platform_id p = NULL;
		if (BELOW(clGetDeviceInfo)(id, CL_DEVICE_PLATFORM, sizeof(p), &p, NULL) != CL_SUCCESS)
			return NULL;
		add_platform(p);
		d = known(id);
		if (d)
			return d;
		cl_device_id parent = NULL;
		if (pen_cl_platform_version(p) >= 12)
			BELOW(clGetDeviceInfo)(id, CL_DEVICE_PARENT_DEVICE, sizeof(parent), &parent, NULL);
		if (!parent) {   /* a custom device: not among CL_DEVICE_TYPE_ALL */
			pen_forklock_take(&devices_lock);
			add_device(p, "custom", pen_cl_platform_version(p), id);
			pen_forklock_give(&devices_lock);
			return known(id);
		}
		id = parent;
	}
	return NULL;
}

struct pen_gate *pen_cl_gate(struct pen_cl_device *d)
{
	uint32_t state = atomic_load_explicit(&d->state, memory_order_acquire);
	if (state == 0) {
		/* clSetMemObjectDestructorCallback and event callbacks are 1.1: without them nothing can be counted. */
		int r = d->version < 11 ? -ENOTSUP : 0;
		struct pen_gate_device facts = { .key = d->key, .model = d->model, .mem_bytes = d->mem_bytes,
						 .units = d->units, .native = d };
		struct pen_gate *g = NULL;
		if (!r)
			r = pen_gate_open(&pen_cl_adapter, &facts, &g);
		pen_forklock_take(&d->lock);
		if (atomic_load_explicit(&d->state, memory_order_relaxed) == 0) {
			d->gate = r < 0 ? NULL : g;
			atomic_store_explicit(&d->state, d->gate ? 1 : 2, memory_order_release);
		}
		pen_forklock_give(&d->lock);
		state = atomic_load_explicit(&d->state, memory_order_acquire);
		if (state == 1) {
			const struct pen_terms *t = pen_gate_terms(d->gate);
			if (t && t->units)
				pen_cl_set_units(d, t->units);
		} else {
			pen_log(PEN_LOG_DEBUG, "opencl: %s is not for this tenant (%d)", d->key, r);
		}
	}
	return state == 1 ? d->gate : NULL;
}

/* ---- compute units --------------------------------------------------------------------------------------------- */

uint32_t pen_cl_units(struct pen_cl_device *d)
{
	uint32_t n = atomic_load_explicit(&d->sub_units, memory_order_relaxed);
	return n ? n : d->units;
}

int pen_cl_set_units(void *device, uint32_t units)
{
	struct pen_cl_device *d = device;
	if (units >= d->units || units == 0) {
		atomic_store(&d->sub_units, 0);
		atomic_store(&d->sub, NULL);
		return 0;
	}
	if (units == atomic_load(&d->sub_units))
		return 0;
	if (!d->can_partition)
		return -ENOTSUP;
	cl_device_partition_property props[] = { CL_DEVICE_PARTITION_BY_COUNTS, (cl_device_partition_property)units,
						 CL_DEVICE_PARTITION_BY_COUNTS_LIST_END, 0 };
	cl_device_id sub = NULL;
	cl_uint n = 0;
	if (BELOW(clCreateSubDevices)(d->id, props, 1, &sub, &n) != CL_SUCCESS || n != 1)
		return -ENOTSUP;
	/* An earlier sub-device is kept: queues of the application run on it. */
	atomic_store(&d->sub, sub);
	atomic_store(&d->sub_units, units);
	return 0;
}

cl_device_id pen_cl_queue_device(struct pen_cl_device *d, cl_device_id asked)
{
	cl_device_id sub = asked == d->id ? atomic_load(&d->sub) : NULL;
	return sub ? sub : asked;
}

/* ---- contexts --------------------------------------------------------------------------------------------------- */

/*
 * A record is never freed: charges point to it, and a context outlives its last release while objects hold it. A context
 * at the address of an old one with the same devices uses the old record, so their number stays small.
 */

static struct pen_map contexts;

/* Reads the devices of a context. False: one of them may not be used, or none is known. */
static bool fill_context(cl_context ctx, struct pen_cl_context *c)
{
	cl_device_id ids[PEN_CL_DEVICES];
	size_t got = 0;
	if (BELOW(clGetContextInfo)(ctx, CL_CONTEXT_DEVICES, sizeof(ids), ids, &got) != CL_SUCCESS)
		return false;
	c->version = 99;
	for (size_t i = 0; i < got / sizeof(ids[0]); i++) {
		struct pen_cl_device *d = pen_cl_device(ids[i]);
		if (!d || !pen_cl_gate(d))
			return false;
		uint32_t at = 0;
		while (at < c->ndevices && c->device[at] != d)
			at++;
		if (at == PEN_CL_CTX_DEVICES)
			return false;
		if (at == c->ndevices)
			c->device[c->ndevices++] = d;
		c->version = PEN_MIN(c->version, d->version);
	}
	return c->ndevices != 0;
}

static struct pen_cl_context *learn_context(cl_context ctx)
{
	struct pen_cl_context *old = pen_map_find(&contexts, ctx);
	struct pen_cl_context *c = calloc(1, sizeof(*c));
	if (!c || !fill_context(ctx, c)) {
		free(c);
		return NULL;
	}
	if (old && old->ndevices == c->ndevices && old->version == c->version &&
	    !memcmp(old->device, c->device, sizeof(c->device))) {
		free(c);
		return old;
	}
	if (pen_map_put(&contexts, ctx, c)) {
		free(c);
		return NULL;
	}
	return c;
}

struct pen_cl_context *pen_cl_context(cl_context ctx)
{
	struct pen_cl_context *c = pen_map_find(&contexts, ctx);
	return c || !ctx ? c : learn_context(ctx);
}

/* The loader gave us a fresh context, perhaps at the address of an old one. */
static cl_context admit_context(cl_context ctx, cl_int *err)
{
	if (learn_context(ctx))
		return ctx;
	BELOW(clReleaseContext)(ctx);
	return pen_cl_fail(err, CL_OUT_OF_RESOURCES);
}

cl_context pen_clCreateContext(const cl_context_properties *props, cl_uint n, const cl_device_id *ids,
			       void (CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user,
			       cl_int *err)
{
	cl_int code = CL_SUCCESS;
	cl_context ctx = BELOW(clCreateContext)(props, n, ids, notify, user, &code);
	if (err)
		*err = code;
	return ctx && code == CL_SUCCESS ? admit_context(ctx, err) : ctx;
}

static cl_platform_id platform_of(const cl_context_properties *props)
{
	for (; props && props[0]; props += 2)
		if (props[0] == CL_CONTEXT_PLATFORM)
			return (cl_platform_id)props[1];
	cl_platform_id first = NULL;
	BELOW(clGetPlatformIDs)(1, &first, NULL);
	return first;
}

cl_context pen_clCreateContextFromType(const cl_context_properties *props, cl_device_type type,
				       void (CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user,
				       cl_int *err)
{
	cl_int code = CL_SUCCESS;
	cl_context ctx = BELOW(clCreateContextFromType)(props, type, notify, user, &code);
	if (!ctx || code != CL_SUCCESS) {   /* PoCL 3.1 gives both a code and a pointer that is none */
		if (err)
			*err = code;
		return ctx;
	}
	if (learn_context(ctx)) {
		if (err)
			*err = code;
		return ctx;
	}
	/* The type covers a device that is not for this tenant: the same context with the others only. */
	BELOW(clReleaseContext)(ctx);
	cl_device_id ids[PEN_CL_DEVICES];
	cl_uint n = 0;
	if (pen_clGetDeviceIDs(platform_of(props), type, PEN_CL_DEVICES, ids, &n) != CL_SUCCESS || !n)
		return pen_cl_fail(err, CL_DEVICE_NOT_FOUND);
	return pen_clCreateContext(props, PEN_MIN(n, (cl_uint)PEN_CL_DEVICES), ids, notify, user, err);
}
