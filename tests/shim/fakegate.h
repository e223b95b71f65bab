/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_SHIM_FAKEGATE_H
#define PEN_TESTS_SHIM_FAKEGATE_H
/* What the stand-in gate (fakegate.c) has counted. Found by dlsym(RTLD_NOLOAD handle of the layer, "fake_stats"). */
#include "gate/adapter.h"
#include "gate/gate.h"

struct fake_stats {
	_Atomic uint64_t used, objects, denials;                /* memory over all gates */
	_Atomic uint64_t queues;                                /* live */
	_Atomic uint64_t kind[PEN_CMD_KIND_MAX_], bytes;        /* pen_gate_submit by kind */
	_Atomic uint64_t pieces, cuttable, not_runnable, in_callback;
	_Atomic uint64_t sync_begin, sync_end, polls, edges;
	_Atomic uint64_t marks, told, timed;                    /* marks: live */
	_Atomic uint64_t late;                                  /* broken promises of the adapter: must stay 0 */
	_Atomic uint64_t last_what, last_start_ns, last_end_ns;
	char key[128];
	_Atomic uint64_t peak;                                  /* most that one gate has had charged at once */
};

#endif
