/* SPDX-License-Identifier: Apache-2.0 */
/* penstock inspect: the contract, what it is worth at this moment, and by which mechanism each promise is kept. */
#include "base/auto.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/promises.h"
#include "contract/contract.h"

#include <string.h>

static void line(const char *what, const char *value)
{
	fputs("  ", stdout);
	pen_put_padded(stdout, what, 18);
	printf("%s\n", value);
}

static void print_contract(const json_t *contract)
{
	for (size_t i = 0;; i++) {
		const struct pen_contract_field *f = pen_contract_field(i);
		if (!f)
			return;
		const json_t *v = json_object_get(contract, f->name);
		char number[32];
		snprintf(number, sizeof(number), "%lld", json_integer_value(v));
		line(f->name, json_is_integer(v) ? number : json_is_string(v) ? json_string_value(v) : "-");
	}
}

static void print_held(const json_t *dev)
{
	const json_t *held = json_object_get(dev, "held_ns");
	const char *reason;
	json_t *v;
	char text[256] = "", one[32];
	json_object_foreach((json_t *)held, reason, v) {
		if (json_integer_value(v) == 0)
			continue;
		size_t n = strlen(text);
		snprintf(text + n, sizeof(text) - n, "%s%s %s", n ? ", " : "", reason,
			 pen_format_duration(one, sizeof(one), (uint64_t)json_integer_value(v)));
	}
	line(_("held"), *text ? text : _("never"));
}

static void print_response(const json_t *dev)
{
	const json_t *r = json_object_get(dev, "response");
	char p50[32], p90[32], p99[32], text[160];
	if (pen_json_int(r, "count") == 0)
		return;
	snprintf(text, sizeof(text), "P50 %s, P90 %s, P99 %s, %lld %s, %lld %s",
		 pen_format_duration(p50, sizeof(p50), (uint64_t)pen_json_int(r, "p50_ns")),
		 pen_format_duration(p90, sizeof(p90), (uint64_t)pen_json_int(r, "p90_ns")),
		 pen_format_duration(p99, sizeof(p99), (uint64_t)pen_json_int(r, "p99_ns")), pen_json_int(r, "count"),
		 _("requests"), pen_json_int(r, "missed"), _("above the target"));
	line(_("response"), text);
}

/* What the vendor's library says of its processes, apart from what they were charged by their calls. */
static void print_audit(const json_t *dev)
{
	char a[32], b[32], text[200];
	const json_t *whole = json_object_get(dev, "mem_device_bytes");
	uint64_t overhead = (uint64_t)pen_json_int(dev, "mem_overhead_bytes");
	if (overhead || json_is_integer(whole)) {
		snprintf(text, sizeof(text), _("%s for contexts, modules and the like, charged as well (%s in all by the device's library)"),
			 pen_format_bytes(a, sizeof(a), overhead),
			 json_is_integer(whole) ? pen_format_bytes(b, sizeof(b), (uint64_t)json_integer_value(whole)) : "?");
		line(_("beside it"), text);
	}
	const json_t *enc = json_object_get(dev, "enc_ppm"), *dec = json_object_get(dev, "dec_ppm");
	if (!json_is_integer(enc) && !json_is_integer(dec))
		return;
	snprintf(text, sizeof(text), _("encoder %s, decoder %s of the device; their time is not gated"),
		 pen_format_share(a, sizeof(a), (uint32_t)json_integer_value(enc)), pen_format_share(b, sizeof(b), (uint32_t)json_integer_value(dec)));
	line(_("video"), text);
}

static void print_device(const json_t *dev)
{
	char a[32], b[32], text[160];
	printf("%s %s\n", _("on"), pen_json_str(dev, "key"));
	const json_t *limit = json_object_get(dev, "mem_limit_bytes");
	snprintf(text, sizeof(text), "%s / %s, %s %s, %lld %s",
		 pen_format_bytes(a, sizeof(a), (uint64_t)pen_json_int(dev, "mem_used_bytes")),
		 json_is_integer(limit) ? pen_format_bytes(b, sizeof(b), (uint64_t)json_integer_value(limit)) : _("unlimited"),
		 _("peak"), pen_format_bytes((char[32]){ 0 }, 32, (uint64_t)pen_json_int(dev, "mem_peak_bytes")),
		 pen_json_int(dev, "denials"), _("refused"));
	line(_("memory"), json_is_true(json_object_get(dev, "mem_used_assumed")) ?
		     _("not known yet: the daemon was started anew, and its processes are coming back") : text);
	print_audit(dev);
	if (pen_json_int(dev, "denials_lent")) {
		snprintf(text, sizeof(text), _("%lld refused for what others are promised or use"), pen_json_int(dev, "denials_lent"));
		line("", text);
	}
	snprintf(text, sizeof(text), "%s %s, %s %s", pen_format_share(a, sizeof(a), (uint32_t)pen_json_int(dev, "share_ppm_1s")),
		 _("in the last second"), pen_format_share(b, sizeof(b), (uint32_t)pen_json_int(dev, "entitled_ppm")),
		 _("entitled"));
	line(_("share"), text);
	snprintf(text, sizeof(text), "%s, %lld %s, %lld %s, %lld %s",
		 pen_format_duration(a, sizeof(a), (uint64_t)pen_json_int(dev, "device_ns")), pen_json_int(dev, "commands"),
		 _("commands"), pen_json_int(dev, "chunks"), _("chunks"), pen_json_int(dev, "uncut"), _("long ones not cut"));
	line(_("device time"), text);
	snprintf(text, sizeof(text), "%s", pen_format_duration(a, sizeof(a), (uint64_t)pen_json_int(dev, "max_command_ns")));
	line(_("longest command"), text);
	print_held(dev);
	print_response(dev);
	json_t *clients = json_object_get(dev, "clients"), *c;
	size_t i;
	json_array_foreach(clients, i, c) {
		char mem[32];
		printf("  pid %-13lld %-16s seat %lld, %s, %s\n", pen_json_int(c, "pid"), pen_json_str(c, "comm"),
		       pen_json_int(c, "seat"), pen_json_str(c, "busy"),
		       pen_format_bytes(mem, sizeof(mem), (uint64_t)pen_json_int(c, "charged_bytes")));
	}
}

/* On the devices that it uses; on all, while it uses none. */
static void print_promises(struct pen_cli *cli, const json_t *devices)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *node = NULL;
	pen_client_request(cli, "GET", "/v1/devices", NULL, &node, &err);
	pen_promises_print(stdout, json_object_get(node, "devices"), devices);
	json_decref(node);
}

static int inspect_once(struct pen_cli *cli, void *arg)
{
	int code;
	json_t *t = pen_cli_get_tenant(cli, arg, "", &code);
	if (!t)
		return code;
	if (!pen_cli_print_json(cli, t)) {
		printf("%s (%s)\n", pen_json_str(t, "name"), pen_json_str(t, "state"));
		print_contract(json_object_get(t, "contract"));
		json_t *devices = json_object_get(t, "devices"), *dev;
		size_t i;
		json_array_foreach(devices, i, dev)
			print_device(dev);
		puts(_("how each promise is kept"));
		print_promises(cli, devices);
	}
	json_decref(t);
	return PEN_EXIT_OK;
}

int pen_cmd_inspect(struct pen_cli *cli, int argc, char **argv)
{
	int n = pen_cli_arguments(cli, argc, argv);
	if (n < 0)
		return PEN_EXIT_USAGE;
	if (n != 1)
		return pen_cli_fail(PEN_EXIT_USAGE, "inspect", _("which tenant?"));
	return pen_cli_watch(cli, inspect_once, argv[1]);
}
