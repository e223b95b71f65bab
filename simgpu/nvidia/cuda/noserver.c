/* SPDX-License-Identifier: Apache-2.0 */
/* Until the client of the device server is linked in: there is no server. Weak, so that it takes the place of these. */
#include "simgpu/client.h"

#include <errno.h>

#define WEAK __attribute__((weak))

WEAK int sim_connect(const char *path, struct sim **ret) { (void)path; (void)ret; return -ENOENT; }
WEAK unsigned sim_cards(const struct sim *s) { (void)s; return 0; }
WEAK const struct sim_card *sim_card(const struct sim *s, unsigned dev) { (void)s; (void)dev; return 0; }
WEAK void sim_after_fork(struct sim *s) { (void)s; }
WEAK int sim_mem_info(struct sim *s, unsigned dev, uint64_t *f, uint64_t *t) { (void)s; (void)dev; (void)f; (void)t; return -ENODEV; }
WEAK int sim_context_create(struct sim *s, unsigned dev, struct sim_context **ret) { (void)s; (void)dev; (void)ret; return -ENODEV; }
WEAK void sim_context_destroy(struct sim_context *c) { (void)c; }
WEAK int sim_context_status(const struct sim_context *c) { (void)c; return -ENODEV; }
WEAK int sim_channel_create(struct sim_context *c, int p, uint32_t u, struct sim_channel **ret) { (void)c; (void)p; (void)u; (void)ret; return -ENODEV; }
WEAK void sim_channel_destroy(struct sim_channel *ch) { (void)ch; }
WEAK uint64_t sim_submit(struct sim_channel *ch, const struct sim_cmd *cmd) { (void)ch; (void)cmd; return 0; }
WEAK uint64_t sim_done(const struct sim_channel *ch) { (void)ch; return 0; }
WEAK int sim_wait(struct sim_channel *ch, uint64_t seq, uint64_t ns, bool spin) { (void)ch; (void)seq; (void)ns; (void)spin; return -ENODEV; }
WEAK int sim_host_next(struct sim *s, uint64_t ns, uint64_t *t) { (void)s; (void)ns; (void)t; return -ESHUTDOWN; }
WEAK void sim_host_done(struct sim *s, uint64_t t) { (void)s; (void)t; }
WEAK uint32_t sim_kernel_find(const char *name) { (void)name; return 0; }
