/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

ssize_t pen_kube_read_file(const char *path, size_t max, char **ret_text)
{
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	size_t len = 0, room = 4096;
	pen_auto_free char *text = malloc(room + 1);
	for (;;) {
		if (!text)
			return -ENOMEM;
		ssize_t n = read(fd, text + len, room - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
		if (len > max)
			return -EFBIG;
		if (len == room) {
			char *more = realloc(text, (room *= 2) + 1);
			if (!more)
				return -ENOMEM;
			PEN_TAKE_PTR(text);
			text = more;
		}
	}
	text[len] = 0;
	*ret_text = PEN_TAKE_PTR(text);
	return (ssize_t)len;
}
