/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_API_H
#define PEN_DAEMON_API_H
/*
 * The control API without its transport: a call in, a status with JSON or text out. docs/API.md is what it serves.
 * Threads: main. A call and everything in it belongs to who makes it; pen_api_finish() frees the answer.
 */
#include "daemon/daemon.h"

#define PEN_API_BODY_MAX 65536

enum pen_api_method { PEN_API_GET, PEN_API_POST, PEN_API_PATCH, PEN_API_DELETE, PEN_API_OTHER };

struct pen_api_call {
	struct pen_daemon *d;
	enum pen_api_method method;
	const char *path;              /* "/v1/tenants/cam1", without query; borrowed */
	const char *query;             /* "minutes=5" or NULL */
	const char *body;
	size_t body_len;
	bool open_metrics;             /* it would rather have OpenMetrics than Prometheus text */
	bool may_change;               /* root, the owner of the daemon, or of its group */
	uid_t uid;                     /* of the caller, for what it creates */
	gid_t gid;
	/* filled for the handler */
	char name[PEN_NAME_MAX + 1];   /* of the tenant in the path */
	struct pen_tenant *tenant;
	json_t *json;                  /* the body, an object; NULL for GET and DELETE */
	bool stores;                   /* it made or changed what has to outlive the daemon: the answer says whether it is on disk */
	uint64_t store_mark;           /* store.h */
	/* the answer */
	int status;
	json_t *answer;
	char *text;                    /* instead of JSON */
	const char *text_type;         /* of it; NULL: Prometheus text */
};

void pen_api_run(struct pen_api_call *call);
void pen_api_finish(struct pen_api_call *call);
/* "stored" of the answer; @why: NULL, or why it is not. */
void pen_api_stored(struct pen_api_call *call, const char *why);
/* Does the call need to know the devices, and so wait for the probe? */
bool pen_api_needs_devices(const struct pen_api_call *call);

/* For handlers. */
int pen_api_error(struct pen_api_call *call, int status, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* From a negative errno with its text; names the field and what is allowed if the text begins with one. */
int pen_api_refuse(struct pen_api_call *call, int r, const struct pen_err *err);
int pen_api_answer(struct pen_api_call *call, int status, json_t *object);   /* takes the reference; adds the schema */
void pen_api_stores(struct pen_api_call *call);   /* the answer waits a moment for the disk */
uint64_t pen_api_query_u64(const struct pen_api_call *call, const char *key, uint64_t deflt);

json_t *pen_api_tenant_json(struct pen_daemon *d, const struct pen_tenant *t);
json_t *pen_api_device_json(struct pen_daemon *d, const struct pen_device *dev);
json_t *pen_api_event_json(const struct pen_event_row *row);
char *pen_metrics_text(struct pen_daemon *d);   /* malloc'ed; NULL no memory */
char *pen_openmetrics_text(const char *prometheus);   /* the same in OpenMetrics 1.0; likewise */
json_t *pen_json_u64(uint64_t v);               /* jansson's integers are signed: "unlimited" becomes the largest */

/* Path after /v1 ("*" = a tenant's name), method, handler, changes state. The one list of what is served. */
#define PEN_API_ROUTES(X)                                        \
	X(GET, "/v1/version", version, false)                    \
	X(GET, "/v1/devices", devices, false)                    \
	X(POST, "/v1/devices/drain", device_drain, true)         \
	X(POST, "/v1/devices/undrain", device_undrain, true)     \
	X(POST, "/v1/devices/release", device_release, true)     \
	X(GET, "/v1/tenants", tenants, false)                    \
	X(POST, "/v1/tenants", tenant_create, true)              \
	X(GET, "/v1/tenants/*", tenant, false)                   \
	X(PATCH, "/v1/tenants/*", tenant_change, true)           \
	X(DELETE, "/v1/tenants/*", tenant_end, true)             \
	X(GET, "/v1/tenants/*/container", container, false)      \
	X(GET, "/v1/tenants/*/why", why, false)                  \
	X(GET, "/v1/tenants/*/usage", usage, false)              \
	X(GET, "/v1/events", events, false)                      \
	X(GET, "/v1/integrations", integrations, false)          \
	X(GET, "/v1/config", config, false)                      \
	X(POST, "/v1/config/reload", config_reload, true)        \
	X(GET, "/metrics", metrics, false)

#define X(method, path, fn, changes) int pen_api_##fn(struct pen_api_call *call);
PEN_API_ROUTES(X)
#undef X

#endif
