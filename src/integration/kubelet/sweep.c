/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What became of those who do not come? A program may start hours before it first uses the device, and a container that has ended may start
 * again with the token that it has. So a lease without clients is not simply over after some time. First the kernel is asked whether a
 * container is there into which the tenant's directory is mounted: the mounts of every mount namespace of the machine say so, whatever
 * the container runtime. If none is, what the lease holds goes back; its token stays good as long as the kubelet may still mean it.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "integration/kubelet/internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <utlist.h>

#define DUE_MAX 256
/* A kubelet writes its checkpoint after Allocate: a lease that is so young may be missing in it. */
#define YOUNG_NS (60 * PEN_S)
#define SWEEP_MIN_MS 200

struct due {
	char tenant[PEN_NAME_MAX + 1];
	bool mounted;
};

struct sweep {
	struct pen_kube *k;
	char runtime_dir[PEN_CONFIG_PATH_MAX + 1];
	struct pen_kube_place place;
	size_t n;
	struct due v[DUE_MAX];
};

static uint64_t lease_ns(const struct pen_kube *k)
{
	return pen_service_config(k->s)->kube_lease_ns;
}

/* ---- the helper's part: no pen_kube here -------------------------------------------------------------------------------- */

static void match_mount(void *arg, const char *name)
{
	struct sweep *w = arg;
	for (size_t i = 0; i < w->n; i++)
		if (!strcmp(w->v[i].tenant, name))
			w->v[i].mounted = true;
}

struct seen_ns {
	char *v;   /* names such as "mnt:[4026531840]", each of 32 bytes */
	size_t n, room;
};

static bool is_new(struct seen_ns *s, const char *name)
{
	for (size_t i = 0; s->v && i < s->n; i++)
		if (!strcmp(s->v + 32 * i, name))
			return false;
	if (s->n == s->room) {
		char *v = realloc(s->v, (s->room = s->room * 2 + 64) * 32);
		if (!v)
			return true;
		s->v = v;
	}
	snprintf(s->v + 32 * s->n++, 32, "%s", name);
	return true;
}

static void look_at(const char *pid, struct seen_ns *seen, struct sweep *w)
{
	char path[64], name[32];
	snprintf(path, sizeof(path), "/proc/%.16s/ns/mnt", pid);
	ssize_t n = readlink(path, name, sizeof(name) - 1);
	if (n <= 0)
		return;
	name[n] = 0;
	if (!is_new(seen, name))
		return;
	pen_kube_each_mount((pid_t)atoi(pid), &w->place, match_mount, w);
}

static void sweep_work(void *arg)
{
	struct sweep *w = arg;
	struct seen_ns seen = { .v = NULL };
	DIR *proc = pen_kube_place_now(w->runtime_dir, &w->place) < 0 ? NULL : opendir("/proc");
	const struct dirent *de;
	while (proc && (de = readdir(proc)))
		if (isdigit((unsigned char)de->d_name[0]))
			look_at(de->d_name, &seen, w);
	if (proc)
		closedir(proc);
	else
		for (size_t i = 0; i < w->n; i++)   /* what cannot be seen is not taken for gone */
			w->v[i].mounted = true;
	free(seen.v);
}

/* ---- the loop's part ------------------------------------------------------------------------------------------------------ */

static struct pen_kube_lease *find(struct pen_kube *k, const char *tenant)
{
	struct pen_kube_lease *l;
	DL_FOREACH(k->leases, l)
		if (!strcmp(l->tenant, tenant))
			return l;
	return NULL;
}

static uint64_t last_sign_ns(const struct pen_kube_lease *l)
{
	return PEN_MAX(l->made_ns, l->since_ns);
}

static bool waits(const struct pen_kube_lease *l)
{
	return l->state == PEN_KUBE_LEASE_PROVISIONAL || l->state == PEN_KUBE_LEASE_IDLE;
}

/* The kubelet does not mean it any more: nobody will come with its token. */
static void end_forgotten(struct pen_kube *k)
{
	struct pen_kube_lease *l, *next;
	uint64_t now = pen_mono_ns();
	if (!k->checkpoint.known)
		return;
	DL_FOREACH_SAFE(k->leases, l, next) {
		if (l->state != PEN_KUBE_LEASE_LAPSED || now - last_sign_ns(l) < YOUNG_NS ||
		    (pen_kube_checkpointed(k, l->resource, l->card) & l->slots))
			continue;
		pen_service_tenant_end(k->s, l->tenant, "its pod is gone");
		DL_DELETE(k->leases, l);
		free(l);
	}
}

static void settle(struct pen_kube *k, struct pen_kube_lease *l, bool mounted)
{
	if (mounted) {
		l->seen = true;
		l->since_ns = pen_mono_ns();
		l->state = PEN_KUBE_LEASE_IDLE;
		return;
	}
	if (pen_service_tenant_lapse(k->s, l->tenant) < 0)
		return;   /* somebody has just come */
	pen_service_event(k->s, false, l->tenant, "nobody came for it; what it held is free for others");
	l->state = PEN_KUBE_LEASE_LAPSED;
	l->since_ns = pen_mono_ns();
	pen_kube_relist_soon(k);
}

static void sweep_done(void *arg)
{
	struct sweep *w = arg;
	struct pen_kube *k = w->k;
	k->sweeps = false;
	for (size_t i = 0; i < w->n; i++) {
		struct pen_kube_lease *l = find(k, w->v[i].tenant);
		if (l && waits(l) && pen_mono_ns() - l->since_ns >= lease_ns(k))
			settle(k, l, w->v[i].mounted);
	}
	free(w);
	end_forgotten(k);
	pen_kube_sweep_arm(k);
}

static void start(struct pen_kube *k)
{
	struct sweep *w = k->sweeps ? NULL : calloc(1, sizeof(*w));
	const struct pen_kube_lease *l;
	if (!w)
		return;
	w->k = k;
	snprintf(w->runtime_dir, sizeof(w->runtime_dir), "%s", pen_service_config(k->s)->runtime_dir);
	DL_FOREACH(k->leases, l)
		if (waits(l) && w->n < DUE_MAX && pen_mono_ns() - l->since_ns >= lease_ns(k))
			snprintf(w->v[w->n++].tenant, sizeof(w->v[0].tenant), "%s", l->tenant);
	if (!w->n || pen_service_work(k->s, sweep_work, sweep_done, free, w) < 0) {
		free(w);
		return;
	}
	k->sweeps = true;
}

void pen_kube_on_sweep(int fd, short what, void *arg)
{
	struct pen_kube *k = arg;
	(void)fd, (void)what;
	start(k);
	end_forgotten(k);
	pen_kube_sweep_arm(k);
}

/* For the moment at which the first of those who wait has waited long enough, or a lapsed one is old enough to be looked at. */
void pen_kube_sweep_arm(struct pen_kube *k)
{
	const struct pen_kube_lease *l;
	uint64_t now = pen_mono_ns(), first = UINT64_MAX;
	DL_FOREACH(k->leases, l) {
		if (waits(l) && !k->sweeps)
			first = PEN_MIN(first, l->since_ns + lease_ns(k));
		else if (l->state == PEN_KUBE_LEASE_LAPSED && k->checkpoint.known) {
			uint64_t old = last_sign_ns(l) + YOUNG_NS;   /* then, and now and again afterwards */
			first = PEN_MIN(first, old > now ? old : now + YOUNG_NS);
		}
	}
	if (first == UINT64_MAX) {
		event_del(k->sweep_ev);
		return;
	}
	uint64_t ms = first > now ? (first - now) / PEN_MS + 1 : 0;
	ms = PEN_MAX(ms, (uint64_t)SWEEP_MIN_MS);
	event_add(k->sweep_ev, &(struct timeval){ .tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000 });
}
