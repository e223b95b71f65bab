/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

static uint64_t mono_now(struct pen_clock *clk)
{
	(void)clk;
	return pen_mono_ns();
}

static uint64_t manual_now(struct pen_clock *clk)
{
	return clk->manual_ns;
}

void pen_clock_init_mono(struct pen_clock *clk)
{
	*clk = (struct pen_clock){ .now_ns = mono_now };
}

void pen_clock_init_manual(struct pen_clock *clk, uint64_t start_ns)
{
	*clk = (struct pen_clock){ .now_ns = manual_now, .manual_ns = start_ns };
}

void pen_clock_set(struct pen_clock *clk, uint64_t now_ns)
{
	if (now_ns > clk->manual_ns)
		clk->manual_ns = now_ns;
}

void pen_clock_advance(struct pen_clock *clk, uint64_t delta_ns)
{
	clk->manual_ns += delta_ns;
}
