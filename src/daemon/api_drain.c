/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/devices/drain, undrain, release: {device}. Each may be sent again to see how far it is. */
#include "base/auto.h"
#include "contract/text.h"
#include "daemon/api.h"
#include "daemon/drain.h"

#include <errno.h>
#include <string.h>

/* Return: 0; the call has its error otherwise. */
static int name_of(struct pen_api_call *call, const char **ret_name)
{
	const char *key;
	json_t *v;
	json_object_foreach(call->json, key, v)
		if (strcmp(key, "device"))
			return pen_api_error(call, 400, "field-invalid", N_("%.40s is no member here; allowed: device"), key), -EINVAL;
	*ret_name = json_string_value(json_object_get(call->json, "device"));
	if (!*ret_name)
		return pen_api_error(call, 400, "field-invalid", N_("device: missing, or no text")), -EINVAL;
	return 0;
}

static int device_of(struct pen_api_call *call, struct pen_device **ret_dev)
{
	const char *name;
	struct pen_err err = PEN_ERR_INIT;
	if (name_of(call, &name) < 0)
		return -EINVAL;
	int r = pen_device_named(call->d, name, ret_dev, &err);
	if (r < 0)
		pen_api_error(call, r == -ENOENT ? 404 : 400, r == -ENOENT ? "no-such-device" : "field-invalid", "%s", err.text);
	return r;
}

static int answer(struct pen_api_call *call, const struct pen_device *dev)
{
	pen_api_stores(call);
	return pen_api_answer(call, 200, json_pack("{s:o, s:o}", "device", pen_api_device_json(call->d, dev), "holders",
						   pen_drain_holders(call->d, dev)));
}

int pen_api_device_drain(struct pen_api_call *call)
{
	struct pen_device *dev;
	if (device_of(call, &dev) < 0)
		return 0;
	pen_drain_begin(call->d, dev);
	return answer(call, dev);
}

int pen_api_device_undrain(struct pen_api_call *call)
{
	struct pen_device *dev;
	const char *name;
	if (name_of(call, &name) < 0)
		return 0;
	if (!pen_device_find(call->d, name) && pen_drain_end(call->d, name) == 0) {   /* one that is not there at the moment */
		pen_api_stores(call);
		return pen_api_answer(call, 200, json_pack("{s:n, s:[]}", "device", "holders"));
	}
	if (device_of(call, &dev) < 0)
		return 0;
	pen_drain_end(call->d, dev->key);
	return answer(call, dev);
}

/* "123 (python3, tenant cam), 456 (Xorg, no tenant)" */
static void describe(const json_t *holders, char *buf, size_t n)
{
	size_t i, len = 0;
	json_t *o;
	*buf = 0;
	json_array_foreach(holders, i, o) {
		const char *tenant = json_string_value(json_object_get(o, "tenant"));
		char one[128];
		int k = snprintf(one, sizeof(one), "%s%lld (%s, %s%s)", i ? ", " : "", (long long)json_integer_value(json_object_get(o, "pid")),
				 json_string_value(json_object_get(o, "comm")), tenant ? "tenant " : "no tenant", tenant ? tenant : "");
		if (len + (size_t)k + 8 >= n) {
			snprintf(buf + len, n - len, ", ...");
			return;
		}
		len += (size_t)snprintf(buf + len, n - len, "%s", one);
	}
}

int pen_api_device_release(struct pen_api_call *call)
{
	struct pen_device *dev;
	if (device_of(call, &dev) < 0)
		return 0;
	pen_drain_begin(call->d, dev);   /* also where it is refused: it can only become emptier */
	json_t *holders = dev->released ? json_array() : pen_drain_holders(call->d, dev);
	if (json_array_size(holders)) {
		char text[384];
		describe(holders, text, sizeof(text));
		pen_api_error(call, 409, "busy", N_("%s is drained, and still held by %s"), dev->key, text);
		json_object_set_new(call->answer, "holders", holders);
		return 0;
	}
	json_decref(holders);
	pen_drain_release(call->d, dev);
	return answer(call, dev);
}
