/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration, faults, trace, the dispatch table and what the ICD loader looks for. */
#include "nullicd.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct nl_config nl_config;
cl_icd_dispatch nl_dispatch;
bool nl_watched;
bool nl_instant;

static const struct {
	const char *name;
	unsigned version;
} functions[NL_FN_MAX_] = {
#define NL_ROW(fn, version) { #fn, version },
	NL_FUNCTIONS(NL_ROW)
#undef NL_ROW
#define NL_ROW(fn) { #fn, 0 },
		NL_EXTENSIONS(NL_ROW)
#undef NL_ROW
};

static struct {
	cl_int code;
	unsigned nth; /* 0: every call */
	_Atomic unsigned calls;
} faults[NL_FN_MAX_];
static int trace_fd = -1;

uint64_t nl_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t env_u64(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

static void read_faults(const char *list)
{
	char name[64];
	int code, used;

	while (list && sscanf(list, "%63[A-Za-z0-9]:%d%n", name, &code, &used) == 2) {
		unsigned nth = 0;

		list += used;
		if (*list == '@')
			nth = (unsigned)strtoul(list + 1, (char **)&list, 10);
		if (*list == ',')
			list++;
		for (size_t i = 0; i < NL_FN_MAX_; i++) {
			if (strcmp(functions[i].name, name) == 0) {
				faults[i].code = code;
				faults[i].nth = nth;
				nl_watched = true;
			}
		}
	}
}

static void read_config(void)
{
	const char *type = getenv("NULLICD_TYPE"), *trace = getenv("NULLICD_TRACE"),
		   *version = getenv("NULLICD_VERSION");

	nl_config = (struct nl_config){
		.cost_ns = env_u64("NULLICD_COST_NS", 0),
		.cost_group_ns = env_u64("NULLICD_COST_GROUP_NS", 0),
		.copy_ns_per_kb = env_u64("NULLICD_COPY_NS_PER_KB", 0),
		.mem_bytes = env_u64("NULLICD_MEM_MB", 16384) << 20,
		.resolution_ns = env_u64("NULLICD_RESOLUTION", 1),
		.ndevices = (unsigned)env_u64("NULLICD_DEVICES", 1),
		.units = (unsigned)env_u64("NULLICD_UNITS", 16),
		.version = 30,
		.lazy = env_u64("NULLICD_LAZY", 0) != 0,
		.unified = env_u64("NULLICD_UNIFIED", 0) != 0,
		.type = type && !strcmp(type, "cpu")           ? CL_DEVICE_TYPE_CPU
			: type && !strcmp(type, "accelerator") ? CL_DEVICE_TYPE_ACCELERATOR
							       : CL_DEVICE_TYPE_GPU,
	};
	nl_config.timed = nl_config.cost_ns || nl_config.cost_group_ns || nl_config.copy_ns_per_kb;
	if (version && version[0] >= '1' && version[0] <= '3' && version[1] == '.')
		nl_config.version = (unsigned)(version[0] - '0') * 10 + (unsigned)(version[2] - '0');
	if (nl_config.ndevices < 1 || nl_config.ndevices > 8)
		nl_config.ndevices = 1;
	if (trace && *trace) {
		trace_fd = open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		nl_watched = trace_fd >= 0;
	}
	read_faults(getenv("NULLICD_FAIL"));
	nl_instant = !nl_watched && !nl_config.timed && !nl_config.lazy && nl_config.version >= 21;
}

__attribute__((constructor)) static void nl_load(void)
{
	read_config();
#define NL_SLOT(fn, since) \
	if (nl_config.version >= (since)) \
		nl_dispatch.fn = nl_##fn;
	NL_FUNCTIONS(NL_SLOT)
#undef NL_SLOT
	nl_platform.o.dispatch = &nl_dispatch;
	for (unsigned i = 0; i < nl_config.ndevices; i++) {
		nl_devices[i].o = (struct nl_obj){
			.dispatch = &nl_dispatch, .magic = NL_MAGIC_DEVICE, .refs = 1, .life = 1
		};
		nl_devices[i].index = i;
		nl_devices[i].units = nl_config.units;
	}
}

cl_int nl_watch(enum nl_fn fn)
{
	unsigned call = atomic_fetch_add(&faults[fn].calls, 1) + 1;
	cl_int code = faults[fn].nth == 0 || faults[fn].nth == call ? faults[fn].code : 0;

	if (trace_fd >= 0)
		dprintf(trace_fd, code ? "%s = %d\n" : "%s\n", functions[fn].name, code);
	return code;
}

void nl_trace_range(cl_kernel kernel, cl_uint dim, const size_t *offset, const size_t *global,
		    const size_t *local)
{
	char line[256];
	int n = 0;

	if (trace_fd < 0)
		return;
	n = snprintf(line, sizeof(line), "range %s", kernel->info->name);
	for (cl_uint d = 0; d < dim; d++)
		n += snprintf(line + n, sizeof(line) - (size_t)n, " %zu+%zu/%zu", offset ? offset[d] : 0,
			      global[d], local ? local[d] : 0);
	line[n++] = '\n';
	/* one write, so that lines of several threads do not mix; a trace that cannot be written is only a test's loss */
	if (write(trace_fd, line, (size_t)n) < 0)
		nl_watched = nl_watched && errno == EINTR;
}

void *nl_fail(cl_int *ret_err, cl_int code)
{
	if (ret_err)
		*ret_err = code;
	return NULL;
}

void *nl_new(size_t bytes, uint32_t magic)
{
	struct nl_obj *o = calloc(1, bytes);

	if (o) {
		o->dispatch = &nl_dispatch;
		o->magic = magic;
		atomic_init(&o->refs, 1);
		atomic_init(&o->life, 1);
	}
	return o;
}

cl_int nl_put(const void *src, size_t bytes, size_t size, void *value, size_t *ret_size)
{
	if (value && size < bytes)
		return CL_INVALID_VALUE;
	if (value && bytes)
		memcpy(value, src, bytes);
	if (ret_size)
		*ret_size = bytes;
	return CL_SUCCESS;
}

cl_int nl_put_string(const char *s, size_t size, void *value, size_t *ret_size)
{
	return nl_put(s, strlen(s) + 1, size, value, ret_size);
}

size_t nl_list_length(const intptr_t *properties)
{
	size_t n = 0;

	if (!properties)
		return 0;
	while (properties[n])
		n += 2;
	return n + 1;
}

static void *extension_address(const char *name)
{
#define NL_ROW(fn) \
	if (!strcmp(name, #fn)) \
		return (void *)nl_##fn;
	NL_EXTENSIONS(NL_ROW)
#undef NL_ROW
	return NULL;
}

void *nl_clGetExtensionFunctionAddressForPlatform(cl_platform_id platform, const char *name)
{
	return NL_IS(platform, NL_MAGIC_PLATFORM) && name && nl_config.version >= 30 ? extension_address(name)
										     : NULL;
}

void *nl_clGetExtensionFunctionAddress(const char *name)
{
	return nl_clGetExtensionFunctionAddressForPlatform(&nl_platform, name);
}

/* The three names that an ICD exports. */
__attribute__((visibility("default"))) CL_API_ENTRY cl_int CL_API_CALL
clIcdGetPlatformIDsKHR(cl_uint n, cl_platform_id *platforms, cl_uint *ret_n)
{
	return nl_clGetPlatformIDs(n, platforms, ret_n);
}

__attribute__((visibility("default"))) CL_API_ENTRY cl_int CL_API_CALL
clGetPlatformInfo(cl_platform_id platform, cl_platform_info name, size_t size, void *value, size_t *ret_size)
{
	return nl_clGetPlatformInfo(platform, name, size, value, ret_size);
}

__attribute__((visibility("default"))) CL_API_ENTRY void *CL_API_CALL
clGetExtensionFunctionAddress(const char *name)
{
	if (name && !strcmp(name, "clIcdGetPlatformIDsKHR"))
		return (void *)clIcdGetPlatformIDsKHR;
	if (name && !strcmp(name, "clGetPlatformInfo"))
		return (void *)clGetPlatformInfo;
	return name ? nl_clGetExtensionFunctionAddress(name) : NULL;
}
