/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/options.h"

#include "base/clock.h"
#include "base/units.h"
#include "board/feature.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Long name, short code, argument, help: drives getopt and --help. */
#define OPTIONS(X) \
	X("config", 'c', "FILE", "configuration; default " PEN_CONFIG_FILE) \
	X("socket", 's', "PATH", "control socket; default penstock.sock in the runtime directory") \
	X("runtime-dir", 'r', "DIR", "sockets and tenant directories") \
	X("state-dir", 'd', "DIR", "database") \
	X("http", 'H', "ADDR:PORT", "read-only HTTP, or none") \
	X("tick", 't', "TIME", "how often policy decides") \
	X("lease", 'L', "TIME", "how long terms hold without the daemon; default 200ms") \
	X("probe", 'P', "FILE", "the program that finds devices") \
	X("no-probe", 'N', NULL, "know only the devices that tenants bring") \
	X("log-level", 'l', "LEVEL", "error, warn, info or debug") \
	X("private", 'p', NULL, "for one user; ends with its last tenant") \
	X("ready-fd", 'R', "N", "write a byte to descriptor N when serving, then log to penstockd.log in the runtime directory") \
	X("features", 'F', NULL, "print what this kernel offers, as JSON, and end") \
	X("help", 'h', NULL, "this list") \
	X("version", 'V', NULL, "print the version")

static void print_help(void)
{
	puts("usage: penstockd [options]\n");
#define X(name, code, arg, help)                                                            \
	{                                                                                   \
		const char *a = arg;                                                        \
		char left[40];                                                              \
		snprintf(left, sizeof(left), "--%s%s%s", name, a ? " " : "", a ? a : "");   \
		printf("  %-24s %s\n", left, help);                                         \
	}
	OPTIONS(X)
#undef X
	puts("\nExit code: 0 ended as asked, 1 could not run, 2 usage.");
}

/* For `penstock doctor`, which must not know the board. The texts are constants of ours: nothing in them to escape. */
static void print_features(void)
{
	uint32_t have = pen_board_features();
	const char *comma = "";
	fputs("{\"schema\":\"penstock/v1\",\"features\":[", stdout);
#define X(id, name, since, without)                                                                              \
	printf("%s{\"name\":\"%s\",\"since\":\"%s\",\"without\":\"%s\",\"present\":%s}", comma, name, since, without,   \
	       have & PEN_FEATURE_##id ? "true" : "false");                                                              \
	comma = ",";
	PEN_BOARD_FEATURES(X)
#undef X
	puts("]}");
}

static int lease_parse(const char *text, uint64_t *ret_ns, struct pen_err *err)
{
	uint64_t ns;
	if (pen_parse_duration(text, &ns) < 0 || ns < 20 * PEN_MS || ns > 10 * PEN_S)
		return pen_err_x(err, -EINVAL, "--lease '%s': allowed: a time from 20ms to 10s", text);
	*ret_ns = ns;
	return 0;
}

int pen_options_parse(struct pen_options *o, int argc, char **argv, struct pen_err *err)
{
	static const struct option longs[] = {
#define X(name, code, arg, help) { name, (arg) != NULL ? required_argument : no_argument, NULL, code },
		OPTIONS(X)
#undef X
		{ NULL, 0, NULL, 0 }
	};
	*o = (struct pen_options){ .lease_ns = PEN_LEASE_NS_DEFAULT, .ready_fd = -1 };
	int c;
	optind = 1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
		switch (c) {
		case 'c': o->config_path = optarg; break;
		case 's': o->socket = optarg; break;
		case 'r': o->runtime_dir = optarg; break;
		case 'd': o->state_dir = optarg; break;
		case 'H': o->http = optarg; break;
		case 't': o->tick = optarg; break;
		case 'P': o->probe = optarg; break;
		case 'l': o->log_level = optarg; break;
		case 'N': o->no_probe = true; break;
		case 'p': o->is_private = true; break;
		case 'L':
			if (lease_parse(optarg, &o->lease_ns, err) < 0)
				return -EINVAL;
			break;
		case 'R':
			if (sscanf(optarg, "%d", &o->ready_fd) != 1 || o->ready_fd < 3)
				return pen_err_x(err, -EINVAL, "--ready-fd '%s': allowed: an open descriptor from 3 up", optarg);
			break;
		case 'F': print_features(); return PEN_OPTIONS_DONE;
		case 'h': print_help(); return PEN_OPTIONS_DONE;
		case 'V': puts("penstockd " PEN_VERSION); return PEN_OPTIONS_DONE;
		case ':': return pen_err_x(err, -EINVAL, "%s needs a value; see --help", argv[optind - 1]);
		default: return pen_err_x(err, -EINVAL, "unknown option '%s'; see --help", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return pen_err_x(err, -EINVAL, "unexpected argument '%s'; see --help", argv[optind]);
	return PEN_OPTIONS_RUN;
}

/* Of a private daemon: the same rule as the command line's, so that both find each other. */
static void private_runtime_dir(char *buf, size_t n)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	if (xdg && xdg[0] == '/')
		snprintf(buf, n, "%s/penstock", xdg);
	else
		snprintf(buf, n, "/tmp/penstock-%u", (unsigned)getuid());
}

static int set(struct pen_config *cfg, const char *key, const char *value, struct pen_err *err)
{
	return value ? pen_config_set(cfg, key, value, err) : 0;
}

/* The runtime directory is the socket's, unless it is given by itself. */
static int set_places(const struct pen_options *o, struct pen_config *cfg, struct pen_err *err)
{
	char dir[PEN_CONFIG_PATH_MAX + 1] = "", state[PEN_CONFIG_PATH_MAX + 1];
	if (o->runtime_dir)
		snprintf(dir, sizeof(dir), "%s", o->runtime_dir);
	else if (o->socket) {
		snprintf(dir, sizeof(dir), "%s", o->socket);
		char *slash = strrchr(dir, '/');
		if (!slash)
			return pen_err_x(err, -EINVAL, "--socket '%s': allowed: an absolute path", o->socket);
		*(slash == dir ? slash + 1 : slash) = 0;
	} else if (o->is_private) {
		private_runtime_dir(dir, sizeof(dir));
	}
	if (dir[0] && pen_config_set(cfg, "runtime_dir", dir, err) < 0)
		return -EINVAL;
	if (set(cfg, "socket", o->socket, err) < 0)
		return -EINVAL;
	if (o->state_dir)
		return set(cfg, "state_dir", o->state_dir, err);
	if (!o->is_private)
		return 0;
	snprintf(state, sizeof(state), "%.240s/state", cfg->runtime_dir);
	return pen_config_set(cfg, "state_dir", state, err);
}

int pen_options_config(const struct pen_options *o, struct pen_config *ret_cfg, struct pen_err *err)
{
	struct pen_config cfg;
	/* A private daemon must not take over the node's contracts, so it reads only what it is told to. */
	if (o->is_private && !o->config_path)
		pen_config_init(&cfg);
	else {
		int r = pen_config_load(o->config_path, NULL, &cfg, err);
		if (r < 0)
			return r;
	}
	const char *http = o->http ? o->http : o->is_private ? "none" : NULL;
	if (set_places(o, &cfg, err) < 0 || set(&cfg, "http.listen", http, err) < 0 ||
	    set(&cfg, "tick", o->tick, err) < 0 || set(&cfg, "log_level", o->log_level, err) < 0) {
		pen_config_free(&cfg);
		return -EINVAL;
	}
	*ret_cfg = cfg;
	return 0;
}
