/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trimmed copy of the shim: it has exactly the names that its driver has, and works.
 *
 * test_trim TOOL SHIM DRIVER
 */
#include "cutest.h"

#include <dirent.h>
#include <spawn.h>
#include <sys/wait.h>

static const char *const names[ROWS] = {
#define PEN_CU(symbol, family, since, thread, class, types) #symbol,
#include "api/cuda.def"
};

static char folder[64] = "/tmp/cutrim.XXXXXX";

static int run(const char *tool, const char *from, const char *driver, const char *to)
{
	char *argv[] = { (char *)tool, (char *)from, (char *)driver, (char *)to, NULL };
	int status = -1;
	pid_t pid;
	if (posix_spawn(&pid, tool, NULL, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static unsigned files_in(const char *path)
{
	unsigned n = 0;
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static void mistakes(const char *tool, const char *from, const char *driver, const char *to)
{
	CHECK_EQ(run(tool, from, "/nowhere/libcuda.so.1", to), 1);
	CHECK_EQ(run(tool, from, "/proc/self/maps", to), 1);
	CHECK_EQ(run(tool, from, tool, to), 1);              /* a program, or a library that is no driver of CUDA */
	CHECK_EQ(run(tool, "/dev/null", driver, to), 1);
	CHECK_EQ(run(tool, from, driver, "/nowhere/libcuda.so.1"), 1);
	CHECK_EQ(run(tool, from, driver, NULL), 2);
	CHECK_EQ(files_in(folder), 0);
}

static int child(const char *driver_path)
{
	unsigned kept = 0;
	int n = 0;
	CUdeviceptr p;
	void *driver = dlopen(driver_path, RTLD_NOW);
	if (!driver)
		return 1;
	for (unsigned i = 0; i < ROWS; i++) {
		bool want = dlsym(driver, names[i]) != NULL, has = dlsym(shim, names[i]) != NULL;
		kept += has;
		if (want == has)
			continue;
		fprintf(stderr, "%s: the driver has %d, the copy has %d\n", names[i], want, has);
		failures++;
	}
	CHECK(kept > 300);
	CHECK_EQ(kept == ROWS, dlsym(driver, "cuMemcpyBatchAsync_v2") != NULL);
	OK(cu.cuInit(0));
	OK(cu.cuDeviceGetCount(&n));
	CHECK_EQ(n, 1);
	CUcontext c = new_context();
	OK(cu.cuMemAlloc_v2(&p, 4096));
	CHECK(stats->used >= 4096 && stats->objects == 1);
	OK(cu.cuMemFree_v2(p));
	OK(cu.cuCtxDestroy_v2(c));
	return finished("trim");
}

int main(int argc, char **argv)
{
	char to[128], path[4096], dir[4096];
	if (argc == 3 && !strcmp(argv[1], "child")) {
		open_shim(argv);
		return child(argv[2]);
	}
	if (argc < 4 || !mkdtemp(folder))
		return 2;
	snprintf(to, sizeof(to), "%s/libcuda.so.1", folder);
	mistakes(argv[1], argv[2], argv[3], to);
	CHECK_EQ(run(argv[1], argv[2], argv[3], to), 0);
	CHECK_EQ(files_in(folder), 1);
	CHECK_EQ(run(argv[1], argv[2], argv[3], to), 0);   /* over one that is there */
	CHECK_EQ(files_in(folder), 1);
	snprintf(dir, sizeof(dir), "%s", argv[3]);
	*strrchr(dir, '/') = 0;
	snprintf(path, sizeof(path), "%s:%s", folder, dir);
	setenv("CUTEST_PATH", path, 1);
	CHECK_EQ(run("/proc/self/exe", "child", argv[3], NULL), 0);
	unlink(to);
	rmdir(folder);
	return finished("trim");
}
