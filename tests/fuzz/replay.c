/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over every file of the folders and files named on the command line, after the empty input:
 * how corpora are tested by a compiler without libFuzzer. A folder that does not exist counts as empty.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Return: 0, or a negative errno after a line on stderr. */
static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rbe");
	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -EIO;
	}
	fseek(f, 0, SEEK_END);
	long size = ftell(f);
	rewind(f);
	/* Exactly as large as the input, so that valgrind and ASan see a read past it. */
	uint8_t *data = size > 0 ? malloc((size_t)size) : NULL;
	size_t got = data ? fread(data, 1, (size_t)size, f) : 0;
	fclose(f);
	int r = size >= 0 && got == (size_t)size ? LLVMFuzzerTestOneInput(data, got) : -EIO;
	free(data);
	printf("%s: %s\n", path, r < 0 ? "rejected or unreadable" : "ok");
	return r < 0 ? -EIO : 0;
}

static int replay_dir(const char *path)
{
	DIR *dir = opendir(path);
	if (!dir)
		return 0;
	int r = 0;
	for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
		char file[PATH_MAX];
		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		if (replay_file(file) < 0)
			r = -EIO;
	}
	closedir(dir);
	return r;
}

int main(int argc, char **argv)
{
	int r = LLVMFuzzerTestOneInput(NULL, 0);
	for (int i = 1; i < argc; i++) {
		struct stat st;
		int is_file = stat(argv[i], &st) == 0 && S_ISREG(st.st_mode);
		if ((is_file ? replay_file(argv[i]) : replay_dir(argv[i])) < 0)
			r = -EIO;
	}
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
