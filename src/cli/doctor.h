/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CLI_DOCTOR_H
#define PEN_CLI_DOCTOR_H
/* What the files of `penstock doctor` share: findings, and who adds them. */
#include "cli/cli.h"

enum pen_finding { OK, NOTE, WARN, BAD };

struct doctor {
	json_t *checks;
	enum pen_finding worst;
	json_t *devices;   /* that the probe found; NULL = none */
};

/* Texts translated already; @mend NULL = nothing to do. */
void pen_doctor_report(struct doctor *d, const char *id, enum pen_finding s, const char *mend, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* doctor_cuda.c. @probe: what penstock-probe printed. Nothing is said on a machine without an NVIDIA driver. */
void pen_doctor_cuda(struct doctor *d, const json_t *probe);
/* What the daemon's audit has found; nothing where none answers or nothing is watched. */
void pen_doctor_audit(struct doctor *d, const struct pen_cli *cli);
/* doctor_kubelet.c: of the kubelet, where the daemon serves one. */
void pen_doctor_kubelet(struct doctor *d, const struct pen_cli *cli);
/* Has this machine anything of NVIDIA's driver? */
bool pen_doctor_has_nvidia(void);

#endif
