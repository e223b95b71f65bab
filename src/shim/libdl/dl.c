/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands for libdl.so.2 when a shim that opens a vendor's library is linked: the names as they were before glibc 2.34 took them into
 * libc.so.6. What is linked against it loads on both. See meson.build.
 */
void *dlopen(const char *path, int flags);
void *dlsym(void *handle, const char *name);
char *dlerror(void);
int dlclose(void *handle);

#define EXPORT __attribute__((visibility("default")))

EXPORT void *dlopen(const char *path, int flags)
{
	(void)path, (void)flags;
	return (void *)0;
}

EXPORT void *dlsym(void *handle, const char *name)
{
	(void)handle, (void)name;
	return (void *)0;
}

EXPORT char *dlerror(void)
{
	return (char *)0;
}

EXPORT int dlclose(void *handle)
{
	(void)handle;
	return -1;
}
