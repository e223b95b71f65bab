/* SPDX-License-Identifier: Apache-2.0 */
/* penstock ps: one line a tenant and device. */
#include "base/auto.h"
#include "base/units.h"
#include "cli/cli.h"
#include "contract/contract.h"

#include <string.h>

#define CELL 48

static const char *const head[] = { "NAME", "CLASS", "STATE", "MEMORY", "OVERHEAD", "LIMIT", "SHARE", "COMPUTE", "P99", "TARGET",
				    "PIDS", "DEVICE", "POD" };   /* the last one where an orchestrator has made a tenant */
/* Which go first where a terminal is narrow. */
static const unsigned char drop[] = { 0, 9, 0, 0, 4, 0, 0, 6, 5, 3, 2, 7, PEN_COLUMN_CUT };

/* Namespace, pod and container, as far as they are known. */
static void name_pod(const json_t *tenant, char *buf, size_t n)
{
	const json_t *labels = json_object_get(tenant, "labels");
	const char *pod = pen_json_str(labels, "pod"), *container = pen_json_str(labels, "container");
	if (*pod)
		snprintf(buf, n, "%s/%s/%s", pen_json_str(labels, "namespace"), pod, container);
	else
		snprintf(buf, n, "%s%s%s", pen_json_str(labels, "pod_uid"), *container ? "/" : "", container);
}

/* The upper end of "1G..2G", of "1G" itself; nothing of "1G.." and "unlimited". */
static const char *cap_of(const char *range)
{
	const char *dots = strstr(range, "..");
	return dots ? dots + 2 : strcmp(range, "unlimited") ? range : "";
}

static void add_row(struct pen_table *t, const json_t *tenant, const json_t *dev, bool wide)
{
	const json_t *contract = json_object_get(tenant, "contract");
	bool returns = json_is_true(json_object_get(dev, "mem_used_assumed"));   /* after a restart of the daemon; nothing of it is known yet */
	char mem[CELL] = "", overhead[CELL] = "", limit[CELL] = "", share[CELL] = "", p99[CELL] = "", pids[CELL] = "";
	if (dev) {
		const json_t *recent = json_object_get(json_object_get(dev, "response"), "recent");
		uint64_t cap = (uint64_t)pen_json_int(dev, "mem_limit_bytes");
		uint64_t p99_ns = (uint64_t)pen_json_int(recent, "p99_ns");
		uint64_t beside = (uint64_t)pen_json_int(dev, "mem_overhead_bytes");
		/* What counts against the limit, so that the column says the same where there is no room for the next one. */
		if (!returns)
			pen_format_bytes(mem, sizeof(mem), (uint64_t)pen_json_int(dev, "mem_used_bytes") + beside);
		if (beside)
			pen_format_bytes(overhead, sizeof(overhead), beside);
		if (cap && json_is_integer(json_object_get(dev, "mem_limit_bytes")))
			pen_format_bytes(limit, sizeof(limit), cap);
		pen_format_share(share, sizeof(share), (uint32_t)pen_json_int(dev, "share_ppm_1s"));
		if (p99_ns)
			pen_format_duration(p99, sizeof(p99), p99_ns);
		if (!returns)
			snprintf(pids, sizeof(pids), "%zu", json_array_size(json_object_get(dev, "clients")));
	}
	/* Before a process has attached: what the contract says, on the device that it holds. */
	const json_t *held_on = json_object_get(tenant, "held_on");
	const char *held = json_array_size(held_on) == 1 ? json_string_value(json_array_get(held_on, 0)) : NULL;
	if (!dev)
		snprintf(limit, sizeof(limit), "%s", cap_of(pen_json_str(contract, "memory")));
	const char *sla = pen_json_str(contract, "sla");
	const char *key = dev ? pen_json_str(dev, "key") : held ? held : "";
	const char *state = json_is_true(json_object_get(tenant, "lapsed")) ? "lapsed" : returns ? "returning" : pen_json_str(tenant, "state");
	char pod[600];
	name_pod(tenant, pod, sizeof(pod));
	const char *cells[] = { pen_json_str(tenant, "name"), pen_json_str(contract, "class"), state, mem, overhead, limit, share,
				pen_json_str(contract, "compute"), p99, strcmp(sla, "none") ? sla : "", pids,
				wide ? key : NULL, pod };
	char cut[24];
	if (!wide) {
		snprintf(cut, sizeof(cut), "%s", key);
		cells[PEN_ARRAY_LEN(head) - 2] = cut;
	}
	pen_table_row(t, cells);
}

struct names {
	int n;
	char **v;
};

static bool wanted(const char *name, const struct names *names)
{
	for (int i = 0; i < names->n; i++)
		if (!strcmp(names->v[i], name))
			return true;
	return names->n == 0;
}

/* Is the k-th name there? One that was given twice counts once. */
static bool has_name(const json_t *tenants, const struct names *names, int k)
{
	size_t i;
	json_t *tenant;
	for (int before = 0; before < k; before++)
		if (!strcmp(names->v[before], names->v[k]))
			return true;
	json_array_foreach(tenants, i, tenant)
		if (!strcmp(pen_json_str(tenant, "name"), names->v[k]))
			return true;
	return false;
}

static void print_table(const struct pen_cli *cli, const json_t *tenants)
{
	size_t i, k;
	json_t *tenant, *dev;
	bool pods = false;
	json_array_foreach(tenants, i, tenant)
		pods |= *pen_json_str(tenant, "owner") != 0;
	struct pen_table *t = pen_table_create(PEN_ARRAY_LEN(head) - !pods);
	pen_table_row(t, head);
	json_array_foreach(tenants, i, tenant) {
		json_t *devices = json_object_get(tenant, "devices");
		json_array_foreach(devices, k, dev)
			add_row(t, tenant, dev, cli->output == PEN_OUT_WIDE);
		if (json_array_size(devices) == 0)
			add_row(t, tenant, NULL, cli->output == PEN_OUT_WIDE);
	}
	if (cli->output != PEN_OUT_WIDE)
		pen_table_fit(t, drop);
	pen_table_print(t, stdout, cli->no_headers);
	pen_table_destroy(t);
}

static int print_once(struct pen_cli *cli, void *arg)
{
	const struct names *names = arg;
	int code;
	json_t *answer = pen_cli_get(cli, "/v1/tenants", &code);
	if (!answer)
		return code;
	json_t *kept = json_array(), *tenant;
	size_t i;
	json_array_foreach(json_object_get(answer, "tenants"), i, tenant)
		if (wanted(pen_json_str(tenant, "name"), names))
			json_array_append(kept, tenant);
	for (int k = 0; k < names->n; k++)
		if (!has_name(kept, names, k))
			code = pen_cli_no_tenant(cli->command->name, names->v[k], json_object_get(answer, "tenants"));
	json_object_set_new(answer, "tenants", kept);
	if (code != PEN_EXIT_OK && json_array_size(kept) == 0) {
		json_decref(answer);
		return code;
	}
	if (pen_cli_print_json(cli, answer))
		;
	else if (cli->output == PEN_OUT_NAME)
		json_array_foreach(kept, i, tenant)
			puts(pen_json_str(tenant, "name"));
	else
		print_table(cli, kept);
	json_decref(answer);
	return code;
}

int pen_cmd_ps(struct pen_cli *cli, int argc, char **argv)
{
	int n = pen_cli_arguments(cli, argc, argv);
	if (n < 0)
		return PEN_EXIT_USAGE;
	struct names names = { .n = n, .v = argv + 1 };
	return pen_cli_watch(cli, print_once, &names);
}
