/* SPDX-License-Identifier: Apache-2.0 */
/* Admission: sums of promises against what a device has. Pure. */
#include "base/auto.h"
#include "base/units.h"
#include "contract/internal.h"

#include <errno.h>
#include <string.h>

#define HOLDERS_NAMED 4   /* as many as fit beside the rest of an error line */

struct pen_range64 pen_units_on(const struct pen_units *u, uint32_t units)
{
	struct pen_range64 r = u->range;
	if (u->kind != PEN_UNITS_PERCENT)
		return r;
	/* Rounded up: half of 5 units must not become 2, which would be less than was promised. */
	r.guaranteed = (r.guaranteed * units + PEN_PPM - 1) / PEN_PPM;
	if (r.cap != PEN_UNLIMITED)
		r.cap = (r.cap * units + PEN_PPM - 1) / PEN_PPM;
	return r;
}

typedef uint64_t claim_fn(const struct pen_contract *c, const struct pen_capacity *cap);

static uint64_t claim_memory(const struct pen_contract *c, const struct pen_capacity *cap)
{
	(void)cap;
	return c->memory.guaranteed;
}

static uint64_t claim_compute(const struct pen_contract *c, const struct pen_capacity *cap)
{
	(void)cap;
	return c->cls == PEN_CLASS_LATENCY ? PEN_MAX(c->compute.guaranteed, (uint64_t)c->duty_ppm) : c->compute.guaranteed;
}

static uint64_t claim_units(const struct pen_contract *c, const struct pen_capacity *cap)
{
	return pen_units_on(&c->units, cap->units).guaranteed;
}

static void format_memory(char *buf, size_t n, uint64_t v, bool asked)
{
	pen_text_size(buf, n, v, asked);
}

static void format_share(char *buf, size_t n, uint64_t v, bool asked)
{
	(void)asked;
	pen_exact_share(buf, n, v);
}

static void format_units(char *buf, size_t n, uint64_t v, bool asked)
{
	(void)asked;
	snprintf(buf, n, "%llu", (unsigned long long)v);
}

struct resource {
	const char *field;
	claim_fn *claim;
	void (*format)(char *buf, size_t n, uint64_t v, bool asked);   /* asked: not rounded down */
};

static const struct resource resources[] = {
	{ "memory", claim_memory, format_memory },
	{ "compute", claim_compute, format_share },
	{ "units", claim_units, format_units },
};

struct held {
	const struct pen_contract *const *v;
	size_t n;
	const char *but;   /* name of the contract that is being replaced */
};

static uint64_t claim_of(const struct held *h, size_t i, const struct resource *r, const struct pen_capacity *cap)
{
	if (h->but[0] && !strcmp(h->v[i]->name, h->but))
		return 0;
	uint64_t claim = r->claim(h->v[i], cap);
	return r->claim == claim_memory && cap->taken ? PEN_MAX(claim, cap->taken[i]) : claim;
}

/* "a 4G, b 2G and 3 more": the largest first. Quadratic in the few that are named. */
static void name_holders(const struct held *h, const struct resource *r, const struct pen_capacity *cap, char *buf, size_t n)
{
	size_t named[HOLDERS_NAMED], n_named = 0, holders = 0, len = 0;

	for (size_t i = 0; i < h->n; i++)
		holders += claim_of(h, i, r, cap) > 0;
	while (n_named < PEN_MIN(holders, (size_t)HOLDERS_NAMED)) {
		size_t best = SIZE_MAX;
		for (size_t i = 0; i < h->n; i++) {
			bool taken = false;
			for (size_t k = 0; k < n_named; k++)
				taken |= named[k] == i;
			if (!taken && claim_of(h, i, r, cap) &&
			    (best == SIZE_MAX || claim_of(h, i, r, cap) > claim_of(h, best, r, cap)))
				best = i;
		}
		named[n_named++] = best;
	}
	*buf = 0;
	for (size_t k = 0; k < n_named && len < n; k++) {
		char amount[32];
		r->format(amount, sizeof(amount), claim_of(h, named[k], r, cap), true);
		len += (size_t)snprintf(buf + len, n - len, "%s'%s' %s", k ? ", " : "", h->v[named[k]]->name, amount);
	}
	if (holders > n_named && len < n) {
		char head[360];   /* a format that stands for the whole: a reader in another language is given that */
		snprintf(head, sizeof(head), "%s", buf);
		snprintf(buf, n, _("%s and %zu more"), head, holders - n_named);
	}
}

/* By the name that was typed: a duty is guaranteed as compute is. */
static const char *field_of(const struct resource *r, const struct pen_contract *c)
{
	bool duty = r->claim == claim_compute && c->cls == PEN_CLASS_LATENCY && c->duty_ppm > c->compute.guaranteed;
	return duty ? "duty" : r->field;
}

static int admit_resource(const struct held *h, const struct resource *r, const struct pen_capacity *cap, uint64_t total,
			  const struct pen_contract *new, struct pen_err *err)
{
	uint64_t want = r->claim(new, cap), sum = 0;
	char want_text[32], total_text[32], left_text[32], holders[360];

	if (!want)
		return 0;
	r->format(want_text, sizeof(want_text), want, true);
	r->format(total_text, sizeof(total_text), total, false);
	if (want > total)
		return pen_err_x(err, -ERANGE, _("%s: %s cannot be guaranteed: the device has %s to promise"), field_of(r, new),
				 want_text, total_text);
	for (size_t i = 0; i < h->n; i++)
		if (__builtin_add_overflow(sum, claim_of(h, i, r, cap), &sum))
			sum = UINT64_MAX;
	if (sum <= total - want)
		return 0;
	r->format(left_text, sizeof(left_text), sum < total ? total - sum : 0, false);
	name_holders(h, r, cap, holders, sizeof(holders));
	return pen_err_x(err, -EAGAIN, _("%s: %s cannot be guaranteed: %s of %s left; held: %s"), field_of(r, new), want_text,
			 left_text, total_text, holders);
}

int pen_contract_admit(const struct pen_contract *const *held, size_t n_held, const struct pen_capacity *cap,
		       const struct pen_contract *new, struct pen_err *err)
{
	const struct held h = { held, n_held, new->name };
	const uint64_t total[PEN_ARRAY_LEN(resources)] = {
		cap->memory > cap->reserve ? cap->memory - cap->reserve : 0, PEN_PPM, cap->units,
	};

	if (new->units.range.guaranteed && !cap->units)
		return pen_err_x(err, -ERANGE, _("units: cannot be guaranteed: the device cannot be divided into units"));
	int waits = 0;
	for (size_t i = 0; i < PEN_ARRAY_LEN(resources); i++) {
		/* "Never" outranks "not now": whoever waits for the one would wait in vain for the other. */
		int r = admit_resource(&h, &resources[i], cap, total[i], new, waits < 0 ? NULL : err);
		if (r == -ERANGE)
			return waits < 0 ? admit_resource(&h, &resources[i], cap, total[i], new, err) : r;
		if (r < 0)
			waits = r;
	}
	return waits;
}
