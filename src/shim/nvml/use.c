/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tenant and each of its processes used of a device, from the ledger: device time charged in a span, over its length.
 *
 * The driver averages over 1/6 .. 1 s and answers at once; here a span ends with the first question after 1/6 s, and until then the
 * last one's answer holds. There is no thread of ours: who asks rarely gets the mean since it asked last, at most a few seconds of it.
 */
#include "shim/nvml/nv.h"

#include "base/auto.h"
#include "base/clock.h"

#include <string.h>
#include <time.h>

#define SPAN_NS UINT64_C(166666667)
#define FIRST_NS UINT64_C(20000000)      /* the first answer may rest on so little: who asks once must not get none */
#define OLD_NS UINT64_C(5000000000)      /* a span this long says nothing of now: begin anew */

static struct pen_nv_use *of_process(struct pen_nv_use *v, uint32_t n, uint32_t pid)
{
	for (uint32_t i = 0; i < n; i++)
		if (v[i].pid == pid)
			return &v[i];
	return NULL;
}

uint32_t pen_nv_clients(struct pen_nv_device *d, struct pen_nv_use v[PEN_NV_CLIENTS])
{
	struct pen_gate_client c[PEN_NV_CLIENTS];
	size_t all = pen_nv_door()->clients(d->gate, c, PEN_NV_CLIENTS);
	uint32_t n = 0;
	for (size_t i = 0; i < all; i++) {
		struct pen_nv_use *u = of_process(v, n, c[i].pid);
		if (!u) {
			u = &v[n++];
			*u = (struct pen_nv_use){ .pid = c[i].pid };
		}
		u->bytes += c[i].charged_bytes;
		u->device_ns += c[i].device_ns;
	}
	return n;
}

static void begin(struct pen_nv_device *d, const struct pen_nv_use *now, uint32_t n, uint64_t now_ns)
{
	memcpy(d->base, now, n * sizeof(now[0]));
	d->nbase = n;
	d->base_ns = now_ns;
}

void pen_nv_use_begin(struct pen_nv_device *d)
{
	struct pen_nv_use now[PEN_NV_CLIENTS];
	uint32_t n = pen_nv_clients(d, now);
	uint64_t at = pen_mono_ns();
	pen_forklock_take(&d->lock);
	if (!d->base_ns)
		begin(d, now, n, at);
	pen_forklock_give(&d->lock);
}

static uint32_t per_cent(uint64_t part_ns, uint64_t span_ns)
{
	return part_ns >= span_ns ? 100 : (uint32_t)((part_ns * 100 + span_ns / 2) / span_ns);
}

/* The span that began at base ends now. Under the lock. */
static void end_span(struct pen_nv_device *d, const struct pen_nv_use *now, uint32_t n, uint64_t now_ns)
{
	struct timespec wall;
	uint64_t span = now_ns - d->base_ns, sum = 0;
	d->nuse = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct pen_nv_use *was = of_process(d->base, d->nbase, now[i].pid);
		uint64_t before = was ? was->device_ns : 0;
		/* Counters that went back are a new process under an old number. */
		uint64_t used = now[i].device_ns - (before <= now[i].device_ns ? before : 0);
		used = PEN_MIN(used, span);
		sum += used;
		d->use[d->nuse] = now[i];
		d->use[d->nuse++].util = per_cent(used, span);
	}
	d->util = per_cent(sum, span);
	d->done_ns = now_ns;
	clock_gettime(CLOCK_REALTIME, &wall);
	d->stamp_us = (unsigned long long)wall.tv_sec * 1000000 + (unsigned long long)wall.tv_nsec / 1000;
	begin(d, now, n, now_ns);
}

/* How long until the first span is worth an answer; 0 from the second one on. */
static uint64_t too_early(struct pen_nv_device *d, uint64_t now_ns)
{
	pen_forklock_take(&d->lock);
	uint64_t age = now_ns - d->base_ns, left = d->done_ns || age >= FIRST_NS ? 0 : FIRST_NS - age;
	pen_forklock_give(&d->lock);
	return left;
}

bool pen_nv_use(struct pen_nv_device *d, uint32_t *ret_util, struct pen_nv_use v[PEN_NV_CLIENTS], uint32_t *ret_n,
		unsigned long long *ret_stamp_us)
{
	struct pen_nv_use now[PEN_NV_CLIENTS];
	uint64_t left = too_early(d, pen_mono_ns());
	if (left)
		nanosleep(&(struct timespec){ .tv_nsec = (long)left }, NULL);
	uint32_t n = pen_nv_clients(d, now);
	if (!n)
		return false;   /* not even ourselves: there is no ledger to read */
	uint64_t at = pen_mono_ns();
	pen_forklock_take(&d->lock);
	uint64_t age = at - PEN_MIN(d->base_ns, at);
	if (age >= (d->done_ns ? SPAN_NS : 1)) {
		end_span(d, now, n, at);
		if (age > OLD_NS)
			d->done_ns = 0;   /* the next question, too, need not wait for a whole span */
	}
	*ret_util = d->util;
	*ret_n = d->nuse;
	*ret_stamp_us = d->stamp_us;
	memcpy(v, d->use, d->nuse * sizeof(v[0]));
	pen_forklock_give(&d->lock);
	return true;
}
