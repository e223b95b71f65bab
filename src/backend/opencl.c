/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenCL devices by dlopen of libOpenCL.so.1 (ocl-icd or the Khronos loader).
 *
 * The key of a device must be the one that the OpenCL layer computes in a tenant's process, so the order of the sources
 * is fixed here and there: PCI address (cl_khr_pci_bus_info, else NVIDIA's three queries, else AMD's topology), UUID
 * (cl_khr_device_uuid), else platform and name. "nth" counts devices with the same platform and name in enumeration order.
 */
#define CL_TARGET_OPENCL_VERSION 300
#include "backend/backend.h"

#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define LIBRARY "libOpenCL.so.1"
#define PLATFORMS_MAX 16

/* Entry points used, so that a missing one is named. */
#define ENTRIES(X) X(clGetPlatformIDs) X(clGetPlatformInfo) X(clGetDeviceIDs) X(clGetDeviceInfo)

struct entries {
#define X(name) __typeof__(&name) name;
	ENTRIES(X)
#undef X
};

static int load(struct entries *e, struct pen_err *err)
{
	/* Never closed: vendor libraries start threads and register exit handlers that do not survive dlclose. */
	void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return pen_err_x(err, -ENOENT, "%s", dlerror());
	static const char *const names[] = {
#define X(name) #name,
		ENTRIES(X)
#undef X
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		void *sym = dlsym(lib, names[i]);
		if (!sym)
			return pen_err_x(err, -ELIBBAD, "%s has no %s", LIBRARY, names[i]);
		memcpy((char *)e + i * sizeof(sym), &sym, sizeof(sym));
	}
	return 0;
}

static void device_text(const struct entries *e, cl_device_id id, cl_device_info what, char *buf, size_t n)
{
	buf[0] = 0;
	if (e->clGetDeviceInfo(id, what, n, buf, NULL) != CL_SUCCESS)
		buf[0] = 0;
	buf[n - 1] = 0;
}

static int has_extension(const char *list, const char *name)
{
	size_t len = strlen(name);
	for (const char *at = strstr(list, name); at; at = strstr(at + len, name))
		if ((at == list || at[-1] == ' ') && (at[len] == ' ' || at[len] == 0))
			return 1;
	return 0;
}

static int device_value(const struct entries *e, cl_device_id id, cl_device_info what, void *v, size_t n)
{
	size_t got = 0;
	return e->clGetDeviceInfo(id, what, n, v, &got) == CL_SUCCESS && got == n;
}

static void facts_address(const struct entries *e, cl_device_id id, const char *ext, struct pen_devkey_facts *f)
{
	cl_device_pci_bus_info_khr pci;
	if (has_extension(ext, "cl_khr_pci_bus_info") &&
	    device_value(e, id, CL_DEVICE_PCI_BUS_INFO_KHR, &pci, sizeof(pci))) {
		f->has_pci = 1;
		f->pci_domain = pci.pci_domain;
		f->pci_bus = pci.pci_bus;
		f->pci_device = pci.pci_device;
		f->pci_function = pci.pci_function;
		return;
	}
	/* cl_nv_device_attribute_query: slot is device << 3 | function. */
	cl_uint bus, slot, domain = 0;
	if (has_extension(ext, "cl_nv_device_attribute_query") &&
	    device_value(e, id, 0x4008, &bus, sizeof(bus)) && device_value(e, id, 0x4009, &slot, sizeof(slot))) {
		device_value(e, id, 0x400A, &domain, sizeof(domain));
		f->has_pci = 1;
		f->pci_domain = domain;
		f->pci_bus = bus;
		f->pci_device = slot >> 3;
		f->pci_function = slot & 7;
		return;
	}
	if (has_extension(ext, "cl_khr_device_uuid") && device_value(e, id, CL_DEVICE_UUID_KHR, f->uuid, sizeof(f->uuid)))
		f->has_uuid = 1;
}

static void describe(const struct entries *e, cl_device_id id, struct pen_backend_device *v, size_t n)
{
	struct pen_backend_device *d = &v[n];
	char ext[8192];
	device_text(e, id, CL_DEVICE_NAME, d->model, sizeof(d->model));
	device_text(e, id, CL_DRIVER_VERSION, d->driver, sizeof(d->driver));
	device_text(e, id, CL_DEVICE_EXTENSIONS, ext, sizeof(ext));
	cl_ulong mem = 0;
	cl_uint units = 0;
	device_value(e, id, CL_DEVICE_GLOBAL_MEM_SIZE, &mem, sizeof(mem));
	device_value(e, id, CL_DEVICE_MAX_COMPUTE_UNITS, &units, sizeof(units));
	d->mem_bytes = mem;
	d->units = units;

	struct pen_devkey_facts f = { .api = "opencl", .platform = d->platform, .name = d->model };
	for (size_t i = 0; i < n; i++)
		if (!strcmp(v[i].platform, d->platform) && !strcmp(v[i].model, d->model))
			f.nth++;
	facts_address(e, id, ext, &f);
	pen_devkey(d->key, &f);
}

static int discover(struct pen_backend_device *v, size_t room, struct pen_err *err)
{
	struct entries e;
	int r = load(&e, err);
	if (r < 0)
		return r;
	cl_platform_id platform[PLATFORMS_MAX];
	cl_uint n_platforms = 0;
	cl_int c = e.clGetPlatformIDs(PLATFORMS_MAX, platform, &n_platforms);
	if (c == CL_PLATFORM_NOT_FOUND_KHR)
		return 0;
	if (c != CL_SUCCESS)
		return pen_err_x(err, -EIO, "clGetPlatformIDs: %d", (int)c);
	size_t n = 0;
	for (cl_uint p = 0; p < n_platforms && p < PLATFORMS_MAX; p++) {
		char name[PEN_BACKEND_TEXT] = "";
		if (e.clGetPlatformInfo(platform[p], CL_PLATFORM_NAME, sizeof(name), name, NULL) != CL_SUCCESS)
			name[0] = 0;
		name[sizeof(name) - 1] = 0;
		cl_device_id id[PEN_BACKEND_DEVICES_MAX];
		cl_uint n_ids = 0;
		if (e.clGetDeviceIDs(platform[p], CL_DEVICE_TYPE_ALL, PEN_BACKEND_DEVICES_MAX, id, &n_ids) != CL_SUCCESS)
			continue;   /* a platform without devices says CL_DEVICE_NOT_FOUND */
		for (cl_uint i = 0; i < n_ids && i < PEN_BACKEND_DEVICES_MAX && n < room; i++) {
			memset(&v[n], 0, sizeof(v[n]));
			memcpy(v[n].platform, name, sizeof(name));
			describe(&e, id[i], v, n);
			n++;
		}
	}
	return (int)n;
}

const struct pen_backend pen_backend_opencl = { .api = "opencl", .discover = discover };
