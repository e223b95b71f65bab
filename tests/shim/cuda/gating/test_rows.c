/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of cuda.def that gives work to a device: its hook calls exactly that entry point of the driver, once, and through the
 * gate; what the driver calls of itself is handed through. The arguments are made from the row's types: every argument of a call is
 * an integer or a pointer, or a structure that is passed like one.
 */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

typedef CUresult (*call_fn)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
			    uintptr_t, uintptr_t, uintptr_t);
typedef void (*any_fn)(void);

struct row { const char *symbol, *class, *types; any_fn hook; };

#define HOOK_PASS(symbol) NULL
#define HOOK_ANY(symbol) NULL
#define HOOK_RESOLVE(symbol) NULL
#define HOOK_MEM(symbol) NULL
#define HOOK_FREE(symbol) NULL
#define HOOK_INFO(symbol) NULL
#define HOOK_CONTEXT(symbol) NULL
#define HOOK_CAPTURE(symbol) (any_fn)pen_##symbol
#define HOOK_STREAM(symbol) (any_fn)pen_##symbol
#define HOOK_LAUNCH(symbol) (any_fn)pen_##symbol
#define HOOK_COPY(symbol) (any_fn)pen_##symbol
static const struct row rows[] = {
#define PEN_CU(symbol, family, since, thread, class, types) { #symbol, #class, #types, HOOK_##class(symbol) },
#include "api/cuda.def"
};

/* LAUNCH rows that give nothing to the device themselves. */
static const char *const no_work[] = { "cuLaunchHostFunc", "cuLaunchHostFunc_ptsz", "cuGraphExecUpdate", "cuGraphExecUpdate_v2",
				       "cuGraphExecKernelNodeSetParams", "cuGraphExecKernelNodeSetParams_v2",
				       "cuGraphExecMemcpyNodeSetParams", "cuGraphExecMemsetNodeSetParams",
				       "cuGraphExecChildGraphNodeSetParams", "cuGraphExecNodeSetParams", "cuGraphNodeSetEnabled" };

static bool gives_work(const struct row *r)
{
	if (strcmp(r->class, "LAUNCH") && strcmp(r->class, "COPY"))
		return false;
	for (size_t i = 0; i < sizeof(no_work) / sizeof(no_work[0]); i++)
		if (!strcmp(no_work[i], r->symbol))
			return false;
	return true;
}

static _Alignas(64) unsigned char zeros[65536];
static struct fake_fn nothing;

static void fn(void *p)
{
	(void)p;
}

static void arguments(const struct row *r, CUcontext ctx, uintptr_t *a)
{
	const char *at = r->types + 1;
	for (unsigned n = 0; n < 12 && *at && *at != ')'; n++) {
		const char *end = at + strcspn(at, ",)");
		char type[96] = "";
		memcpy(type, at, (size_t)(end - at) < sizeof(type) - 1 ? (size_t)(end - at) : sizeof(type) - 1);
		if (strchr(type, '*'))
			a[n] = (uintptr_t)zeros;
		else if (!strcmp(type, "CUfunction") || !strcmp(type, "CUgraphExec"))
			a[n] = (uintptr_t)&nothing;
		else if (!strcmp(type, "CUhostFn") || !strcmp(type, "CUstreamCallback"))
			a[n] = (uintptr_t)fn;
		else if (!strcmp(type, "CUcontext"))
			a[n] = (uintptr_t)ctx;
		else if (!strcmp(type, "CUdeviceptr"))
			a[n] = (uintptr_t)zeros + 32768;
		else if (!strcmp(type, "CUstream") || !strcmp(type, "CUgraphNode") || !strcmp(type, "CUgraph"))
			a[n] = 0;
		else
			a[n] = 4;
		at = end;
		while (*at == ',' || *at == ' ')
			at++;
	}
}

static CUresult call(const struct row *r, CUcontext ctx)
{
	uintptr_t a[12] = { 0 };
	memset(zeros, 0, sizeof(zeros));
	arguments(r, ctx, a);
	fake_uses(CU_STREAM_LEGACY);
	return ((call_fn)r->hook)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]);
}

static void test_every_row(void **state)
{
	(void)state;
	fake_open(fake_alone(), 0);
	CUcontext ctx = fake_context();
	struct pen_ledger_client *c = pen_gate_account(fake_gate());
	unsigned seen = 0;
	for (uint32_t i = 0; i < FAKE_ROWS; i++) {
		const struct row *r = &rows[i];
		if (strcmp(r->class, "LAUNCH") && strcmp(r->class, "COPY"))
			continue;
		if (!r->hook)
			fail_msg("%s has no hook", r->symbol);
		uint32_t calls = atomic_load(&fake.calls[i]);
		uint64_t commands = atomic_load(&c->commands);
		CUresult code = call(r, ctx);
		/* The end of what went on credit. */
		pen_gate_sync_end(pen_cu_stream(NULL, false)->queue, pen_gate_sync_begin(pen_cu_stream(NULL, false)->queue));
		pen_gate_sync_end(pen_cu_stream(NULL, true)->queue, pen_gate_sync_begin(pen_cu_stream(NULL, true)->queue));
		if (code != CUDA_SUCCESS)
			fail_msg("%s: %d", r->symbol, code);
		if (atomic_load(&fake.calls[i]) != calls + 1)
			fail_msg("%s: %u calls of the driver's", r->symbol, atomic_load(&fake.calls[i]) - calls);
		if (gives_work(r) && atomic_load(&c->commands) == commands)
			fail_msg("%s has not gone through the gate", r->symbol);
		seen++;
		/* Called by the driver: not again. */
		commands = atomic_load(&c->commands);
		pen_cu_thread.depth++;
		code = call(r, ctx);
		pen_cu_thread.depth--;
		if (code != CUDA_SUCCESS || atomic_load(&fake.calls[i]) != calls + 2 || atomic_load(&c->commands) != commands)
			fail_msg("%s: not handed through from inside the driver", r->symbol);
	}
	assert_in_range(seen, 120, FAKE_ROWS);
	fake_settle();
	fake_assert_clean();
}

/* A stopped tenant gets the driver's own code, and the driver is not called. */
static void test_every_row_stopped(void **state)
{
	(void)state;
	struct fake_board *b = fake_alone();
	fake_open(b, 0);
	CUcontext ctx = fake_context();
	pen_cu_stream(NULL, false);
	pen_cu_stream(NULL, true);
	b->base[0].flags = PEN_TERMS_STOP;
	fake_board_publish(b, 0);
	for (uint32_t i = 0; i < FAKE_ROWS; i++) {
		const struct row *r = &rows[i];
		if (!gives_work(r))
			continue;
		uint32_t calls = atomic_load(&fake.calls[i]);
		if (call(r, ctx) != CUDA_ERROR_NO_DEVICE || atomic_load(&fake.calls[i]) != calls)
			fail_msg("%s goes on", r->symbol);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_row), cmocka_unit_test(test_every_row_stopped) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
