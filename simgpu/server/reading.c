/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a management library would say: sampled, late and not quite exact, as the real ones.
 *
 * Utilisation is the part of the last whole sixth of a second in which a kernel ran. Nothing is sampled by a timer: whoever lets a
 * model go on stops at the ends of samples, and a device without work has the same counters at all of them.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "simgpu/server/server.h"

static uint64_t busy_of(const struct sim_account *a)
{
	uint64_t busy = a->past.busy_ns;
	struct sim_proc *p;
	struct sim_ctx *c;
	struct pen_model_truth t;
	TAILQ_FOREACH(p, &a->dev->server->procs, link)
		if (p->account[a->dev->index] == a)
			TAILQ_FOREACH(c, &p->contexts, link)
				if (c->dev == a->dev) {
					pen_model_context_truth(c->model, &t);
					busy += t.busy_ns;
				}
	return busy;
}

static void sample(struct sim_dev *d)
{
	struct pen_model_truth t;
	struct sim_account *a;
	pen_model_truth(d->model, &t);
	double copied = t.copy_bytes[PEN_MODEL_H2D] + t.copy_bytes[PEN_MODEL_D2H];
	/* A reset in between makes a counter smaller than it was. */
	d->busy_sample_ns = t.busy_ns - PEN_MIN(d->busy_before_ns, t.busy_ns);
	d->dram_sample = t.dram_bytes - PEN_MIN(d->dram_before, t.dram_bytes);
	d->copied_sample = copied - PEN_MIN(d->copied_before, copied);
	d->busy_before_ns = t.busy_ns;
	d->dram_before = t.dram_bytes;
	d->copied_before = copied;
	TAILQ_FOREACH(a, &d->server->accounts, link) {
		if (a->dev != d || !a->alive)
			continue;
		uint64_t busy = busy_of(a);
		a->busy_sample_ns = busy - PEN_MIN(a->busy_before_ns, busy);
		a->busy_before_ns = busy;
	}
}

void sim_dev_run(struct sim_dev *d, uint64_t until_ns)
{
	uint64_t period = SIM_SAMPLE_NS;
	if (d->server->scale != 1)
		period = (uint64_t)((double)period / d->server->scale);
	while (d->sampled_ns + period <= until_ns) {
		/* Long idle: the samples in between are all alike, and two of them say all. */
		if (pen_model_next(d->model) > until_ns && until_ns - d->sampled_ns > 3 * period)
			d->sampled_ns += (until_ns - d->sampled_ns) / period * period - 2 * period;
		d->sampled_ns += period;
		pen_model_run(d->model, d->sampled_ns);
		sample(d);
	}
	pen_model_run(d->model, until_ns);
}

/* A per cent that is one too much or too little now and then. */
static uint32_t noisy(struct sim_dev *d, double part)
{
	d->noise = d->noise * 1664525 + 1013904223;   /* Numerical Recipes' generator: enough for this */
	double v = part * 100 + ((double)(d->noise >> 8) / 16777216.0 - 0.5) * 2;
	if (part <= 0)
		return 0;
	return v < 0 ? 0 : v > 100 ? 100 : (uint32_t)(v + 0.5);
}

static double sample_period(const struct sim_dev *d)
{
	return (double)SIM_SAMPLE_NS / d->server->scale;
}

void sim_reading_of(struct sim_dev *d, struct sim_reading *ret)
{
	struct pen_model_truth t;
	pen_model_truth(d->model, &t);
	double busy = (double)d->busy_sample_ns / sample_period(d);
	double dram = d->dram_sample / ((double)d->card.dram_bytes_per_s / 1e9 * sample_period(d));
	*ret = (struct sim_reading){
		.mem_used_bytes = d->used_bytes, .gpu_util = noisy(d, busy), .mem_util = noisy(d, dram),
		.temperature_c = 35 + (uint32_t)(busy * 35),
		.power_mw = d->card.power_idle_mw + (uint32_t)((d->card.power_max_mw - d->card.power_idle_mw) * busy * 0.8),
		.sm_clock_mhz = busy > 0 ? d->card.clock_khz / 1000 : 300,
		.dram_bytes = (uint64_t)t.dram_bytes,
		.pcie_rx_bytes = (uint64_t)t.copy_bytes[PEN_MODEL_H2D], .pcie_tx_bytes = (uint64_t)t.copy_bytes[PEN_MODEL_D2H],
		.ecc_uncorrected = d->ecc, .xid = d->xid, .lost = d->lost,
	};
}

unsigned sim_processes_of(struct sim_dev *d, struct sim_process *v, unsigned room)
{
	struct sim_account *a;
	unsigned n = 0;
	TAILQ_FOREACH(a, &d->server->accounts, link) {
		if (a->dev != d || !a->alive)
			continue;
		if (n < room)
			v[n] = (struct sim_process){ .pid = (uint32_t)a->pid, .mem_bytes = a->mem_bytes,
						     .sm_util = noisy(d, (double)a->busy_sample_ns / sample_period(d)) };
		n++;
	}
	return n;
}
