/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API without its transport: first byte method and rights, then the path with its query up to a newline, then
 * the body. One daemon without sockets, probe, store or tick thread lives through all inputs of a run; its tenants'
 * directories are made below a temporary directory and go with the tenants.
 */
#include "base/auto.h"
#include "daemon/api.h"

#include <event2/event.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct pen_daemon d;   /* large, and zero */
static char dir[] = "/tmp/penstock-fuzz-XXXXXX";

/* What main.c and the server do, and this does without. */
void pen_daemon_quit(struct pen_daemon *daemon, const char *why)
{
	(void)daemon, (void)why;
}

void pen_daemon_maybe_quit(struct pen_daemon *daemon)
{
	(void)daemon;
}

void pen_daemon_probed(struct pen_daemon *daemon)
{
	(void)daemon;
}

static void clean_up(void)
{
	char path[64];
	while (d.tenants)
		pen_tenant_end(&d, d.tenants, "end");
	pen_events_free(&d);
	pen_device_free_all(&d);
	event_base_free(d.base);
	snprintf(path, sizeof(path), "%s/tenants", dir);
	rmdir(path);
	rmdir(dir);
}

static void start(void)
{
	static const struct pen_device_facts facts = { "test:p/one#0", "One", "test", NULL, UINT64_C(1) << 30, 8 };
	struct pen_device *dev;
	if (d.base)
		return;
	pen_log_set_level(PEN_LOG_ERROR);
	pen_config_init(&d.cfg);
	if (!mkdtemp(dir) || pen_config_set(&d.cfg, "runtime_dir", dir, NULL) < 0)
		abort();
	d.base = event_base_new();
	d.table = pen_locked_alloc(sizeof(*d.table));
	d.generation = 1;
	if (!d.base || !d.table || pen_events_open(&d) < 0 || pen_device_learn(&d, &facts, PEN_DEVICE_OK, &dev) < 0)
		abort();
	atexit(clean_up);
}

/* The answer must be there, be an object with a schema, and print. */
static void check(const struct pen_api_call *call)
{
	if (call->status < 200 || call->status > 599)
		abort();
	if (call->text)
		return;
	if (!json_is_object(call->answer) || !json_object_get(call->answer, "schema"))
		abort();
	pen_auto_free char *text = json_dumps(call->answer, 0);
	if (!text)
		abort();
}

/* A run must not keep what its inputs made: directories and memory would grow without end. */
static void forget_tenants(void)
{
	if (HASH_COUNT(d.tenants) < 16)
		return;
	while (d.tenants)
		pen_tenant_end(&d, d.tenants, "enough");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	start();
	if (size < 2)
		return 0;
	const uint8_t *end = memchr(data + 1, '\n', size - 1);
	size_t head = end ? (size_t)(end - data) - 1 : size - 1;
	pen_auto_free char *path = strndup((const char *)data + 1, head);
	if (!path)
		return 0;
	char *query = strchr(path, '?');
	if (query)
		*query++ = 0;
	struct pen_api_call call = { .d = &d, .method = (enum pen_api_method)(data[0] % 5), .path = path, .query = query,
				     .may_change = data[0] & 0x80, .uid = getuid(), .gid = getgid() };
	/* Not a reload: it would read the configuration of this machine. */
	if (!strcmp(path, "/v1/config/reload"))
		return 0;
	call.body = end ? (const char *)end + 1 : "";
	call.body_len = end ? size - head - 2 : 0;
	pen_api_run(&call);
	check(&call);
	pen_api_finish(&call);
	forget_tenants();
	return 0;
}
