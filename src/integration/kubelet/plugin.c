/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One resource: its own socket, its registration, and who watches its list.
 *
 * - We serve before Register is called, and call it without waiting: kubelets since 1.26 call back from inside of it.
 * - Listener and streams of before are closed first: a kubelet knows plugins by resource alone, and the end of an old stream takes the new
 *   one with it. Should that happen anyway, the stream's end starts everything again.
 * - Nothing is waited for with a timer that an event could tell: a kubelet that has just restarted throws out running pods whose devices are
 *   not registered within some 80 ms.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <utlist.h>

#define REGISTER_MS 15000
#define WATCHDOG_MS 5000
#define FRESH_NS PEN_S        /* a socket that is so young and refuses is bound and not listened on yet */
#define FRESH_RETRY_MS 2
#define RETRY_MIN_MS 100
#define RETRY_ENDED_MS 20
#define RETRY_MAX_MS 30000
#define GOOD_NS (10 * PEN_S)  /* a list that was watched so long ends for a reason of its own */

/* ---- the machine ---------------------------------------------------------------------------------------------------- */

struct transition {
	enum pen_kube_state next;
	enum pen_kube_action action;
};
#define KEEP(state) { PEN_KUBE_##state, PEN_KUBE_NOTHING }
#define CALL { PEN_KUBE_CALLING, PEN_KUBE_START }

static const struct transition transitions[PEN_KUBE_STATE_MAX_][PEN_KUBE_EV_MAX_] = {
	[PEN_KUBE_DOWN] = {
		[PEN_KUBE_EV_APPEARED] = CALL, [PEN_KUBE_EV_TIMEOUT] = CALL, [PEN_KUBE_EV_LOST] = KEEP(DOWN),
		/* It listens to us although its answer did not come: good enough. */
		[PEN_KUBE_EV_OPENED] = { PEN_KUBE_LIVE, PEN_KUBE_REST },
		[PEN_KUBE_EV_ACCEPTED] = KEEP(DOWN), [PEN_KUBE_EV_REFUSED] = KEEP(DOWN), [PEN_KUBE_EV_ENDED] = KEEP(DOWN),
	},
	[PEN_KUBE_CALLING] = {
		[PEN_KUBE_EV_APPEARED] = CALL, [PEN_KUBE_EV_LOST] = CALL,
		[PEN_KUBE_EV_ACCEPTED] = { PEN_KUBE_WAITING, PEN_KUBE_WATCHDOG },
		[PEN_KUBE_EV_REFUSED] = { PEN_KUBE_DOWN, PEN_KUBE_RETRY },
		/* Before the answer: plugin.c says OPENED again when that is there. */
		[PEN_KUBE_EV_OPENED] = KEEP(CALLING), [PEN_KUBE_EV_ENDED] = KEEP(CALLING), [PEN_KUBE_EV_TIMEOUT] = KEEP(CALLING),
	},
	[PEN_KUBE_WAITING] = {
		[PEN_KUBE_EV_APPEARED] = CALL, [PEN_KUBE_EV_LOST] = CALL, [PEN_KUBE_EV_TIMEOUT] = CALL,
		[PEN_KUBE_EV_OPENED] = { PEN_KUBE_LIVE, PEN_KUBE_REST },
		[PEN_KUBE_EV_ACCEPTED] = KEEP(WAITING), [PEN_KUBE_EV_REFUSED] = KEEP(WAITING), [PEN_KUBE_EV_ENDED] = KEEP(WAITING),
	},
	[PEN_KUBE_LIVE] = {
		[PEN_KUBE_EV_APPEARED] = CALL, [PEN_KUBE_EV_LOST] = CALL,
		[PEN_KUBE_EV_ENDED] = { PEN_KUBE_DOWN, PEN_KUBE_RETRY },
		[PEN_KUBE_EV_OPENED] = KEEP(LIVE), [PEN_KUBE_EV_ACCEPTED] = KEEP(LIVE), [PEN_KUBE_EV_REFUSED] = KEEP(LIVE),
		[PEN_KUBE_EV_TIMEOUT] = KEEP(LIVE),
	},
};

enum pen_kube_action pen_kube_step(enum pen_kube_state *state, enum pen_kube_event event)
{
	const struct transition *t = &transitions[*state][event];
	*state = t->next;
	return t->action;
}

const char *pen_kube_state_name(enum pen_kube_state s)
{
	static const char *const names[] = {
#define X(id, name) name,
		PEN_KUBE_STATES(X)
#undef X
	};
	return names[s];
}

/* ---- timers --------------------------------------------------------------------------------------------------------- */

static void arm(struct pen_kube_plugin *p, unsigned ms)
{
	event_add(p->timer, &(struct timeval){ .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 });
}

/* Each time twice as long, so that a kubelet that always refuses is not kept busy. */
static unsigned next_delay(struct pen_kube_plugin *p, unsigned least)
{
	unsigned longer = PEN_MAX(least, p->delay_ms * 2);
	p->delay_ms = PEN_MIN(longer, (unsigned)RETRY_MAX_MS);
	return p->delay_ms;
}

static void arm_retry(struct pen_kube_plugin *p, enum pen_kube_event event)
{
	uint64_t now = pen_mono_ns();
	if (event == PEN_KUBE_EV_REFUSED) {
		/* Its file is there from bind() on, and listen() comes a moment later. Who listens and refuses has another reason. */
		bool fresh = !p->is_known && now - p->appeared_ns < FRESH_NS;
		arm(p, fresh ? FRESH_RETRY_MS : next_delay(p, RETRY_MIN_MS));
		return;
	}
	if (now - p->live_since_ns > GOOD_NS)
		p->delay_ms = 0;
	arm(p, p->delay_ms ? next_delay(p, RETRY_ENDED_MS) : 0);
	p->delay_ms = PEN_MAX(p->delay_ms, (unsigned)RETRY_ENDED_MS);
}

/* ---- our socket ------------------------------------------------------------------------------------------------------ */

static void on_list_and_watch(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len);
static void on_list_ended(void *arg, struct pen_grpc_call *call);

static void on_options(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	pen_auto_free uint8_t *answer = NULL;
	(void)arg, (void)message, (void)len;
	ssize_t n = pen_kube_pack_options(&answer);
	if (n < 0)
		pen_grpc_fail(call, PEN_GRPC_RESOURCE_EXHAUSTED, "out of memory");
	else
		pen_grpc_reply(call, answer, (size_t)n);
}

static void on_preferred(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	pen_kube_on_preferred(arg, call, message, len);
}

static void on_allocate(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	struct pen_kube_plugin *p = arg;
	uint64_t began = pen_mono_ns();
	pen_kube_on_allocate(p, call, message, len);
	pen_kube_count_allocation(p->k, pen_mono_ns() - began);
}

static void on_pre_start(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	pen_kube_on_pre_start(arg, call, message, len);
}

static const struct pen_grpc_method methods[] = {
	{ "/v1beta1.DevicePlugin/GetDevicePluginOptions", on_options, NULL },
	{ "/v1beta1.DevicePlugin/ListAndWatch", on_list_and_watch, on_list_ended },
	{ "/v1beta1.DevicePlugin/GetPreferredAllocation", on_preferred, NULL },
	{ "/v1beta1.DevicePlugin/Allocate", on_allocate, NULL },
	{ "/v1beta1.DevicePlugin/PreStartContainer", on_pre_start, NULL },
};

static int bind_socket(struct pen_kube_plugin *p, struct pen_err *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	if ((size_t)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", p->path) >= sizeof(sa.sun_path))
		return pen_err_sys(err, -ENAMETOOLONG, "'%s'", p->path);
	pen_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return pen_err_sys(err, -errno, "socket");
	fchmod(fd, 0600);   /* what bind() makes has it */
	unlink(p->path);
	struct stat st;
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || chmod(p->path, 0600) < 0 || listen(fd, 64) < 0 ||
	    lstat(p->path, &st) < 0)
		return pen_err_sys(err, -errno, "'%s'", p->path);
	p->socket_dev = st.st_dev;
	p->socket_ino = st.st_ino;
	return PEN_TAKE_FD(fd);
}

bool pen_kube_plugin_socket_is_there(const struct pen_kube_plugin *p)
{
	struct stat st;
	return p->server && lstat(p->path, &st) == 0 && st.st_dev == p->socket_dev && st.st_ino == p->socket_ino;
}

static void close_all(struct pen_kube_plugin *p)
{
	struct pen_kube_stream *s, *next;
	pen_grpc_client_cancel(p->call);
	p->call = NULL;
	pen_grpc_server_destroy(p->server);   /* tells nobody */
	p->server = NULL;
	DL_FOREACH_SAFE(p->streams, s, next)
		free(s);
	p->streams = NULL;
	p->kicked = 0;   /* of streams that are no more */
}

/* ---- registration ----------------------------------------------------------------------------------------------------- */

static void kick(struct pen_kube_plugin *p, enum pen_kube_event event)
{
	p->kicked |= 1u << event;
	event_active(p->kick, EV_TIMEOUT, 0);
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct pen_kube_plugin *p = arg;
	(void)fd, (void)what;
	for (unsigned e = 0; e < PEN_KUBE_EV_MAX_; e++) {
		bool now = p->kicked & (1u << e);
		p->kicked &= ~(1u << e);
		if (now && (e != PEN_KUBE_EV_ENDED || !p->streams))   /* a new one may have been opened meanwhile */
			pen_kube_plugin_event(p, (enum pen_kube_event)e);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	pen_kube_plugin_event(arg, PEN_KUBE_EV_TIMEOUT);
}

static void on_registered(void *arg, enum pen_grpc_status status, const uint8_t *message, size_t len, const char *text)
{
	struct pen_kube_plugin *p = arg;
	(void)message, (void)len;
	p->call = NULL;
	if (status != PEN_GRPC_OK) {
		pen_log(PEN_LOG_WARN, "kubelet: %s was not registered: %s", p->resource, text);
		pen_kube_plugin_event(p, PEN_KUBE_EV_REFUSED);
		return;
	}
	p->registrations++;
	p->k->registrations++;
	pen_service_event(p->k->s, false, NULL, "%s is registered", p->resource);
	pen_kube_plugin_event(p, PEN_KUBE_EV_ACCEPTED);
	if (p->streams)   /* it was quicker with its second call than with its answer */
		pen_kube_plugin_event(p, PEN_KUBE_EV_OPENED);
}

/* Return: 0, and on_registered() will be called; negative errno. */
static int start(struct pen_kube_plugin *p)
{
	struct pen_err err = PEN_ERR_INIT;
	char kubelet[PEN_CONFIG_PATH_MAX + 32];
	pen_auto_free uint8_t *request = NULL;
	int r = 0;
	/* A listener that no kubelet has heard of is as good as a new one: one that is dead is tried again and again. */
	if (p->is_known || p->streams || !pen_kube_plugin_socket_is_there(p)) {
		close_all(p);
		int fd = bind_socket(p, &err);
		r = fd < 0 ? fd : pen_grpc_server_create(p->k->base, fd, methods, PEN_ARRAY_LEN(methods), p, &p->server);
	}
	p->is_known = false;
	ssize_t n = r < 0 ? r : pen_kube_pack_register(p, &request);
	if (n < 0) {
		pen_log(PEN_LOG_DEBUG, "kubelet: %s cannot be served: %s", p->resource, *err.text ? err.text : strerror((int)-n));
		return (int)n;
	}
	snprintf(kubelet, sizeof(kubelet), "%s/" PEN_KUBE_SOCKET, p->k->dir);
	if (lstat(kubelet, &p->kubelet) < 0)
		p->kubelet = (struct stat){ .st_ino = 0 };
	r = pen_grpc_client_call(p->k->base, kubelet, "/v1beta1.Registration/Register", request, (size_t)n, REGISTER_MS, on_registered,
				 p, &p->call);
	if (r < 0)
		pen_log(PEN_LOG_DEBUG, "kubelet: '%s': %s", kubelet, strerror(-r));
	p->is_known = r == 0;
	return r;
}

/*
 * A kubelet that starts deletes our socket and makes its own: we may have noticed the first and called while the news of the second was on its
 * way. Inodes are given again at once, so the time counts too.
 */
void pen_kube_plugin_appeared(struct pen_kube_plugin *p)
{
	struct stat st;
	char kubelet[PEN_CONFIG_PATH_MAX + 32];
	snprintf(kubelet, sizeof(kubelet), "%s/" PEN_KUBE_SOCKET, p->k->dir);
	if (p->state != PEN_KUBE_DOWN && lstat(kubelet, &st) == 0 && st.st_ino == p->kubelet.st_ino && st.st_dev == p->kubelet.st_dev &&
	    st.st_ctim.tv_sec == p->kubelet.st_ctim.tv_sec && st.st_ctim.tv_nsec == p->kubelet.st_ctim.tv_nsec)
		return;
	pen_kube_plugin_event(p, PEN_KUBE_EV_APPEARED);
}

void pen_kube_plugin_event(struct pen_kube_plugin *p, enum pen_kube_event event)
{
	enum pen_kube_state was = p->state;
	if (event == PEN_KUBE_EV_APPEARED) {
		p->appeared_ns = pen_mono_ns();
		p->delay_ms = 0;
	}
	switch (pen_kube_step(&p->state, event)) {
	case PEN_KUBE_START:
		event_del(p->timer);
		if (start(p) < 0)
			pen_kube_plugin_event(p, PEN_KUBE_EV_REFUSED);
		break;
	case PEN_KUBE_WATCHDOG:
		arm(p, WATCHDOG_MS);
		break;
	case PEN_KUBE_REST:
		event_del(p->timer);
		break;
	case PEN_KUBE_RETRY:
		arm_retry(p, event);
		break;
	default:
		break;
	}
	if (p->state == PEN_KUBE_LIVE && was != PEN_KUBE_LIVE)
		p->live_since_ns = pen_mono_ns();
	if (was != p->state && p->state != p->told)
		pen_log(PEN_LOG_DEBUG, "kubelet: %s: %s", p->resource, pen_kube_state_name(p->state));
	p->told = p->state;
}

/* ---- lists -------------------------------------------------------------------------------------------------------------- */

static void on_list_and_watch(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	struct pen_kube_plugin *p = arg;
	struct pen_kube_stream *s = calloc(1, sizeof(*s));
	(void)message, (void)len;
	if (!s) {
		pen_grpc_fail(call, PEN_GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	s->call = call;
	DL_APPEND(p->streams, s);
	if (!p->list)
		pen_kube_plugin_relist(p);
	else
		pen_grpc_push(call, p->list, p->list_len);
	p->lists++;
	kick(p, PEN_KUBE_EV_OPENED);
}

static void on_list_ended(void *arg, struct pen_grpc_call *call)
{
	struct pen_kube_plugin *p = arg;
	struct pen_kube_stream *s, *next;
	DL_FOREACH_SAFE(p->streams, s, next)
		if (s->call == call) {
			DL_DELETE(p->streams, s);
			free(s);
		}
	if (!p->streams)
		kick(p, PEN_KUBE_EV_ENDED);
}

void pen_kube_plugin_relist(struct pen_kube_plugin *p)
{
	pen_auto_free uint8_t *list = NULL;
	ssize_t n = pen_kube_pack_list(p, &list);
	struct pen_kube_stream *s;
	/* The kubelet writes its checkpoint at every message, on a disk that may be flash: none that says nothing new. */
	if (n < 0 || (p->list && (size_t)n == p->list_len && !memcmp(list, p->list, (size_t)n)))
		return;
	free(p->list);
	p->list = PEN_TAKE_PTR(list);
	p->list_len = (size_t)n;
	DL_FOREACH(p->streams, s)
		pen_grpc_push(s->call, p->list, p->list_len);
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

/* The profile's name, for people who look into the directory; shortened where a socket's address has no room for it. */
static void name_endpoint(struct pen_kube_plugin *p)
{
	const size_t room = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	uint32_t h = 2166136261u;
	for (const char *s = p->resource; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	const char *slash = strrchr(p->resource, '/');
	snprintf(p->endpoint, sizeof(p->endpoint), "penstock-%.60s-%04x.sock", slash ? slash + 1 : p->resource, h & 0xffff);
	if (strlen(p->k->dir) + 1 + strlen(p->endpoint) > room)
		snprintf(p->endpoint, sizeof(p->endpoint), "penstock-%08x.sock", h);
	snprintf(p->path, sizeof(p->path), "%s/%s", p->k->dir, p->endpoint);
}

int pen_kube_plugin_create(struct pen_kube *k, const struct pen_config_profile *profile, const char *resource,
			   struct pen_kube_plugin **ret_plugin)
{
	struct pen_kube_plugin *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->k = k;
	p->profile = *profile;
	snprintf(p->resource, sizeof(p->resource), "%s", resource);
	name_endpoint(p);
	p->timer = evtimer_new(k->base, on_timer, p);
	p->kick = event_new(k->base, -1, 0, on_kick, p);
	if (!p->timer || !p->kick) {
		pen_kube_plugin_destroy(p);
		return -ENOMEM;
	}
	*ret_plugin = p;
	return 0;
}

void pen_kube_plugin_destroy(struct pen_kube_plugin *p)
{
	bool ours = pen_kube_plugin_socket_is_there(p);
	close_all(p);
	if (ours)
		unlink(p->path);
	if (p->timer)
		event_free(p->timer);
	if (p->kick)
		event_free(p->kick);
	free(p->list);
	free(p);
}
