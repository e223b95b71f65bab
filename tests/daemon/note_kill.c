/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded: notes whom kill() is for in the file $NOTE_KILL, and does nothing else. Async-signal-safe. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static int note = -1;

__attribute__((constructor)) static void open_note(void)
{
	const char *path = getenv("NOTE_KILL");
	note = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
}

__attribute__((visibility("default"))) int kill(pid_t pid, int sig)
{
	(void)pid, (void)sig;
	ssize_t n = write(note, "k", 1);
	(void)n;
	return 0;
}
