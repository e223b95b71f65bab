/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CONTRACT_CONFIG_INTERNAL_H
#define PEN_CONTRACT_CONFIG_INTERNAL_H
/* Shared by config.c, config_load.c and config_kube.c. */
#include "contract/config.h"
#include "contract/internal.h"

extern const struct pen_key pen_config_keys[];   /* indexed by enum pen_config_key */
extern const struct pen_key pen_policy_keys[];   /* indexed by enum pen_policy_key */

/* Sets what follows from other keys. @set_mask: the keys that were given, for the node or for the device. */
void pen_config_derive_quantum(struct pen_device_policy *p, uint32_t set_mask);
/* Index of the key of that name; -ENOENT. */
int pen_key_find(const struct pen_key *k, size_t n, const char *name, size_t len);
const struct pen_config_contract *pen_config_find_contract(const struct pen_config *cfg, const char *name);


/* ---- config_kube.c: the lists of `kubernetes:` ---- */

int pen_config_read_profile(struct pen_yaml *y, const yaml_node_t *item, struct pen_config *cfg, struct pen_err *err);
/* A mapping of resource to profile; pen_config_check_aliases() when all profiles are known. */
int pen_config_read_aliases(struct pen_yaml *y, const yaml_node_t *map, struct pen_config *cfg, struct pen_err *err);
int pen_config_check_aliases(const struct pen_yaml *y, const yaml_node_t *map, const struct pen_config *cfg,
			     struct pen_err *err);
void pen_config_print_kube(const struct pen_config *cfg, FILE *out);
int pen_config_diff_kube(const struct pen_config *old, const struct pen_config *new, struct pen_diff *d);

#endif
