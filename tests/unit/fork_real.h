/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_FORK_REAL_H
#define PEN_TESTS_FORK_REAL_H
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* qemu-user takes some advice on memory without following it. Return: 1 a fork does what the kernel's fork does. */
static inline int fork_is_real(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(p, 4096, MADV_DONTFORK);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		_exit(msync(p, 1, MS_ASYNC) != 0);
	int status;
	waitpid(pid, &status, 0);
	munmap(p, 4096);
	return WEXITSTATUS(status);
}

/* qemu-user and ThreadSanitizer fork instead. Return: 1 a vfork child shares its parent's memory. */
static inline int vfork_is_real(void)
{
	static volatile int shared;
	shared = 0;
	pid_t pid = vfork();
	if (pid == 0) {
		shared = 1;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	return shared;
}

#endif
