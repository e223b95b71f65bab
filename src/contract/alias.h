/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CONTRACT_ALIAS_H
#define PEN_CONTRACT_ALIAS_H
/*
 * How other systems spell what a contract says: names of Kubernetes resources and annotations, so that what stands in a
 * manifest can be written in a profile as it is. One list: parser, reference page and messages are made from it.
 *
 * A kubelet's plugin is only ever told counts of device IDs; an amount in MiB never reaches it. So these names serve where
 * a person writes or a manifest is read, not where a container is admitted.
 */
#include "contract/contract.h"

/* id, what one unit is. Values are whole numbers but for DEVICE. */
#define PEN_ALIAS_KINDS(X) \
	X(SLOTS, N_("number of slots")) \
	X(MEMORY_MIB, N_("MiB of device memory")) \
	X(MEMORY_GIB, N_("GiB of device memory")) \
	X(MEMORY_256M, N_("units of 256 MiB of device memory")) \
	X(MEMORY_PERCENT, N_("per cent of the memory of a card; say a size instead")) \
	X(COMPUTE_PERCENT, N_("per cent of a card's compute")) \
	X(COMPUTE_CAP, N_("cap in per cent of a card's compute")) \
	X(FRACTION, N_("part of a card, such as 0.5; say memory and compute instead")) \
	X(PRIORITY, N_("0 urgent, 1 not")) \
	X(DEVICE, N_("UUID or model name of the card"))

#define PEN_X_(id, unit) PEN_ALIAS_##id,
enum pen_alias_kind { PEN_ALIAS_KINDS(PEN_X_) PEN_ALIAS_MAX_ };
#undef PEN_X_

/* name, systems that use it, kind. */
#define PEN_ALIASES(X) \
	X("nvidia.com/gpu", "NVIDIA, HAMi", SLOTS) \
	X("nvidia.com/gpu.shared", "NVIDIA", SLOTS) \
	X("nvidia.com/gpumem", "HAMi", MEMORY_MIB) \
	X("nvidia.com/gpumem-percentage", "HAMi", MEMORY_PERCENT) \
	X("nvidia.com/gpucores", "HAMi", COMPUTE_PERCENT) \
	X("nvidia.com/priority", "HAMi", PRIORITY) \
	X("nvidia.com/use-gpuuuid", "HAMi", DEVICE) \
	X("nvidia.com/use-gputype", "HAMi", DEVICE) \
	X("volcano.sh/vgpu-number", "Volcano", SLOTS) \
	X("volcano.sh/vgpu-memory", "Volcano", MEMORY_MIB) \
	X("volcano.sh/vgpu-memory-percentage", "Volcano", MEMORY_PERCENT) \
	X("volcano.sh/vgpu-cores", "Volcano", COMPUTE_PERCENT) \
	X("volcano.sh/vgpu-use-gpuuuid", "Volcano", DEVICE) \
	X("volcano.sh/gpu-number", "Volcano", SLOTS) \
	X("volcano.sh/gpu-memory", "Volcano", MEMORY_MIB) \
	X("aliyun.com/gpu-count", "Aliyun", SLOTS) \
	X("aliyun.com/gpu-mem", "Aliyun", MEMORY_GIB) \
	X("tencent.com/vcuda-core", "Tencent", COMPUTE_PERCENT) \
	X("tencent.com/vcuda-core-limit", "Tencent", COMPUTE_CAP) \
	X("tencent.com/vcuda-memory", "Tencent", MEMORY_256M) \
	X("gpu-memory", "KAI", MEMORY_MIB) \
	X("gpu-fraction", "KAI", FRACTION)

struct pen_alias {
	const char *name, *systems;
	enum pen_alias_kind kind;
};

const struct pen_alias *pen_alias(size_t i);                  /* i = 0, 1, ... until NULL */
const struct pen_alias *pen_alias_find(const char *name);     /* NULL: none */
const char *pen_alias_unit(enum pen_alias_kind kind);         /* for gettext, English here */
/* The field of a contract that it sets; -1: none (a count of slots, or what needs the card's size). */
int pen_alias_field(enum pen_alias_kind kind);

/*
 * Sets the field. What these systems ask for is kept aside for the asker and not exceeded: X, guaranteed and capped.
 * @c is unchanged on failure. Return: 0; -EINVAL, -ERANGE value; -ENOTSUP a name that sets no field.
 */
int pen_alias_set(struct pen_contract *c, const struct pen_alias *a, const char *value, struct pen_err *err);

#endif
