/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock alloc: makes a contract for a container and prints what the container's engine must be told. It stands until `penstock
 * end`, so that a container may be stopped and started again under it; with --once it ends with the container's last process.
 *
 * What is printed is what the daemon's CDI file says as well: the tenant directory, where every shim looks first, our libraries, the driver's
 * libraries and the device nodes. The image needs nothing.
 */
#include "base/auto.h"
#include "base/mounts.h"
#include "cli/cli.h"
#include "cli/inject.h"
#include "cli/target.h"
#include "contract/contract.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NO_PROMISES (1u << PEN_FIELD_name | 1u << PEN_FIELD_device)
#define WAIT_STEP_NS (100 * 1000 * 1000)

#define PEN_FORMATS(X) X(PODMAN, "podman") X(DOCKER, "docker") X(CDI, "cdi") X(ENV, "env")
enum format {
#define X(id, name) FORMAT_##id,
	PEN_FORMATS(X)
#undef X
	FORMAT_MAX_,
};

struct alloc {
	struct pen_cli *cli;
	struct pen_contract contract;
	enum format format;
	bool wait, once;
};

static void usage(const struct pen_cli *cli)
{
	puts(_("Usage: penstock alloc [OPTIONS] --FIELD VALUE...\n"
	       "Make a contract for a container, and print what docker or podman must be told.\n\nContract:"));
	for (size_t i = 0;; i++) {
		const struct pen_contract_field *f = pen_contract_field(i);
		if (!f)
			break;
		char option[64];
		snprintf(option, sizeof(option), "--%s %s", f->name, _(f->arg));
		pen_cli_put_option(stdout, option, _(f->help));
	}
	putchar('\n');
	pen_cli_put_options(stdout, cli->command);
}

static int take_format(struct alloc *a, const char *value)
{
	static const char *const names[] = {
#define X(id, name) name,
		PEN_FORMATS(X)
#undef X
	};
	for (int i = 0; i < FORMAT_MAX_; i++) {
		if (!strcmp(value, names[i])) {
			a->format = (enum format)i;
			return 0;
		}
	}
	return pen_cli_fail(PEN_EXIT_USAGE, "alloc", _("--format '%s' is not known; allowed: podman, docker, cdi, env"), value);
}

/* --NAME VALUE or --NAME=VALUE. Return: 0, or an exit code, reported. */
static int take_option(struct alloc *a, int argc, char **argv, int *i)
{
	char name[64];
	const char *arg = argv[*i], *eq = strchr(arg, '=');
	size_t len = eq ? (size_t)(eq - arg) : strlen(arg);
	if (len < 3 || len - 2 >= sizeof(name) || strncmp(arg, "--", 2) != 0)
		return pen_cli_fail(PEN_EXIT_USAGE, "alloc", _("unknown option '%s'"), arg);
	memcpy(name, arg + 2, len - 2);
	name[len - 2] = 0;
	bool format = !strcmp(name, "format"), file = !strcmp(name, "contract");
	if (!format && !file && pen_contract_field_find(name) < 0)
		return pen_cli_fail(PEN_EXIT_USAGE, "alloc", _("unknown option '%s'"), arg);
	if (!eq && *i + 1 >= argc)
		return pen_cli_fail(PEN_EXIT_USAGE, "alloc", _("--%s needs a value"), name);
	const char *value = eq ? eq + 1 : argv[++*i];
	++*i;
	if (format)
		return take_format(a, value);
	struct pen_err err = PEN_ERR_INIT;
	int r = file ? pen_contract_load_file(value, &a->contract, &err) : pen_contract_set(&a->contract, name, value, &err);
	return r < 0 ? pen_cli_fail(PEN_EXIT_USAGE, "alloc", "%s", err.text) : 0;
}

/* Return: the tenant, in force, or NULL and *@ret_code, reported. */
static json_t *make(struct alloc *a, int *ret_code)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *tenant = NULL, *body = json_pack("{s:o, s:b, s:b}", "contract", pen_contract_to_json(&a->contract), "wait", a->wait,
						 "ephemeral", a->once);
	int r = pen_client_request(a->cli, "POST", "/v1/tenants", body, &tenant, &err);
	json_decref(body);
	while (r == 202 || (r == 200 && !strcmp(pen_json_str(tenant, "state"), "waiting"))) {
		char path[256] = "/v1/tenants/";
		pen_client_escape(path, sizeof(path), pen_json_str(tenant, "name"));
		nanosleep(&(struct timespec){ .tv_nsec = WAIT_STEP_NS }, NULL);
		json_decref(tenant);
		tenant = NULL;
		r = pen_client_request(a->cli, "GET", path, NULL, &tenant, &err);
	}
	if (r == 200 || r == 201)
		return tenant;
	json_decref(tenant);
	*ret_code = pen_client_exit("alloc", r, &err);
	return NULL;
}

/* For a shell to read: in quotes where it must be. */
static void put_word(const char *text)
{
	if (text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:,=@%")] == 0) {
		fputs(text, stdout);
		return;
	}
	putchar('\'');
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
	}
	putchar('\'');
}

static void put_option(const char *option, const char *value)
{
	printf("%s ", option);
	put_word(value);
	putchar(' ');
}

static void put_mount(const char *host, const char *inside)
{
	char value[3 * PATH_MAX];
	snprintf(value, sizeof(value), "%s:%s:ro", host, inside);
	put_option("-v", value);
}

/* Of a daemon that does not know: one in a build tree, where ours lie in several folders. */
static int put_own_shims(void)
{
	char shims[PATH_MAX];
	static const char *const where[] = { "../lib/penstock/libpenstock-opencl.so", "../shim/opencl/libpenstock-opencl.so", NULL };
	if (pen_install_path(where, shims, sizeof(shims)) < 0)
		return pen_cli_fail(PEN_EXIT_FAILURE, "alloc", _("the OpenCL layer was not found beside penstock"));
	put_mount(shims, PEN_SHIMS_MOUNT "/libpenstock-opencl.so");
	put_option("-e", "OPENCL_LAYERS=" PEN_SHIMS_MOUNT "/libpenstock-opencl.so");
	struct pen_cuda_paths cuda;
	pen_cuda_find(&cuda);
	if (*cuda.driver && *cuda.shim) {
		put_mount(cuda.shim, PEN_SHIMS_MOUNT "/cuda/libcuda.so.1");
		if (*cuda.view)
			put_mount(cuda.view, PEN_SHIMS_MOUNT "/cuda/libnvidia-ml.so.1");
		put_option("-e", "LD_LIBRARY_PATH=" PEN_SHIMS_MOUNT "/cuda:" PEN_NVIDIA_LIBRARIES);
	}
	return PEN_EXIT_OK;
}

/* @o: what the daemon's CDI file has of it as well. */
static void put_list(const json_t *o)
{
	size_t i;
	json_t *v;
	const char *name;
	json_array_foreach(json_object_get(o, "mounts"), i, v)
		if (strcmp(pen_json_str(v, "container"), PEN_TENANT_MOUNT))
			put_mount(pen_json_str(v, "host"), pen_json_str(v, "container"));
	json_array_foreach(json_object_get(o, "nodes"), i, v)
		if (json_is_string(v))
			put_option("--device", json_string_value(v));
	json_object_foreach(json_object_get(o, "env"), name, v) {
		char value[2 * PATH_MAX];
		if (!json_is_string(v))
			continue;
		snprintf(value, sizeof(value), "%s=%s", name, json_string_value(v));
		put_option("-e", value);
	}
}

static bool has_mount(const json_t *o, const char *inside)
{
	size_t i;
	const json_t *v;
	json_array_foreach(json_object_get(o, "mounts"), i, v)
		if (!strcmp(pen_json_str(v, "container"), inside))
			return true;
	return false;
}

static int put_engine(const struct pen_cli *cli, const json_t *tenant)
{
	struct pen_err err = PEN_ERR_INIT;
	char path[256] = "/v1/tenants/", whole[sizeof(path) + 16];
	pen_client_escape(path, sizeof(path), pen_json_str(tenant, "name"));
	snprintf(whole, sizeof(whole), "%s/container", path);
	json_t *o = NULL;
	int r = pen_client_request(cli, "GET", whole, NULL, &o, &err);
	if (r != 200 && r != 404)   /* 404: the version before has none */
		return pen_client_exit("alloc", r, &err);
	/* Who is not root cannot reach what is made for root's engines, and maps himself to a user that may read his own token. */
	const char *dir = pen_json_str(tenant, geteuid() == 0 ? "mount_dir" : "dir");
	if (!*dir)   /* nor does that version make a directory for containers */
		dir = pen_json_str(tenant, "dir");
	if (!*dir) {
		json_decref(o);
		return pen_cli_fail(PEN_EXIT_FAILURE, "alloc", "%s", _("the daemon named no tenant directory"));
	}
	put_mount(dir, PEN_TENANT_MOUNT);
	int code = has_mount(o, PEN_SHIMS_MOUNT) ? PEN_EXIT_OK : put_own_shims();
	if (code == PEN_EXIT_OK) {
		put_list(o);
		putchar('\n');
	}
	json_decref(o);
	return code;
}

static int put_env(const json_t *tenant)
{
	static const char *const names[] = { "PENSTOCK_TENANT", "OPENCL_LAYERS", "LD_LIBRARY_PATH" };
	struct pen_err err = PEN_ERR_INIT;
	if (pen_inject(pen_json_str(tenant, "dir"), &err) < 0)
		return pen_cli_fail(PEN_EXIT_FAILURE, "alloc", "%s", err.text);
	for (size_t i = 0; i < PEN_ARRAY_LEN(names); i++) {
		const char *value = getenv(names[i]);
		if (!value)
			continue;
		printf("%s=", names[i]);
		put_word(value);
		putchar('\n');
	}
	return PEN_EXIT_OK;
}

static int allocate(struct alloc *a)
{
	int code = PEN_EXIT_OK;
	json_t *tenant = make(a, &code);
	if (!tenant)
		return code;
	if (!pen_cli_print_json(a->cli, tenant)) {
		if (a->format == FORMAT_CDI)
			printf("penstock.io/tenant=%s\n", pen_json_str(tenant, "name"));   /* src/integration/cdi */
		else
			code = a->format == FORMAT_ENV ? put_env(tenant) : put_engine(a->cli, tenant);
		if (!a->cli->quiet && !(a->contract.set_mask & ~NO_PROMISES))
			fprintf(stderr, _("penstock: contract %s limits and guarantees nothing; --memory and --compute do\n"), pen_json_str(tenant, "name"));
		if (!a->cli->quiet)
			pen_target_doubt(&a->contract, pen_json_str(tenant, "name"));
		if (!a->cli->quiet)
			fprintf(stderr, _("penstock: contract %s stands; 'penstock end %s' ends it\n"), pen_json_str(tenant, "name"),
				pen_json_str(tenant, "name"));
	}
	pen_cli_tell_unstored(tenant, pen_json_str(tenant, "name"));
	json_decref(tenant);
	return code;
}

int pen_cmd_alloc(struct pen_cli *cli, int argc, char **argv)
{
	struct alloc a = { .cli = cli };
	pen_contract_init(&a.contract);
	int code = 0;
	for (int i = 1; i < argc && !code;) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			usage(cli);
			return PEN_EXIT_OK;
		}
		bool wait = !strcmp(argv[i], "--wait"), once = !strcmp(argv[i], "--once");
		if (wait || once) {
			a.wait |= wait;
			a.once |= once;
			i++;
			continue;
		}
		int r = pen_cli_global(cli, argc, argv, &i);
		if (r < 0)
			return PEN_EXIT_USAGE;
		if (!r)
			code = take_option(&a, argc, argv, &i);
	}
	struct pen_err err = PEN_ERR_INIT;
	if (!code && pen_contract_validate(&a.contract, &err) < 0)
		code = pen_cli_fail(PEN_EXIT_USAGE, "alloc", "%s", err.text);
	return code ? code : allocate(&a);
}
