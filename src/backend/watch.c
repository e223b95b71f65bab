/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices there are is asked anew every few seconds (MIG is cut and joined, cards get lost), what they do each period. A driver
 * that goes away while we run (nvmlInit fails, or nothing answers) is tried again, ever more rarely.
 *
 * A process may be in several of the library's lists (compute, graphics, MPS), each with all of its memory: the largest counts.
 * Xids come as events only; the last is remembered per device, and their number, since the same one may come twice.
 */
#include "backend/watch.h"

#include "base/clock.h"
#include "backend/json.h"
#include "backend/nvml.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICES PEN_BACKEND_DEVICES_MAX
#define PROCESSES 1024          /* of one device; further ones are left out */
#define LOOK_AGAIN_NS UINT64_C(10000000000)
#define EVENTS_A_LINE 64
#define TRIES 4                 /* lists that grow while they are read */
#define START_MAX_NS UINT64_C(10000000000)   /* between attempts to start: nvmlInit may run helpers of the driver's */

struct device {
	struct pen_nvml_device d;
	unsigned long long samples_us;   /* last sample of processes seen */
	uint32_t xid, xids;
	bool lost;
	bool watched;                    /* its events are registered */
};

/* What is known of one process; UINT_MAX, UINT64_MAX: not told. */
struct process {
	uint32_t pid;
	uint64_t mem_bytes;
	unsigned sm, enc, dec, samples;
};

struct watch {
	const struct pen_nvml *nv;
	bool started;
	uint64_t start_at_ns, start_wait_ns;   /* not before; grows with each failure */
	struct pen_err start_err;
	nvmlEventSet_t events;
	uint64_t looked_ns;
	struct device dev[DEVICES];
	size_t n;
	struct process proc[PROCESSES];
	size_t nproc;
};

/* ---- processes -------------------------------------------------------------------------------------------------------- */

static struct process *process_of(struct watch *w, uint32_t pid)
{
	for (size_t i = 0; i < w->nproc; i++)
		if (w->proc[i].pid == pid)
			return &w->proc[i];
	if (w->nproc == PROCESSES)
		return NULL;
	struct process *p = &w->proc[w->nproc++];
	*p = (struct process){ .pid = pid, .mem_bytes = UINT64_MAX };
	return p;
}

static void add_memory(struct watch *w, uint32_t pid, uint64_t bytes)
{
	struct process *p = process_of(w, pid);
	if (p && bytes != NVML_MEMORY_UNKNOWN && (p->mem_bytes == UINT64_MAX || bytes > p->mem_bytes))
		p->mem_bytes = bytes;
}

typedef nvmlReturn_t list_v1_fn(nvmlDevice_t, unsigned int *, nvmlProcessInfo_v1_t *);
typedef nvmlReturn_t list_v2_fn(nvmlDevice_t, unsigned int *, nvmlProcessInfo_v2_t *);

/* One list in the newest form that there is. Return: the last code. */
static nvmlReturn_t read_list(struct watch *w, nvmlDevice_t d, list_v1_fn *v1, list_v2_fn *v2)
{
	static union { nvmlProcessInfo_v1_t one[PROCESSES]; nvmlProcessInfo_v2_t two[PROCESSES]; } room;
	nvmlReturn_t r = NVML_ERROR_FUNCTION_NOT_FOUND;
	for (int i = 0; i < TRIES; i++) {
		unsigned int n = PROCESSES;
		r = v2 ? v2(d, &n, room.two) : v1 ? v1(d, &n, room.one) : r;
		if (r == NVML_ERROR_INSUFFICIENT_SIZE)
			continue;
		for (unsigned int k = 0; !r && k < n && k < PROCESSES; k++)
			add_memory(w, v2 ? room.two[k].pid : room.one[k].pid, v2 ? room.two[k].usedGpuMemory : room.one[k].usedGpuMemory);
		break;
	}
	return r;
}

/* True: at least one list could be read, so that a process that is in none is not there. */
static bool read_processes(struct watch *w, nvmlDevice_t d)
{
	const struct pen_nvml *nv = w->nv;
	w->nproc = 0;
	nvmlReturn_t c = read_list(w, d, nv->nvmlDeviceGetComputeRunningProcesses,
				   nv->nvmlDeviceGetComputeRunningProcesses_v3 ? nv->nvmlDeviceGetComputeRunningProcesses_v3 :
				   nv->nvmlDeviceGetComputeRunningProcesses_v2);
	nvmlReturn_t g = read_list(w, d, nv->nvmlDeviceGetGraphicsRunningProcesses,
				   nv->nvmlDeviceGetGraphicsRunningProcesses_v3 ? nv->nvmlDeviceGetGraphicsRunningProcesses_v3 :
				   nv->nvmlDeviceGetGraphicsRunningProcesses_v2);
	nvmlReturn_t m = read_list(w, d, nv->nvmlDeviceGetMPSComputeRunningProcesses,
				   nv->nvmlDeviceGetMPSComputeRunningProcesses_v3 ? nv->nvmlDeviceGetMPSComputeRunningProcesses_v3 :
				   nv->nvmlDeviceGetMPSComputeRunningProcesses_v2);
	return !c || !g || !m;
}

/*
 * Mean of the samples since the last line. A process without any did nothing meanwhile. Samples that cannot be (seen on drivers: a
 * pid of 0, thousands of per cent) are dropped. Return: are utilisations known?
 */
static bool read_utilisation(struct watch *w, struct device *dev)
{
	static nvmlProcessUtilizationSample_t room[PROCESSES];
	if (!w->nv->nvmlDeviceGetProcessUtilization)
		return false;
	unsigned int n = PROCESSES;
	nvmlReturn_t r = w->nv->nvmlDeviceGetProcessUtilization(dev->d.handle, room, &n, dev->samples_us);
	if (r)
		return r == NVML_ERROR_NOT_FOUND;
	for (unsigned int i = 0; i < n && i < PROCESSES; i++) {
		const nvmlProcessUtilizationSample_t *s = &room[i];
		if (!s->pid || s->smUtil > 100 || s->encUtil > 100 || s->decUtil > 100 || s->timeStamp <= dev->samples_us)
			continue;
		struct process *p = process_of(w, s->pid);
		if (!p)
			continue;
		p->sm += s->smUtil;
		p->enc += s->encUtil;
		p->dec += s->decUtil;
		p->samples++;
	}
	for (unsigned int i = 0; i < n && i < PROCESSES; i++)
		if (room[i].timeStamp > dev->samples_us)
			dev->samples_us = room[i].timeStamp;
	return true;
}

static void print_processes(FILE *out, const struct watch *w, bool utilisation)
{
	fputs(",\"processes\":[", out);
	for (size_t i = 0; i < w->nproc; i++) {
		const struct process *p = &w->proc[i];
		unsigned n = p->samples ? p->samples : 1;
		fprintf(out, "%s{\"pid\":%u", i ? "," : "", p->pid);
		if (p->mem_bytes != UINT64_MAX)
			fprintf(out, ",\"mem_bytes\":%llu", (unsigned long long)p->mem_bytes);
		if (utilisation)
			fprintf(out, ",\"sm_util\":%u,\"enc_util\":%u,\"dec_util\":%u", (p->sm + n / 2) / n, (p->enc + n / 2) / n,
				(p->dec + n / 2) / n);
		fputc('}', out);
	}
	fputc(']', out);
}

/* ---- devices ---------------------------------------------------------------------------------------------------------- */

/* A value if the call gave one. @r marks a device that is lost. */
static bool told(struct device *dev, nvmlReturn_t r)
{
	if (r == NVML_ERROR_GPU_IS_LOST || r == NVML_ERROR_RESET_REQUIRED)
		dev->lost = true;
	return r == NVML_SUCCESS;
}

static void print_number(FILE *out, const char *name, unsigned long long v)
{
	fprintf(out, ",\"%s\":%llu", name, v);
}

static void print_readings(FILE *out, struct watch *w, struct device *dev)
{
	const struct pen_nvml *nv = w->nv;
	nvmlDevice_t d = dev->d.handle;
	struct pen_nvml_memory m;
	nvmlUtilization_t u;
	unsigned int v, us;
	if (told(dev, pen_nvml_memory(nv, d, &m)))
		print_number(out, "mem_used_bytes", m.used_bytes);
	if (nv->nvmlDeviceGetUtilizationRates && told(dev, nv->nvmlDeviceGetUtilizationRates(d, &u)) && u.gpu <= 100) {
		print_number(out, "gpu_util", u.gpu);
		print_number(out, "mem_util", u.memory);
	}
	if (nv->nvmlDeviceGetEncoderUtilization && told(dev, nv->nvmlDeviceGetEncoderUtilization(d, &v, &us)))
		print_number(out, "enc_util", v);
	if (nv->nvmlDeviceGetDecoderUtilization && told(dev, nv->nvmlDeviceGetDecoderUtilization(d, &v, &us)))
		print_number(out, "dec_util", v);
	if (nv->nvmlDeviceGetTemperature && told(dev, nv->nvmlDeviceGetTemperature(dev->d.card, NVML_TEMPERATURE_GPU, &v)))
		print_number(out, "temperature_c", v);
	if (nv->nvmlDeviceGetPowerUsage && told(dev, nv->nvmlDeviceGetPowerUsage(dev->d.card, &v)))
		print_number(out, "power_mw", v);
}

static void print_device(FILE *out, struct watch *w, struct device *dev)
{
	bool was_lost = dev->lost;
	dev->lost = false;
	fputs("{\"key\":", out);
	pen_json_string(out, dev->d.key);
	if (dev->d.handle)
		print_readings(out, w, dev);
	else
		dev->lost = was_lost;
	if (dev->xids) {
		print_number(out, "xid", dev->xid);
		print_number(out, "xid_count", dev->xids);
	}
	fprintf(out, ",\"lost\":%s", dev->lost ? "true" : "false");
	if (dev->d.handle && !dev->lost && read_processes(w, dev->d.handle))
		print_processes(out, w, read_utilisation(w, dev));
	fputc('}', out);
}

static void watch_events(struct watch *w, struct device *dev)
{
	/* Of the card: an instance has no events of its own. Some boards have none at all. */
	for (size_t k = 0; k < w->n; k++)
		dev->watched |= w->dev[k].watched && w->dev[k].d.card == dev->d.card;
	if (w->events && !dev->watched && w->nv->nvmlDeviceRegisterEvents)
		dev->watched = !w->nv->nvmlDeviceRegisterEvents(dev->d.card, nvmlEventTypeXidCriticalError, w->events);
}

static void take_events(struct watch *w)
{
	const struct pen_nvml *nv = w->nv;
	for (int i = 0; w->events && i < EVENTS_A_LINE; i++) {
		nvmlEventData_t e = { .device = NULL };
		nvmlReturn_t r = nv->nvmlEventSetWait_v2 ? nv->nvmlEventSetWait_v2(w->events, &e, 0) :
				 nv->nvmlEventSetWait ? nv->nvmlEventSetWait(w->events, &e, 0) : NVML_ERROR_FUNCTION_NOT_FOUND;
		if (r)
			return;   /* nothing more, or nothing to be had */
		for (size_t k = 0; k < w->n && e.eventType == nvmlEventTypeXidCriticalError; k++)
			if (w->dev[k].d.card == e.device) {
				w->dev[k].xid = (uint32_t)e.eventData;
				w->dev[k].xids++;
			}
	}
}

/* A device that the library has forgotten is gone; one that it still counts and does not hand out is lost. */
static void look_again(struct watch *w)
{
	static struct pen_nvml_device found[DEVICES];
	static struct device next[DEVICES];
	unsigned int count = 0;
	int n = pen_nvml_devices(w->nv, found, DEVICES, NULL);
	if (n < 0 || w->nv->nvmlDeviceGetCount_v2(&count))
		return;
	size_t kept = 0, cards = 0;
	for (int i = 0; i < n; i++) {
		cards += !i || found[i].card != found[i - 1].card;
		next[kept] = (struct device){ .d = found[i] };
		for (size_t k = 0; k < w->n; k++)
			if (!strcmp(w->dev[k].d.key, found[i].key)) {
				next[kept] = w->dev[k];
				next[kept].watched = next[kept].watched && next[kept].d.card == found[i].card;
				next[kept].d = found[i];
			}
		kept++;
	}
	for (size_t k = 0; k < w->n && kept < DEVICES && cards < count; k++) {
		bool there = false;
		for (int i = 0; i < n; i++)
			there |= !strcmp(w->dev[k].d.key, found[i].key);
		if (there || w->dev[k].d.is_instance)
			continue;
		next[kept] = w->dev[k];
		next[kept].d.handle = NULL;
		next[kept++].lost = true;
		cards++;
	}
	memcpy(w->dev, next, kept * sizeof(next[0]));
	w->n = kept;
	for (size_t k = 0; k < w->n; k++)
		if (w->dev[k].d.handle)
			watch_events(w, &w->dev[k]);
}

/* ---- lines --------------------------------------------------------------------------------------------------------------- */

static void begin_line(FILE *out, const char *error)
{
	fputs("{\"schema\":\"penstock-probe/watch/v1\"", out);
	if (error) {
		fputs(",\"error\":", out);
		pen_json_string(out, error);
	}
	fputs(",\"devices\":[", out);
}

static int end_line(FILE *out)
{
	fputs("]}\n", out);
	return fflush(out) || ferror(out) ? -EPIPE : 0;
}

static int start(struct watch *w, uint64_t now_ns, uint64_t period_ns)
{
	if (now_ns < w->start_at_ns)
		return w->start_err.code;
	int r = pen_nvml_start(w->nv, &w->start_err);
	if (r < 0) {
		w->start_wait_ns = w->start_wait_ns ? w->start_wait_ns * 2 : period_ns;
		if (w->start_wait_ns > START_MAX_NS)
			w->start_wait_ns = START_MAX_NS;
		w->start_at_ns = now_ns + w->start_wait_ns;
		return r;
	}
	w->start_wait_ns = 0;
	w->started = true;
	w->looked_ns = 0;
	w->events = NULL;
	if (w->nv->nvmlEventSetCreate && w->nv->nvmlEventSetCreate(&w->events))
		w->events = NULL;
	return 0;
}

static void stop(struct watch *w)
{
	if (w->events && w->nv->nvmlEventSetFree)
		w->nv->nvmlEventSetFree(w->events);
	for (size_t k = 0; k < w->n; k++)
		w->dev[k].watched = false;
	w->events = NULL;
	w->started = false;
	pen_nvml_stop(w->nv);
}

static int print_line(FILE *out, struct watch *w, uint64_t now_ns, uint64_t period_ns)
{
	if (!w->started && start(w, now_ns, period_ns) < 0) {
		begin_line(out, w->start_err.text);
		return end_line(out);
	}
	if (!w->looked_ns || now_ns - w->looked_ns >= LOOK_AGAIN_NS) {
		look_again(w);
		w->looked_ns = now_ns;
	}
	take_events(w);
	begin_line(out, NULL);
	bool answers = !w->n;
	for (size_t k = 0; k < w->n; k++) {
		if (k)
			fputc(',', out);
		print_device(out, w, &w->dev[k]);
		answers |= !w->dev[k].lost;
	}
	if (!answers)
		stop(w);   /* the driver may be reloaded: the library must let go of it, and is asked anew */
	return end_line(out);
}

/* Waits until @due_ns. True: standard input has ended. */
static bool listen_until(uint64_t due_ns)
{
	for (;;) {
		uint64_t now = pen_mono_ns();
		int ms = due_ns > now ? (int)((due_ns - now + 999999) / 1000000) : 0;
		struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
		int r = poll(&p, 1, ms);
		if (r < 0 && errno != EINTR)
			return true;
		if (r > 0) {
			char rest[256];
			ssize_t n = read(STDIN_FILENO, rest, sizeof(rest));
			if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
				return true;
		}
		if (pen_mono_ns() >= due_ns)
			return false;
	}
}

int pen_watch_run(FILE *out, unsigned period_ms)
{
	static struct watch w;
	struct pen_err err = PEN_ERR_INIT;
	signal(SIGPIPE, SIG_IGN);
	if (pen_nvml_load(&w.nv, &err) < 0) {
		begin_line(out, err.text);
		end_line(out);
		return 1;
	}
	uint64_t period = (uint64_t)period_ms * 1000000, due = pen_mono_ns();
	do {
		uint64_t now = pen_mono_ns();
		if (print_line(out, &w, now, period) < 0)
			return 0;   /* nobody reads */
		due += period;
		if (due < now)      /* late by more than a period (a call that took long): no burst to make up for it */
			due = now + period;
	} while (!listen_until(due));
	return 0;
}
