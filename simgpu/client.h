/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H
/*
 * How a stand-in vendor library drives the simulated accelerator: what hardware and kernel driver would give it. The server
 * (penstock-simgpu) owns time and capacity; the library owns the vendor's semantics.
 *
 * Memory. The server counts physical pages; their bytes are the client's own mappings, and every address in a command is an
 * address of the client process. The server reads and writes them there when a command's model time has come.
 * Channels are FIFOs, as in hardware: a command starts when the one before it in the channel has ended. Order between channels
 * is made by WAIT commands. A context is what a GPU without MPS gives time slices to.
 *
 * Threads: all functions from any thread; one thread at a time per channel for sim_submit() (the library holds its stream's lock).
 * Times: CLOCK_MONOTONIC ns, the device's clock included. Errors: negative errno. After fork the child must connect anew.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_ENV "PENSTOCK_SIMGPU"       /* the server's socket */
#define SIM_PAGE_BYTES UINT64_C(2097152) /* granule of physical memory */
#define SIM_NAME 96

struct sim;
struct sim_context;
struct sim_channel;

/* What a card is, from its card file. 0 = the file does not say. */
struct sim_card {
	char name[SIM_NAME];              /* "Tesla T4" */
	uint8_t uuid[16];
	uint32_t pci_domain, pci_bus, pci_device, pci_function;
	uint32_t cc_major, cc_minor;      /* compute capability */
	uint32_t units;                   /* multiprocessors */
	uint32_t threads_per_unit, blocks_per_unit, smem_per_unit, regs_per_unit, smem_per_block_optin, l2_bytes;
	uint32_t clock_khz, mem_clock_khz, mem_bus_bits;
	uint32_t copy_engines;
	uint64_t mem_bytes;               /* physical */
	uint64_t context_bytes;           /* that a context takes */
	uint64_t dram_bytes_per_s, pcie_bytes_per_s;
	uint64_t launch_ns;               /* from submission to start on an idle device */
	uint64_t slice_ns;                /* of a context while others have work */
	bool integrated, mig;
	char mode[16];                    /* "timeslice" or "concurrent" (as with MPS) */
};

/* One connection per process and socket. @path NULL: SIM_ENV. -ENOENT no server. */
int sim_connect(const char *path, struct sim **ret);
void sim_disconnect(struct sim *s);
unsigned sim_cards(const struct sim *s);
const struct sim_card *sim_card(const struct sim *s, unsigned dev);
void sim_after_fork(struct sim *s);      /* in the child: forget it, without a word to the server */

/* ---- memory ---- */
/* @bytes: a multiple of SIM_PAGE_BYTES. 0 and a number that is unique in the server; -ENOMEM. */
int sim_mem_take(struct sim *s, unsigned dev, uint64_t bytes, uint64_t *ret_id);
void sim_mem_give(struct sim *s, unsigned dev, uint64_t id);
int sim_mem_info(struct sim *s, unsigned dev, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes);

/* ---- contexts, channels ---- */
int sim_context_create(struct sim *s, unsigned dev, struct sim_context **ret);   /* -ENOMEM, -ENODEV lost */
/* Ends its channels, work in flight is dropped. Their handles stay until sim_channel_destroy(). */
void sim_context_destroy(struct sim_context *c);
/* 0; -EFAULT sticky error (illegal access, assert); -ENODEV device lost; -EIO uncorrectable ECC. One load. */
int sim_context_status(const struct sim_context *c);
/* @priority: 0 normal, negative = more urgent, acts when blocks are dealt. @units: largest number of units, 0 = all. */
int sim_channel_create(struct sim_context *c, int priority, uint32_t units, struct sim_channel **ret);
void sim_channel_destroy(struct sim_channel *ch);  /* after what is in it has ended; does not wait */

/* ---- commands ---- */
enum sim_kind { SIM_NOP, SIM_KERNEL, SIM_COPY, SIM_FILL, SIM_WAIT_SEQ, SIM_WAIT_WORD, SIM_WRITE_WORD, SIM_STAMP, SIM_HOST };
enum sim_dir { SIM_H2D, SIM_D2H, SIM_D2D, SIM_H2H };      /* which engine moves it */
enum sim_cond { SIM_GEQ, SIM_EQ, SIM_AND, SIM_NOR };      /* as the vendors' wait-value flags; GEQ is cyclic */

struct sim_cmd {
	enum sim_kind kind;
	int32_t priority;                 /* kernels: added to the channel's */
	union {
		struct {
			uint32_t grid[3], block[3];
			uint32_t blocks_per_unit; /* that fit at once by registers and shared memory; 0 = by threads alone */
			uint64_t block_ns;        /* one block's time with a unit's share of DRAM and no contention */
			uint64_t dram_bytes;      /* of the whole grid */
			uint32_t compute;         /* sim_kernel_find(): a built-in that works on memory; 0 = time only */
			uint64_t args;            /* address of the parameters, packed as the vendor packs them; kept until the end */
			uint32_t args_bytes;
		} kernel;
		struct {
			enum sim_dir dir;
			uint64_t dst, src;                     /* both 0: takes its time and moves nothing */
			uint64_t width, rows, layers;          /* bytes, counts (at least 1) */
			uint64_t dst_pitch, src_pitch, dst_layer, src_layer;   /* bytes from row to row, layer to layer */
			bool pageable;                     /* host memory that is not pinned: slower */
		} copy;
		struct {
			uint64_t dst, pitch, width, rows;  /* width in elements */
			uint32_t element, value;           /* bytes: 1, 2, 4 */
		} fill;
		struct { struct sim_channel *channel; uint64_t seq; } wait_seq;   /* of this process */
		struct { uint64_t address, value; enum sim_cond cond; uint32_t bytes; } word;
		struct { uint64_t address; } stamp;        /* of 8 bytes that get the device's time */
		struct { uint64_t token; } host;           /* sim_host_next() gives it out; the channel waits for sim_host_done() */
	};
};

/* Puts a command in; waits while the channel's ring is full. Return: its number in the channel, from 1 on; 0 = device gone. */
uint64_t sim_submit(struct sim_channel *ch, const struct sim_cmd *cmd);
uint64_t sim_done(const struct sim_channel *ch);   /* number of the last that has ended: one load */
/* Until sim_done() >= @seq. 0; -ETIMEDOUT; sim_context_status(). @timeout_ns UINT64_MAX: no bound. @spin: burn the CPU. */
int sim_wait(struct sim_channel *ch, uint64_t seq, uint64_t timeout_ns, bool spin);

/* Host functions: for one thread of the library. 0 and a token; -ETIMEDOUT; -ESHUTDOWN. */
int sim_host_next(struct sim *s, uint64_t timeout_ns, uint64_t *ret_token);
void sim_host_done(struct sim *s, uint64_t token);

/* Number of a built-in kernel that computes (vectorAdd, saxpy, sgemm, reduce, fill32, iota, ...), by name; 0 = none. */
uint32_t sim_kernel_find(const char *name);

/* ---- what a management library asks (NVML); with the real ones' delay and noise ---- */
struct sim_process { uint32_t pid; uint64_t mem_bytes; uint32_t sm_util, mem_util, enc_util, dec_util; };   /* per cent */
struct sim_reading {
	uint64_t mem_used_bytes;
	uint32_t gpu_util, mem_util, enc_util, dec_util, temperature_c, power_mw, sm_clock_mhz;
	uint64_t dram_bytes, pcie_rx_bytes, pcie_tx_bytes;   /* since the start */
	uint32_t ecc_uncorrected, xid;                       /* last Xid, 0 = none */
	bool lost;
};
int sim_reading(struct sim *s, unsigned dev, struct sim_reading *ret);
int sim_processes(struct sim *s, unsigned dev, struct sim_process *v, unsigned room);   /* number there are */

#endif
