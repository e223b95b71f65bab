/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor says of the kubelet, where the daemon serves one. */
#include "cli/cli.h"
#include "cli/doctor.h"

#include <string.h>

static void report(struct doctor *d, const json_t *kubelet)
{
	size_t i, live = 0;
	const char *waits = "";
	json_t *r, *resources = json_object_get(kubelet, "resources");
	json_array_foreach(resources, i, r) {
		if (!strcmp(pen_json_str(r, "state"), "live"))
			live++;
		else if (!*waits)
			waits = pen_json_str(r, "resource");
		if (!pen_json_int(r, "slots"))
			pen_doctor_report(d, "kubelet", WARN, _("compare its profile with `penstock device ls`"),
					  _("no card has a slot of %s"), pen_json_str(r, "resource"));
	}
	if (*waits)
		pen_doctor_report(d, "kubelet", WARN, _("is a kubelet running, and its directory kubernetes.directory?"),
				  _("%s is not registered: nobody listens to it in %s"), waits, pen_json_str(kubelet, "directory"));
	else
		pen_doctor_report(d, "kubelet", OK, NULL, _("%zu resources are registered with the kubelet"), live);
}

void pen_doctor_kubelet(struct doctor *d, const struct pen_cli *cli)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *answer = NULL;
	if (pen_client_request(cli, "GET", "/v1/integrations", NULL, &answer, &err) == 200) {
		const json_t *kubelet = json_object_get(json_object_get(answer, "integrations"), "kubelet");
		if (json_is_true(json_object_get(kubelet, "enabled")))
			report(d, kubelet);
	}
	json_decref(answer);
}
