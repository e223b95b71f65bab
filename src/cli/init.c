/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock init: finds the devices of this machine and proposes a configuration, to read, to change and to keep. Asks no daemon,
 * since before the first start there is none: the probe is run here.
 */
#include "base/auto.h"
#include "base/units.h"
#include "cli/cli.h"
#include "contract/config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct found {
	const char *key, *model;
	char apis[64];
	uint64_t mem_bytes;
	long long units;
};

#define FOUND_MAX 64

/* Return: what the probe printed (new reference), or NULL. */
static json_t *probe(void)
{
	static const char *const where[] = { "../libexec/penstock/penstock-probe", "penstock-probe",
					     "../backend/penstock-probe", NULL };
	char path[PATH_MAX], command[PATH_MAX + 32];
	if (pen_install_path(where, path, sizeof(path)) < 0 || strchr(path, '\''))
		return NULL;
	snprintf(command, sizeof(command), "'%s' 2>/dev/null", path);   /* what drivers print is not ours */
	FILE *p = popen(command, "re");
	if (!p)
		return NULL;
	json_t *answer = json_loadf(p, JSON_DISABLE_EOF_CHECK, NULL);
	pclose(p);
	return answer;
}

/* One entry for each key: a card that two libraries list is one device, with the smaller of the two truths. */
static size_t merge(const json_t *answer, struct found *v)
{
	size_t n = 0, i;
	json_t *d;
	json_array_foreach(json_object_get(answer, "devices"), i, d) {
		const char *key = pen_json_str(d, "key");
		uint64_t mem = (uint64_t)pen_json_int(d, "mem_bytes");
		size_t at = 0;
		while (at < n && strcmp(v[at].key, key))
			at++;
		if (at == FOUND_MAX || !*key)
			continue;
		struct found *f = &v[at];
		if (at == n) {
			*f = (struct found){ .key = key, .model = pen_json_str(d, "model"), .mem_bytes = mem,
					     .units = pen_json_int(d, "units") };
			n++;
		} else if (mem && (!f->mem_bytes || mem < f->mem_bytes)) {
			f->mem_bytes = mem;
		}
		size_t len = strlen(f->apis);
		snprintf(f->apis + len, sizeof(f->apis) - len, "%s%s", len ? ", " : "", pen_json_str(d, "api"));
	}
	return n;
}

/* Printable on a line of its own behind a #: a driver's text may hold anything. */
static void put_comment(FILE *out, const char *text)
{
	for (; *text; text++)
		fputc((unsigned char)*text < 0x20 ? ' ' : *text, out);
}

static void put_device(FILE *out, const struct found *f)
{
	char mem[32];
	fputs("#   ", out);
	put_comment(out, f->key);
	fputs("  ", out);
	put_comment(out, f->model);
	if (f->mem_bytes)
		fprintf(out, "  %s", pen_text_size(mem, sizeof(mem), f->mem_bytes, true));
	if (f->units)
		fprintf(out, _("  %lld units"), f->units);
	fprintf(out, "  (%s)\n", f->apis);
	if (f->mem_bytes)
		fprintf(out, _("#     two programs side by side: penstock run --device '%s' --memory %lluM --compute 50%% -- PROGRAM\n"),
			f->key, (unsigned long long)(f->mem_bytes / PEN_MIB / 2 * 95 / 100));
}

static void put_config(FILE *out, const struct found *v, size_t n)
{
	char host[65] = "", date[16];
	time_t now = time(NULL);
	struct tm tm;
	gethostname(host, sizeof(host) - 1);
	strftime(date, sizeof(date), "%Y-%m-%d", localtime_r(&now, &tm));
	fprintf(out, _("# Proposed by penstock init on %s, %s. Everything may be left out; penstock.yaml(5) lists all keys.\n"), host, date);
	fputs(n ? _("# Devices found here:\n") : _("# No device was found here; 'penstock doctor' says why.\n"), out);
	for (size_t i = 0; i < n; i++)
		put_device(out, &v[i]);
	fputs(_("\n# Its members may make and end contracts; without it only root may.\n"), out);
	fprintf(out, "%sgroup: penstock\n", getgrnam("penstock") ? "" : "#");
	fputs(_("\n# How devices are divided. These are the defaults.\n"), out);
	fputs("policy:\n  mode: exclusive\n  share: fairshare\n  quantum: 4ms\n", out);
	fputs(_("\n# A device that shall be run otherwise, for example with memory that is promised to nobody:\n"), out);
	fprintf(out, "#devices:\n#  - device: '%s'\n#    reserve: 512M\n", n ? v[0].key : "GPU-8c1f2a90");
	fputs(_("\n# Standing contracts: here, or one per file in contracts.d/. A program joins one with penstock run --name NAME.\n"), out);
	fputs("#contracts:\n#  - name: camera\n#    class: latency\n#    sla: 20ms\n#    duty: 40%\n#    memory: 1G..2G\n"
	      "#  - name: batch\n#    class: besteffort\n#    memory: ..2G\n", out);
}

/* New file only, and whole or not at all. Return: an exit code. */
static int write_file(const char *path, const struct found *v, size_t n)
{
	char tmp[PATH_MAX], dir[PATH_MAX];
	snprintf(dir, sizeof(dir), "%s", path);
	char *slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = 0;
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			return pen_cli_fail(PEN_EXIT_FAILURE, "init", "%s: %s", dir, strerror(errno));
	}
	if ((size_t)snprintf(tmp, sizeof(tmp), "%s.new", path) >= sizeof(tmp))
		return pen_cli_fail(PEN_EXIT_FAILURE, "init", "%s: %s", path, strerror(ENAMETOOLONG));
	unlink(tmp);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
	if (!out)
		return pen_cli_fail(PEN_EXIT_FAILURE, "init", "%s: %s", tmp, strerror(errno));
	put_config(out, v, n);
	bool bad = fflush(out) || fsync(fd);
	bad |= fclose(out) != 0;
	/* link() and not rename(): a file that somebody has written meanwhile stays. */
	if (bad || link(tmp, path) < 0) {
		int e = errno;
		unlink(tmp);
		return pen_cli_fail(PEN_EXIT_FAILURE, "init", e == EEXIST ? _("%s is there already (%s); nothing was written") : "%s: %s",
				    path, strerror(e));
	}
	unlink(tmp);
	printf(_("%s written; now 'penstock config check' and, once the daemon runs, 'penstock config reload'\n"), path);
	return PEN_EXIT_OK;
}

int pen_cmd_init(struct pen_cli *cli, int argc, char **argv)
{
	const char *file = NULL;
	for (int i = 1; i < argc;) {
		int r = pen_cli_global(cli, argc, argv, &i);
		if (r < 0)
			return PEN_EXIT_USAGE;
		if (r)
			continue;
		if (strcmp(argv[i], "--write") || file)
			return pen_cli_fail(PEN_EXIT_USAGE, "init", _("unexpected argument '%s'"), argv[i]);
		file = PEN_CONFIG_FILE;
		if (++i < argc && argv[i][0] != '-')
			file = argv[i++];
	}
	json_t *answer = probe();
	if (!answer)
		return pen_cli_fail(PEN_EXIT_FAILURE, "init", _("penstock-probe could not be run, or printed no answer"));
	struct found v[FOUND_MAX];
	size_t found = merge(answer, v);
	int code = PEN_EXIT_OK;
	if (file)
		code = write_file(file, v, found);
	else
		put_config(stdout, v, found);
	json_decref(answer);
	return code;
}
