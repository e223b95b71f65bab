/* SPDX-License-Identifier: Apache-2.0 */
/* penstock device drain, undrain and release: devices out of use, for as long as an operator wants. */
#include "base/auto.h"
#include "cli/cli.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define AGAIN_NS 200000000L
#define GONE_ASKS 50   /* 10 s: whatever of ours had the driver was killed, and is gone in a moment unless it hangs in there */

int pen_drain_arguments(struct pen_cli *cli, int argc, char **argv, bool *ret_wait)
{
	int kept = 1;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--wait"))
			*ret_wait = true;
		else
			argv[kept++] = argv[i];
	}
	return pen_cli_arguments(cli, kept, argv);
}

bool pen_drain_is_verb(const char *verb, bool wait)
{
	return !strcmp(verb, "drain") || !strcmp(verb, "release") || (!strcmp(verb, "undrain") && !wait);
}

/* Return: the HTTP status, or a negative errno; -EINVAL: the name cannot be one. */
static int ask(const struct pen_cli *cli, const char *verb, const char *device, json_t **ret, struct pen_err *err)
{
	char path[32];
	json_t *body = json_pack("{s:s}", "device", device);
	*ret = NULL;
	if (!body)
		return pen_err_x(err, -EINVAL, _("'%s' is no name of a device"), device);
	snprintf(path, sizeof(path), "/v1/devices/%s", verb);
	int r = pen_client_request(cli, "POST", path, body, ret, err);
	json_decref(body);
	return r;
}

/* Processes on the device; those of tenants alone if @tenants_only. */
static size_t count(const json_t *answer, bool tenants_only)
{
	size_t i, n = 0;
	json_t *o;
	json_array_foreach(json_object_get(answer, "holders"), i, o)
		n += !tenants_only || *pen_json_str(o, "tenant");
	return n;
}

static bool is_released(const json_t *answer)
{
	return json_is_true(json_object_get(json_object_get(answer, "device"), "released"));
}

static void put_holders(const json_t *answer)
{
	size_t i;
	json_t *o;
	json_array_foreach(json_object_get(answer, "holders"), i, o) {
		const char *tenant = pen_json_str(o, "tenant");
		printf("  %lld (%s) ", pen_json_int(o, "pid"), pen_json_str(o, "comm"));
		printf(*tenant ? _("of tenant %s\n") : _("of no tenant\n"), tenant);
	}
}

static void pause_a_little(void)
{
	fflush(stdout);
	nanosleep(&(struct timespec){ .tv_nsec = AGAIN_NS }, NULL);
}

/* The device that a name was taken for. @name: where an answer has none. */
static const char *key_of(const json_t *answer, const char *name)
{
	const char *key = pen_json_str(json_object_get(answer, "device"), "key");
	return *key ? key : name;
}

/* Whoever is on it is told once, before the waiting. */
static void tell_drained(const struct pen_cli *cli, const json_t *answer, const char *device, bool wait)
{
	if (wait && cli->output == PEN_OUT_JSON)   /* one object: the last */
		return;
	if (pen_cli_print_json(cli, answer))
		return;
	size_t n = count(answer, false);
	device = key_of(answer, device);
	if (!n)
		printf(_("%s is drained, and nobody is on it\n"), device);
	else
		printf(wait ? _("%s is drained; waiting for:\n") : _("%s is drained; still on it:\n"), device);
	put_holders(answer);
}

static int drain(const struct pen_cli *cli, const char *device, bool wait)
{
	for (bool told = false;; told = true) {
		struct pen_err err = PEN_ERR_INIT;
		json_t *answer;
		int r = ask(cli, "drain", device, &answer, &err);
		size_t left = count(answer, true);
		if (r == 200 && (!told || !left))
			tell_drained(cli, answer, device, wait && left);
		if (r == 200 && !told)
			pen_cli_tell_unstored(answer, device);
		json_decref(answer);
		if (r != 200)
			return pen_client_exit("device", r, &err);
		if (!wait || !left)
			return PEN_EXIT_OK;
		pause_a_little();
	}
}

static int release(const struct pen_cli *cli, const char *device, bool wait)
{
	bool told = false;
	for (int asks = 0; asks < GONE_ASKS;) {
		struct pen_err err = PEN_ERR_INIT;
		json_t *answer;
		int r = ask(cli, "release", device, &answer, &err);
		bool held = r == 409 && count(answer, false), released = r == 200 && is_released(answer);
		if (held && wait && !told)
			tell_drained(cli, answer, device, true);
		told |= held;
		if (released && !pen_cli_print_json(cli, answer))
			printf(_("%s is released: its driver may be unloaded; afterwards: penstock device undrain %s\n"), key_of(answer, device),
			       key_of(answer, device));
		if (released)
			pen_cli_tell_unstored(answer, device);
		json_decref(answer);
		if (released)
			return PEN_EXIT_OK;
		if (r != 200 && !(held && wait))
			return pen_client_exit("device", r, &err);
		asks += !held;
		pause_a_little();
	}
	return pen_cli_fail(PEN_EXIT_FAILURE, "device", _("%s: penstock-probe does not end, it hangs in the driver"), device);
}

static int undrain(const struct pen_cli *cli, const char *device)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *answer;
	int r = ask(cli, "undrain", device, &answer, &err);
	const json_t *dev = json_object_get(answer, "device");
	if (r == 200 && pen_cli_print_json(cli, answer))
		;
	else if (r == 200 && !strcmp(pen_json_str(dev, "state"), "lost"))
		printf(_("%s is not drained any more, but lost; when it has been reset: penstock config reload\n"), key_of(answer, device));
	else if (r == 200)
		printf(_("%s is in use\n"), key_of(answer, device));
	pen_cli_tell_unstored(answer, device);
	json_decref(answer);
	return r == 200 ? PEN_EXIT_OK : pen_client_exit("device", r, &err);
}

int pen_drain_run(struct pen_cli *cli, const char *verb, bool wait, int n, char **devices)
{
	int code = PEN_EXIT_OK;
	/* All of them are closed before the first is waited for. */
	for (int i = 0; i < n && wait; i++) {
		json_t *answer;
		ask(cli, "drain", devices[i], &answer, NULL);
		json_decref(answer);
	}
	for (int i = 0; i < n; i++) {
		int one = *verb == 'd' ? drain(cli, devices[i], wait) :
			  *verb == 'r' ? release(cli, devices[i], wait) : undrain(cli, devices[i]);
		code = code ? code : one;
	}
	return code;
}
