/* SPDX-License-Identifier: Apache-2.0 */
/* The table of integrations, and how they hear of the daemon. */
#include "base/auto.h"
#include "daemon/service_internal.h"
#include "daemon/store.h"

#include <event2/event.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the table: the only place where an integration is named ------------------------------------------------------ */

#ifdef PEN_HAVE_KUBELET
#include "integration/kubelet/kubelet.h"
#else
static bool wants_kubelet(const struct pen_config *cfg)
{
	return cfg->kube_enabled;
}
static const struct pen_integration pen_kubelet_integration = {
	.name = "kubelet", .absent = "libnghttp2 and libprotobuf-c were missing", .wanted = wants_kubelet,
};
#endif

#include "integration/cdi/cdi.h"
#include "integration/textfile/textfile.h"

static const struct pen_integration *const table[] = { &pen_kubelet_integration, &pen_cdi_integration,
							&pen_textfile_integration };
_Static_assert(PEN_ARRAY_LEN(table) <= PEN_INTEGRATIONS_MAX, "room in struct pen_services");

/* ---- start, changes, stop ----------------------------------------------------------------------------------------- */

static void on_poke(evutil_socket_t fd, short what, void *arg)
{
	struct pen_services *all = arg;
	(void)fd, (void)what;
	unsigned changed = all->what;
	all->what = 0;
	for (size_t i = 0; i < all->n; i++)
		if (all->s[i].self)
			all->s[i].ops->changed(all->s[i].self, changed);
}

void pen_services_poke(struct pen_daemon *d, unsigned what)
{
	struct pen_services *all = d->services;
	if (!all)
		return;
	if (!all->what)
		event_active(all->poke_ev, EV_TIMEOUT, 0);
	all->what |= what;
}

static void start_one(struct pen_daemon *d, struct pen_service *s)
{
	struct pen_err err = PEN_ERR_INIT;
	if (s->ops->absent || s->ops->init(s, &s->self, &err) == 0)
		return;
	s->self = NULL;
	pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "%s: %s", s->ops->name, err.text);
}

void pen_services_configure(struct pen_daemon *d)
{
	pen_container_forget(d);   /* shim_dir may be another one */
	for (size_t i = 0; d->services && i < d->services->n; i++) {
		struct pen_service *s = &d->services->s[i];
		if (s->self)
			s->ops->configure(s->self);
		else if (s->ops->absent && s->ops->wanted(&d->cfg))
			pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "%s: not in this build: %s", s->ops->name, s->ops->absent);
	}
}

int pen_services_start(struct pen_daemon *d, struct pen_err *err)
{
	struct pen_services *all = calloc(1, sizeof(*all));
	if (all)
		all->poke_ev = event_new(d->base, -1, 0, on_poke, all);
	if (!all || !all->poke_ev) {
		free(all);
		return pen_err_sys(err, -ENOMEM, "integrations");
	}
	d->services = all;
	pen_owner_recover(d);
	for (size_t i = 0; i < PEN_ARRAY_LEN(table); i++) {
		all->s[i] = (struct pen_service){ .d = d, .ops = table[i] };
		all->n++;
		start_one(d, &all->s[i]);
	}
	pen_services_configure(d);
	return 0;
}

void pen_services_stop(struct pen_daemon *d)
{
	struct pen_services *all = d->services;
	if (!all)
		return;
	pen_work_stop(all);
	for (size_t i = 0; i < all->n; i++)
		if (all->s[i].self)
			all->s[i].ops->stop(all->s[i].self);
	d->services = NULL;
	event_free(all->poke_ev);
	free(all);
}

static struct pen_service *find(const struct pen_daemon *d, const char *owner)
{
	for (size_t i = 0; d->services && i < d->services->n; i++)
		if (d->services->s[i].self && !strcmp(d->services->s[i].ops->name, owner))
			return &d->services->s[i];
	return NULL;
}

int pen_services_claim(struct pen_daemon *d, const struct pen_tenant *t, pid_t pid, char *why, size_t n)
{
	struct pen_service *s = *t->owner ? find(d, t->owner) : NULL;
	return s ? s->ops->claim(s->self, t->name, pid, why, n) : 0;
}

void pen_services_metrics(struct pen_daemon *d, FILE *out)
{
	for (size_t i = 0; d->services && i < d->services->n; i++)
		if (d->services->s[i].self && d->services->s[i].ops->metrics)
			d->services->s[i].ops->metrics(d->services->s[i].self, out);
}

json_t *pen_services_status(struct pen_daemon *d)
{
	json_t *o = json_object();
	for (size_t i = 0; d->services && i < d->services->n; i++) {
		const struct pen_service *s = &d->services->s[i];
		json_t *status = s->self && s->ops->status ? s->ops->status(s->self) : NULL;
		if (!status)
			status = s->ops->absent ? json_pack("{s:s}", "absent", s->ops->absent) : json_object();
		json_object_set_new(o, s->ops->name, status);
	}
	return o;
}

/* ---- what an integration asks ------------------------------------------------------------------------------------- */

bool pen_service_is_system(struct pen_service *s)
{
	/* One that was started elsewhere, by a test or beside the machine's, must not write where all runtimes look. */
	return !s->d->opt.is_private && geteuid() == 0 && !strcmp(s->d->cfg.runtime_dir, PEN_RUNTIME_DIR);
}

struct event_base *pen_service_base(struct pen_service *s)
{
	return s->d->base;
}

const struct pen_config *pen_service_config(struct pen_service *s)
{
	return &s->d->cfg;
}

bool pen_service_probed(struct pen_service *s)
{
	return s->d->probed;
}

static void describe(const struct pen_device *dev, struct pen_service_device *ret)
{
	*ret = (struct pen_service_device){ .key = dev->key, .model = dev->model, .mem_bytes = dev->mem_bytes,
					    .reserve_bytes = dev->policy.reserve, .units = dev->units,
					    .found = dev->state != PEN_DEVICE_UNPROBED, .lost = dev->state == PEN_DEVICE_LOST,
					    .drained = dev->drained };
}

size_t pen_service_devices(struct pen_service *s, struct pen_service_device *ret, size_t max)
{
	size_t n = 0;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES && n < max; i++)
		if (s->d->device[i])
			describe(s->d->device[i], &ret[n++]);
	return n;
}

void pen_service_event(struct pen_service *s, bool alert, const char *tenant, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pen_event(s->d, alert ? PEN_EVENT_ALERT : PEN_EVENT_INTEGRATION, tenant ? pen_tenant_find(s->d, tenant) : NULL, NULL,
		  "%s: %s", s->ops->name, text);
}

/* ---- notes -------------------------------------------------------------------------------------------------------- */

void pen_note_restore(struct pen_daemon *d, const char *owner, const char *key, const char *text)
{
	if (!d->notes)
		d->notes = json_object();
	json_t *own = json_object_get(d->notes, owner);
	if (!own && json_object_set_new(d->notes, owner, own = json_object()) < 0)
		return;
	json_object_set_new(own, key, json_string(text));
}

void pen_service_keep(struct pen_service *s, const char *key, const char *text)
{
	const char *had = pen_service_kept(s, key);
	if ((!had && !text) || (had && text && !strcmp(had, text)) || strlen(key) >= PEN_NOTE_KEY_MAX ||
	    (text && strlen(text) >= PEN_NOTE_TEXT_MAX))
		return;
	if (text)
		pen_note_restore(s->d, s->ops->name, key, text);
	else
		json_object_del(json_object_get(s->d->notes, s->ops->name), key);
	if (s->d->store)
		pen_store_note(s->d->store, s->ops->name, "", key, text);
}

const char *pen_service_kept(struct pen_service *s, const char *key)
{
	return json_string_value(json_object_get(json_object_get(s->d->notes, s->ops->name), key));
}

void pen_service_each_kept(struct pen_service *s, void (*fn)(void *arg, const char *key, const char *text), void *arg)
{
	const char *key;
	json_t *text;
	json_object_foreach(json_object_get(s->d->notes, s->ops->name), key, text)
		if (json_is_string(text))   /* what is no text is the daemon's own, of a tenant */
			fn(arg, key, json_string_value(text));
}
