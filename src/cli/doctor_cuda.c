/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "base/driverfile.h"
#include "base/units.h"
#include "cli/doctor.h"
#include "cli/inject.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OLDEST 470              /* driver that the shim is tested against, on a stand-in */
#define MODULE "/proc/driver/nvidia/version"
#define CONTROL "/dev/nvidiactl"
#define UVM "/dev/nvidia-uvm"
#define UNEXPLAINED (UINT64_C(2) << 30)

static bool any(void *arg, const char *path)
{
	(void)arg, (void)path;
	return true;
}

bool pen_doctor_has_nvidia(void)
{
	return access(MODULE, F_OK) == 0 || pen_driverfile_each("libcuda.so.1", getenv("LD_LIBRARY_PATH"), any, NULL);
}

static void check_version(struct doctor *d, const json_t *probe)
{
	size_t i;
	json_t *v;
	json_array_foreach(json_object_get(probe, "devices"), i, v) {
		const char *driver = pen_json_str(v, "driver");
		if (!strcmp(pen_json_str(v, "api"), "cuda") && atoi(driver) && atoi(driver) < OLDEST)
			pen_doctor_report(d, "cuda-driver", WARN, _("driver 470 or newer"),
					  _("%s: driver %s: older than 470 nobody has tried; programs get what it offers, and some promises have no mechanism on it"),
					  pen_json_str(v, "key"), driver);
	}
}

static void check_libraries(struct doctor *d)
{
	static struct pen_cuda_paths p;
	pen_cuda_find(&p);
	if (!*p.driver) {
		pen_doctor_report(d, "cuda", WARN, _("install the driver's libraries (libcuda.so.1), of the same version as the kernel module"),
				  _("NVIDIA's kernel module is loaded and there is no libcuda.so.1: CUDA programs cannot run"));
		return;
	}
	if (!*p.shim) {
		pen_doctor_report(d, "cuda", BAD, _("install the package penstock completely"),
				  _("there is a CUDA driver (%s), and our libcuda.so.1 was not found: run refuses to start programs"), p.driver);
		return;
	}
	pen_doctor_report(d, "cuda", OK, NULL, _("CUDA: programs get %s before %s"), p.folders, p.driver);
	if (p.untrimmed)
		pen_doctor_report(d, "cuda-trim", NOTE, NULL,
				  _("our libcuda.so.1 is used as it is, with names that this driver may lack: %s"), pen_untrimmed_text(p.untrimmed));
	if (!*p.view)
		pen_doctor_report(d, "cuda-view", WARN, _("install the package penstock completely"),
				  _("our libnvidia-ml.so.1 was not found: programs that ask it see the whole device instead of their contract"));
	if (access(CONTROL, F_OK) == 0 && access(CONTROL, R_OK | W_OK) < 0)
		pen_doctor_report(d, "cuda-device", BAD, _("join the group of the device file: ls -l /dev/nvidiactl"),
				  _("you may not use %s"), CONTROL);
	/* It comes with the first program that uses CUDA, or nvidia-modprobe; what a container is to have of it must be there before. */
	if (access(CONTROL, F_OK) == 0 && access(UVM, F_OK) < 0)
		pen_doctor_report(d, "cuda-uvm", WARN, "nvidia-modprobe -u -c 0",
				  _("%s is not there yet: containers that are started now get no CUDA"), UVM);
}

void pen_doctor_cuda(struct doctor *d, const json_t *probe)
{
	if (!pen_doctor_has_nvidia())
		return;
	check_libraries(d);
	check_version(d, probe);
}

/* ---- audit ----------------------------------------------------------------------------------------------------------- */

static void audit_device(struct doctor *d, const json_t *dev)
{
	const json_t *a = json_object_get(dev, "audit");
	const char *key = pen_json_str(dev, "key");
	char text[32];
	size_t i;
	json_t *p;
	if (!strcmp(pen_json_str(dev, "state"), "lost"))
		pen_doctor_report(d, "device-lost", BAD, _("reset the device or the machine; then: penstock config reload"), _("%s is lost"), key);
	if (!json_is_object(a))
		return;
	if (!json_is_true(json_object_get(a, "watched")))
		pen_doctor_report(d, "audit", WARN, _("`penstock events` says why"), _("%s is not watched at the moment"), key);
	json_array_foreach(json_object_get(a, "unknown"), i, p) {
		const json_t *mem = json_object_get(p, "mem_bytes");
		pen_doctor_report(d, "audit", WARN, _("start it with penstock run, or name its program in audit.known"),
				  _("%s: process %lld (%s) belongs to no tenant, %s of memory"), key, pen_json_int(p, "pid"), pen_json_str(p, "comm"),
				  json_is_integer(mem) ? pen_format_bytes(text, sizeof(text), (uint64_t)json_integer_value(mem)) : "?");
	}
	if ((uint64_t)pen_json_int(a, "mem_unexplained_bytes") > UNEXPLAINED)
		pen_doctor_report(d, "audit", WARN, NULL, _("%s: %s are in use that no process is named for"), key,
				  pen_format_bytes(text, sizeof(text), (uint64_t)pen_json_int(a, "mem_unexplained_bytes")));
	if (!json_array_size(json_object_get(a, "unknown")) && json_is_true(json_object_get(a, "watched")))
		pen_doctor_report(d, "audit", OK, NULL, _("%s is watched: %lld processes, all of them tenants' or known"), key,
				  pen_json_int(a, "processes"));
}

void pen_doctor_audit(struct doctor *d, const struct pen_cli *cli)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *answer = NULL, *dev;
	size_t i;
	if (pen_client_request(cli, "GET", "/v1/devices", NULL, &answer, &err) == 200)
		json_array_foreach(json_object_get(answer, "devices"), i, dev)
			audit_device(d, dev);
	json_decref(answer);
}
