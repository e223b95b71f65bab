/* SPDX-License-Identifier: Apache-2.0 */
/* A client's memory, read and written through the kernel: an address that is wrong is an error and not our end. */
#include "simgpu/server/server.h"

#include <errno.h>
#include <string.h>

static int transfer(pid_t pid, uint64_t at, void *here, size_t bytes, bool write)
{
	while (bytes) {
		struct iovec local = { here, bytes };
		struct iovec remote = { (void *)(uintptr_t)at, bytes };
		ssize_t n = write ? process_vm_writev(pid, &local, 1, &remote, 1, 0) :
				    process_vm_readv(pid, &local, 1, &remote, 1, 0);
		if (n <= 0)
			return n < 0 ? -errno : -EFAULT;
		at += (uint64_t)n;
		here = (char *)here + n;
		bytes -= (size_t)n;
	}
	return 0;
}

int sim_read(pid_t pid, uint64_t from, void *to, size_t bytes)
{
	return transfer(pid, from, to, bytes, false);
}

int sim_write(pid_t pid, uint64_t to, const void *from, size_t bytes)
{
	return transfer(pid, to, (void *)from, bytes, true);
}

void sim_batch_flush(struct sim_proc *p)
{
	struct sim_batch *b = &p->batch;
	if (!b->n)
		return;
	size_t want = 0;
	for (unsigned i = 0; i < b->n; i++)
		want += b->local[i].iov_len;
	ssize_t n = process_vm_writev(p->pid, b->local, b->n, b->remote, b->n, 0);
	/* One bad address must not keep the others from being written. */
	if (n != (ssize_t)want)
		for (unsigned i = 0; i < b->n; i++)
			(void)sim_write(p->pid, (uint64_t)(uintptr_t)b->remote[i].iov_base, b->local[i].iov_base, b->local[i].iov_len);
	b->n = 0;
}

void sim_batch_add(struct sim_proc *p, uint64_t address, uint64_t value, unsigned bytes)
{
	struct sim_batch *b = &p->batch;
	if (b->n == SIM_BATCH)
		sim_batch_flush(p);
	b->value[b->n] = value;
	b->local[b->n] = (struct iovec){ &b->value[b->n], bytes };   /* little-endian: the low bytes come first */
	b->remote[b->n] = (struct iovec){ (void *)(uintptr_t)address, bytes };
	b->n++;
}
