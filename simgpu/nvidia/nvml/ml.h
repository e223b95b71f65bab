/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_NVML_ML_H
#define SIM_NVML_ML_H
/*
 * What the files of the stand-in libnvidia-ml share: the process's state, the cards behind the handles, and readings.
 *
 * Two modes, as in the stand-in libcuda. Server: cards and readings are penstock-simgpu's. Null (PENSTOCK_SIMGPU=null or null:N): made-up
 * cards, the same that the stand-in libcuda has then, whose readings come from a file that a test writes (README.md).
 *
 * Threads: every entry point in any thread. Handles point into a static array and stay good. Sizes are bytes.
 */
#include "api/nvml_abi.h"
#include "simgpu/client.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The entry points: the only names that a version script lets out. */
#pragma GCC visibility push(default)
#define PEN_NV(symbol, since, class, types) nvmlReturn_t symbol types;
#define PEN_NV_TEXT(symbol, since, class, types) const char *symbol types;
#include "api/nvml.def"
#pragma GCC visibility pop

#define SIM_NV_DEVICES 16
#define SIM_NV_INSTANCES 7     /* MIG instances of one card */
#define SIM_NV_PROCESSES 256

/* A card, or a MIG instance of one: what a handle points to. */
struct nvmlDevice_st {
	struct sim_card card;      /* of an instance: its part */
	unsigned int index;
	unsigned int instances;    /* MIG is on and there are so many */
	int instance;              /* number of an instance; -1: a card */
	struct nvmlDevice_st *parent;
	nvmlEnableState_t persistence;
	nvmlComputeMode_t compute_mode;
	uint64_t pcie_at_ns, pcie_rx, pcie_tx;   /* at the last question */
};

/* In which of the driver's lists a process is. */
enum { SIM_NV_COMPUTE = 1, SIM_NV_GRAPHICS = 2, SIM_NV_MPS = 4 };

struct sim_nv_process {
	struct sim_process p;
	unsigned int lists;
};

struct sim_nv_state {
	bool null;
	struct sim *server;        /* NULL in null mode */
	unsigned int devices;
	struct nvmlDevice_st device[SIM_NV_DEVICES];
	struct nvmlDevice_st instance[SIM_NV_DEVICES][SIM_NV_INSTANCES];
};
extern struct sim_nv_state sim_nv;

extern const char *const sim_nv_default_driver;   /* version.c: the one source that differs between the libraries */

const char *sim_nv_driver(void);                  /* "580.65.06" */
unsigned int sim_nv_major(void);

/*
 * At the head of every entry point: 0; NVML_ERROR_UNINITIALIZED; or what a test wants @name to return.
 * _device: also that the handle is one, and that the card is not lost.
 */
nvmlReturn_t sim_nv_enter(const char *name);
nvmlReturn_t sim_nv_enter_device(const char *name, nvmlDevice_t d);

#define ENTER() do { nvmlReturn_t r_ = sim_nv_enter(__func__); if (r_) return r_; } while (0)
#define ENTER_DEVICE(d) do { nvmlReturn_t r_ = sim_nv_enter_device(__func__, d); if (r_) return r_; } while (0)
#define NEED(x) do { if (!(x)) return NVML_ERROR_INVALID_ARGUMENT; } while (0)

/* Text into a caller's room. */
nvmlReturn_t sim_nv_text(char *room, unsigned int length, const char *text);

struct sim_nv_reading {
	struct sim_reading r;
	uint64_t reserved_bytes;
};
nvmlReturn_t sim_nv_reading(nvmlDevice_t d, struct sim_nv_reading *ret);
/* The number there are, at most SIM_NV_PROCESSES. */
unsigned int sim_nv_processes(nvmlDevice_t d, struct sim_nv_process v[SIM_NV_PROCESSES]);
unsigned long long sim_nv_now_us(void);           /* the clock of samples */

/* null.c: the made-up cards, and the file that says what happens to them. */
unsigned int sim_nv_null_cards(const char *where);   /* 0: @where does not name the null mode */
void sim_nv_null_card(unsigned int i, struct sim_card *ret);
unsigned int sim_nv_null_instances(void);
nvmlReturn_t sim_nv_null_failure(const char *name);
void sim_nv_null_reading(unsigned int device, struct sim_nv_reading *ret);
unsigned int sim_nv_null_processes(unsigned int device, struct sim_nv_process v[SIM_NV_PROCESSES]);

#endif
