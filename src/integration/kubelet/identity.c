/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose container is it? Without an API server: the cgroup of a process that presents a token names container and pod; the container
 * runtime's bundle says namespace, pod and container; else the kubelet's read-only port; else its checkpoint the pod's UID and the container.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "integration/kubelet/internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define CGROUP_MAX 65536
#define BUNDLE_MAX (4 << 20)
#define PODS_MAX (32 << 20)
#define MOUNTINFO_MAX (1 << 20)   /* a container may mount what it likes */
#define PORT_MS 1000              /* for each step ... */
#define PORT_ALL_NS (3 * PEN_S)   /* ... and for all of the answer: who trickles would keep the helper from everybody else */
#define SOCKETS_MAX (32 << 20)

/* ---- cgroup ------------------------------------------------------------------------------------------------------------ */

static void copy(char *buf, size_t n, const char *s, size_t len)
{
	snprintf(buf, n, "%.*s", (int)PEN_MIN(len, n - 1), s);
}

/* 64 hex digits, with a runtime's word before and ".scope" behind, or not. */
static bool take_container(const char *part, size_t len, char *ret, size_t n)
{
	const char *end = part + len;
	if (len > 6 && !memcmp(end - 6, ".scope", 6))
		end -= 6;
	const char *s = end;
	while (s > part && isxdigit((unsigned char)s[-1]))
		s--;
	if (end - s != 64 || (s > part && s[-1] != '-'))
		return false;
	copy(ret, n, s, 64);
	return true;
}

/* "pod<uid>", or of systemd "kubepods-burstable-pod<uid with _>.slice". Static pods have 32 hex digits for a uid. */
static bool take_pod(const char *part, size_t len, char *ret, size_t n)
{
	const char *end = part + len, *s = NULL;
	if (len > 6 && !memcmp(end - 6, ".slice", 6))
		end -= 6;
	for (const char *p = part; p + 3 < end; p++)
		if (!memcmp(p, "pod", 3) && (p == part || p[-1] == '-'))
			s = p + 3;
	size_t uid = s ? (size_t)(end - s) : 0;
	if (uid < 32 || uid >= n)
		return false;
	for (size_t i = 0; i < uid; i++) {
		if (!isxdigit((unsigned char)s[i]) && s[i] != '_' && s[i] != '-')
			return false;
		ret[i] = s[i] == '_' ? '-' : s[i];
	}
	ret[uid] = 0;
	return true;
}

/*
 * The first pod of the path and the first container in it: what comes behind, a container may have made itself; what comes before is a
 * node that is a container.
 */
static void take_line(const char *line, size_t len, struct pen_kube_who *who)
{
	struct pen_kube_who w = { .pod = "" };
	while (len) {
		const char *slash = memchr(line, '/', len);
		size_t part = slash ? (size_t)(slash - line) : len;
		if (!w.pod_uid[0] && take_pod(line, part, w.pod_uid, sizeof(w.pod_uid)))
			w.container_id[0] = 0;
		else if (!w.container_id[0])
			take_container(line, part, w.container_id, sizeof(w.container_id));
		part += slash != NULL;
		line += part;
		len -= part;
	}
	if (w.container_id[0] && (!who->container_id[0] || (w.pod_uid[0] && !who->pod_uid[0])))
		*who = w;
}

int pen_kube_who_cgroup(const char *text, struct pen_kube_who *ret)
{
	struct pen_kube_who who = { .pod = "" };
	while (*text) {   /* "0::/path", "4:memory:/path"; hybrid hosts have several */
		size_t len = strcspn(text, "\n");
		const char *path = memchr(text, '/', len);
		if (path)
			take_line(path, len - (size_t)(path - text), &who);
		text += len + (text[len] == '\n');
	}
	if (!who.container_id[0])
		return -ENOENT;
	*ret = who;
	return 0;
}

int pen_kube_who_process(pid_t pid, struct pen_kube_who *ret)
{
	char path[48];
	pen_auto_free char *text = NULL;
	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	ssize_t n = pen_kube_read_file(path, CGROUP_MAX, &text);
	return n < 0 ? (int)n : pen_kube_who_cgroup(text, ret);
}

/* ---- mounts -------------------------------------------------------------------------------------------------------------- */

/* A line of mountinfo: "36 35 98:0 /root/in/its/filesystem /where ...". */
struct mount {
	const char *dev, *root, *at;
	size_t dev_len, root_len, at_len;
};

static void read_mount(const char *line, struct mount *m)
{
	const char *field[5];
	size_t len[5];
	for (unsigned i = 0; i < PEN_ARRAY_LEN(field); i++) {
		field[i] = line;
		len[i] = strcspn(line, " \n");
		line += len[i];
		line += *line == ' ';
	}
	*m = (struct mount){ field[2], field[3], field[4], len[2], len[3], len[4] };
}

static size_t length_in(const char *dir, const struct mount *m)
{
	if (m->at_len == 1)   /* "/" */
		return 0;
	return !strncmp(dir, m->at, m->at_len) && (dir[m->at_len] == '/' || !dir[m->at_len]) ? m->at_len : SIZE_MAX;
}

/*
 * Whoever has a namespace of his own can mount a directory of any name: only one in the file system, and at the place in it, where the daemon
 * makes them counts. The last of the mounts that cover a path is the one that is seen.
 */
int pen_kube_place_find(const char *mountinfo, const char *runtime_dir, struct pen_kube_place *ret)
{
	struct mount best = { .dev = NULL };
	size_t longest = 0;
	for (const char *line = mountinfo; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		struct mount m;
		read_mount(line, &m);
		size_t len = m.at_len ? length_in(runtime_dir, &m) : SIZE_MAX;
		if (len == SIZE_MAX || (best.dev && len < longest))
			continue;
		best = m;
		longest = len;
	}
	if (!best.dev || best.dev_len >= sizeof(ret->dev))
		return -ENOENT;
	copy(ret->dev, sizeof(ret->dev), best.dev, best.dev_len);
	int root = best.root_len == 1 ? 0 : (int)best.root_len;
	int n = snprintf(ret->above, sizeof(ret->above), "%.*s%s/" PEN_KUBE_CONTAINERS "/", root, best.root, runtime_dir + longest);
	return n >= (int)sizeof(ret->above) ? -ENAMETOOLONG : 0;
}

int pen_kube_place_now(const char *runtime_dir, struct pen_kube_place *ret)
{
	char real[PATH_MAX];
	pen_auto_free char *text = NULL;
	ssize_t n = realpath(runtime_dir, real) ? pen_kube_read_file("/proc/self/mountinfo", MOUNTINFO_MAX, &text) : -errno;
	return n < 0 || !text ? (int)n : pen_kube_place_find(text, real, ret);
}

/* One whose directory is gone ends in "//deleted", and is nobody's. */
static void take_mount(const struct mount *m, const struct pen_kube_place *place, void (*fn)(void *arg, const char *name), void *arg)
{
	char name[PEN_NAME_MAX + 1];
	size_t n = strlen(place->above);
	if (m->dev_len != strlen(place->dev) || memcmp(m->dev, place->dev, m->dev_len) || m->root_len <= n || m->root_len - n >= sizeof(name) ||
	    memcmp(m->root, place->above, n) || memchr(m->root + n, '/', m->root_len - n))
		return;
	copy(name, sizeof(name), m->root + n, m->root_len - n);
	fn(arg, name);
}

int pen_kube_each_mount(pid_t pid, const struct pen_kube_place *place, void (*fn)(void *arg, const char *name), void *arg)
{
	char path[48];
	pen_auto_free char *text = NULL;
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	ssize_t n = pen_kube_read_file(path, MOUNTINFO_MAX, &text);
	if (n < 0)
		return (int)n;
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		struct mount m;
		read_mount(line, &m);
		take_mount(&m, place, fn, arg);
	}
	return 0;
}

/* ---- bundle -------------------------------------------------------------------------------------------------------------- */

static void take_text(const json_t *o, const char *key, char *buf, size_t n)
{
	const char *s = json_string_value(json_object_get(o, key));
	if (s)
		copy(buf, n, s, strlen(s));
}

int pen_kube_who_bundle(const char *text, size_t len, struct pen_kube_who *ret)
{
	struct pen_kube_who who = { .pod = "" };
	json_t *o = json_loadb(text, len, 0, NULL), *a = json_object_get(o, "annotations");
	if (!o)
		return -EINVAL;
	/* containerd */
	take_text(a, "io.kubernetes.cri.sandbox-namespace", who.namespace, sizeof(who.namespace));
	take_text(a, "io.kubernetes.cri.sandbox-name", who.pod, sizeof(who.pod));
	take_text(a, "io.kubernetes.cri.sandbox-uid", who.pod_uid, sizeof(who.pod_uid));
	take_text(a, "io.kubernetes.cri.container-name", who.container, sizeof(who.container));
	/* CRI-O; not tested */
	take_text(a, "io.kubernetes.pod.namespace", who.namespace, sizeof(who.namespace));
	take_text(a, "io.kubernetes.pod.name", who.pod, sizeof(who.pod));
	take_text(a, "io.kubernetes.pod.uid", who.pod_uid, sizeof(who.pod_uid));
	take_text(a, "io.kubernetes.container.name", who.container, sizeof(who.container));
	json_decref(o);
	if (!who.pod[0])
		return -ENOENT;
	*ret = who;
	return 0;
}

/* ---- the kubelet's port ------------------------------------------------------------------------------------------------------ */

/* "containerd://<id>" */
static bool is_container(const json_t *status, const char *id)
{
	const char *s = json_string_value(json_object_get(status, "containerID"));
	const char *own = s ? strstr(s, "://") : NULL;
	return own && !strcmp(own + 3, id);
}

static bool look_in(const json_t *status, const char *list, struct pen_kube_who *who)
{
	size_t i;
	json_t *c;
	json_array_foreach(json_object_get(status, list), i, c)
		if (is_container(c, who->container_id)) {
			take_text(c, "name", who->container, sizeof(who->container));
			return true;
		}
	return false;
}

int pen_kube_who_pods(const char *text, size_t len, struct pen_kube_who *who)
{
	static const char *const lists[] = { "containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses" };
	json_t *o = json_loadb(text, len, 0, NULL), *pod;
	size_t i;
	int r = o ? -ENOENT : -EINVAL;
	json_array_foreach(json_object_get(o, "items"), i, pod) {
		const json_t *meta = json_object_get(pod, "metadata"), *status = json_object_get(pod, "status");
		const char *uid = json_string_value(json_object_get(meta, "uid"));
		bool ours = who->pod_uid[0] && uid && !strcmp(uid, who->pod_uid);
		for (size_t k = 0; who->container_id[0] && k < PEN_ARRAY_LEN(lists); k++)
			ours |= look_in(status, lists[k], who);
		if (!ours)
			continue;
		take_text(meta, "namespace", who->namespace, sizeof(who->namespace));
		take_text(meta, "name", who->pod, sizeof(who->pod));
		take_text(meta, "uid", who->pod_uid, sizeof(who->pod_uid));
		r = 0;
		break;
	}
	json_decref(o);
	return r;
}

/*
 * Any user may listen on a port that the kubelet leaves alone, and would then name pods as he likes: of the ports that nobody has configured
 * only root's count. A line of /proc/net/tcp: "0: 0100007F:280F 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 ...".
 */
int pen_kube_port_owner(const char *text, unsigned port)
{
	int owner = 0;
	for (const char *line = text; *line && owner >= 0; line += strcspn(line, "\n"), line += *line == '\n') {
		unsigned local, state, uid;
		if (sscanf(line, " %*u: %*32[0-9A-F]:%4x %*32[0-9A-F]:%*4x %2x %*8x:%*8x %*2x:%*8x %*8x %u", &local, &state, &uid) == 3 &&
		    state == 0x0a && local == port)
			owner = uid ? -1 : 1;
	}
	return owner;
}

static bool is_roots(unsigned port)
{
	static const char *const files[] = { "/proc/net/tcp", "/proc/net/tcp6" };
	bool found = false;
	for (size_t i = 0; i < PEN_ARRAY_LEN(files); i++) {
		pen_auto_free char *text = NULL;
		int owner = pen_kube_read_file(files[i], SOCKETS_MAX, &text) > 0 ? pen_kube_port_owner(text, port) : 0;
		if (owner < 0)
			return false;
		found |= owner > 0;
	}
	return found;
}

/* Waits, at most PORT_MS for each step. */
static ssize_t http_get(const char *address, unsigned port, char **ret_text)
{
	static const char request[] = "GET /pods HTTP/1.0\r\nHost: localhost\r\n\r\n";   /* 1.0: no chunks */
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	const struct timeval limit = { .tv_sec = PORT_MS / 1000 };
	pen_auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || inet_pton(AF_INET, address, &sa.sin_addr) != 1)
		return -EINVAL;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));   /* of connect() too */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
		return -errno;
	size_t len = 0, room = 65536;
	pen_auto_free char *text = malloc(room + 1);
	for (uint64_t until = pen_mono_ns() + PORT_ALL_NS;;) {
		if (pen_mono_ns() > until)
			return -ETIMEDOUT;
		ssize_t n = text ? recv(fd, text + len, room - len, 0) : -1;
		if (n < 0)
			return text ? -errno : -ENOMEM;
		if (n == 0)
			break;
		len += (size_t)n;
		if (len == room) {
			char *more = room < PODS_MAX ? realloc(text, (room *= 2) + 1) : NULL;
			if (!more)
				return -EFBIG;
			PEN_TAKE_PTR(text);
			text = more;
		}
	}
	text[len] = 0;
	*ret_text = PEN_TAKE_PTR(text);
	return (ssize_t)len;
}

static bool ask_port(const char *address, unsigned port, struct pen_kube_who *who)
{
	pen_auto_free char *text = NULL;
	ssize_t n = http_get(address, port, &text);
	const char *body = n > 0 && text && !strncmp(text, "HTTP/1.", 7) && strstr(text, " 200 ") ? strstr(text, "\r\n\r\n") : NULL;
	return body && pen_kube_who_pods(body + 4, (size_t)(text + n - (body + 4)), who) == 0;
}

/* ---- all of it ----------------------------------------------------------------------------------------------------------------- */

struct job {
	struct pen_kube *k;
	char tenant[PEN_NAME_MAX + 1];
	char bundles[PEN_CONFIG_PATH_MAX + 1], pods[64];
	struct pen_kube_who who;
	bool found;
};

static bool ask_bundles(struct job *j)
{
	for (const char *dir = j->bundles; *dir;) {
		size_t len = strcspn(dir, ":");
		char path[PEN_CONFIG_PATH_MAX + 128];
		struct pen_kube_who who;
		snprintf(path, sizeof(path), "%.*s/%s/config.json", (int)len, dir, j->who.container_id);
		pen_auto_free char *text = NULL;
		ssize_t n = pen_kube_read_file(path, BUNDLE_MAX, &text);
		if (n > 0 && pen_kube_who_bundle(text, (size_t)n, &who) == 0) {
			copy(who.container_id, sizeof(who.container_id), j->who.container_id, strlen(j->who.container_id));
			j->who = who;
			return true;
		}
		dir += len + (dir[len] == ':');
	}
	return false;
}

static bool ask_pods(struct job *j)
{
	if (!strcmp(j->pods, "auto"))   /* kubelets; KubeEdge's EdgeCore */
		return (is_roots(10255) && ask_port("127.0.0.1", 10255, &j->who)) ||
		       (is_roots(10350) && ask_port("127.0.0.1", 10350, &j->who));
	char *colon = strrchr(j->pods, ':');
	if (!colon)
		return false;
	*colon = 0;
	return ask_port(j->pods, (unsigned)strtoul(colon + 1, NULL, 10), &j->who);
}

static void identify_work(void *arg)
{
	struct job *j = arg;
	j->found = ask_bundles(j) || ask_pods(j);
}

/* What the kubelet wrote down for one of the lease's slots. */
static void ask_checkpoint(struct pen_kube *k, struct job *j)
{
	const struct pen_kube_lease *l = NULL;
	for (l = k->leases; l && strcmp(l->tenant, j->tenant); l = l->next)
		;
	for (size_t i = 0; l && i < k->checkpoint.n; i++) {
		const struct pen_kube_entry *e = &k->checkpoint.v[i];
		if (e->card != l->card || !(l->slots >> e->slot & 1) || strcmp(e->resource, l->resource) ||
		    (j->who.pod_uid[0] && strcmp(e->pod_uid, j->who.pod_uid)))
			continue;
		copy(j->who.pod_uid, sizeof(j->who.pod_uid), e->pod_uid, strlen(e->pod_uid));
		copy(j->who.container, sizeof(j->who.container), e->container, strlen(e->container));
		return;
	}
}

static void identify_done(void *arg)
{
	struct job *j = arg;
	struct pen_kube *k = j->k;
	if (!j->found)
		ask_checkpoint(k, j);
	const struct {
		const char *key, *value;
	} labels[] = { { "namespace", j->who.namespace }, { "pod", j->who.pod }, { "container", j->who.container },
		       { "pod_uid", j->who.pod_uid } };
	for (size_t i = 0; i < PEN_ARRAY_LEN(labels); i++)
		if (labels[i].value[0])
			pen_service_tenant_label(k->s, j->tenant, labels[i].key, labels[i].value);
	free(j);
}

void pen_kube_identify(struct pen_kube *k, const struct pen_kube_lease *l, const struct pen_kube_who *who)
{
	const struct pen_config *cfg = pen_service_config(k->s);
	struct job *j = calloc(1, sizeof(*j));
	if (!j)
		return;
	j->k = k;
	j->who = *who;
	snprintf(j->tenant, sizeof(j->tenant), "%s", l->tenant);
	snprintf(j->bundles, sizeof(j->bundles), "%s", cfg->kube_bundles);
	snprintf(j->pods, sizeof(j->pods), "%s", cfg->kube_pods);
	if (pen_service_work(k->s, identify_work, identify_done, free, j) < 0)
		free(j);
}
