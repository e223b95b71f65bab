/* SPDX-License-Identifier: Apache-2.0 */
/* Words in memory that a stream waits for or writes. */
#include "simgpu/nvidia/cuda/graph.h"

#define WAIT_FLAGS (CU_STREAM_WAIT_VALUE_NOR | CU_STREAM_WAIT_VALUE_FLUSH)

static CUresult word(CUdeviceptr address, uint32_t bytes)
{
	return address && address % bytes == 0 && sim_place(address) != SIM_AT_PAGEABLE
		       ? CUDA_SUCCESS
		       : CUDA_ERROR_INVALID_VALUE;
}

/* One operation as a command; SIM_NOP where nothing is to be done. */
static CUresult to_cmd(const CUstreamBatchMemOpParams *p, struct sim_cmd *cmd)
{
	uint32_t bytes = p->operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 ||
					 p->operation == CU_STREAM_MEM_OP_WRITE_VALUE_64
				 ? 8
				 : 4;
	CUresult r;

	*cmd = (struct sim_cmd){ .kind = SIM_NOP };
	switch (p->operation) {
	case CU_STREAM_MEM_OP_WAIT_VALUE_32:
	case CU_STREAM_MEM_OP_WAIT_VALUE_64:
		r = p->waitValue.flags & ~(unsigned)WAIT_FLAGS ? CUDA_ERROR_INVALID_VALUE
							       : word(p->waitValue.address, bytes);
		if (!r && p->waitValue.flags & CU_STREAM_WAIT_VALUE_FLUSH)
			r = CUDA_ERROR_NOT_SUPPORTED; /* CAN_FLUSH_REMOTE_WRITES is 0 */
		cmd->kind = SIM_WAIT_WORD;
		cmd->word.address = p->waitValue.address;
		cmd->word.value = bytes == 8 ? p->waitValue.value64 : p->waitValue.value;
		cmd->word.cond = (enum sim_cond)(p->waitValue.flags & 3); /* the same numbers */
		cmd->word.bytes = bytes;
		return r;
	case CU_STREAM_MEM_OP_WRITE_VALUE_32:
	case CU_STREAM_MEM_OP_WRITE_VALUE_64:
		r = p->writeValue.flags & ~(unsigned)CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER
			    ? CUDA_ERROR_INVALID_VALUE
			    : word(p->writeValue.address, bytes);
		cmd->kind = SIM_WRITE_WORD;
		cmd->word.address = p->writeValue.address;
		cmd->word.value = bytes == 8 ? p->writeValue.value64 : p->writeValue.value;
		cmd->word.bytes = bytes;
		return r;
	case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
		return CUDA_ERROR_NOT_SUPPORTED;
	case CU_STREAM_MEM_OP_BARRIER:
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult sim_memops_check(const CUstreamBatchMemOpParams *list, unsigned int n)
{
	CUresult r = CUDA_SUCCESS;
	struct sim_cmd cmd;

	if (!list || !n || n > 256)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned int i = 0; i < n && !r; i++)
		r = to_cmd(&list[i], &cmd);
	return r;
}

CUresult sim_memops_push(CUstream s, const CUstreamBatchMemOpParams *list, unsigned int n)
{
	CUresult r = CUDA_SUCCESS;

	for (unsigned int i = 0; i < n && !r; i++) {
		struct sim_cmd cmd;

		r = to_cmd(&list[i], &cmd);
		if (!r && cmd.kind != SIM_NOP)
			r = sim_push(s, &cmd, NULL, 0, NULL);
	}
	return r;
}

static CUresult ops(CUstream h, bool per_thread, const CUstreamBatchMemOpParams *list, unsigned int n,
		    unsigned int flags)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r && flags)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		r = sim_memops_check(list, n);
	if (r)
		return r;
	return SIM_UNLIKELY(s->capture != NULL) ? sim_capture_memops(s, list, n)
						: sim_memops_push(s, list, n);
}

#define WAIT(bits, field) \
	CUstreamBatchMemOpParams op = { .waitValue = { .operation = CU_STREAM_MEM_OP_WAIT_VALUE_##bits, \
						       .address = at, \
						       .field = v, \
						       .flags = flags } }; \
	return ops(h, per_thread, &op, 1, 0);
#define WRITE(bits, field) \
	CUstreamBatchMemOpParams op = { .writeValue = { .operation = CU_STREAM_MEM_OP_WRITE_VALUE_##bits, \
							.address = at, \
							.field = v, \
							.flags = flags } }; \
	return ops(h, per_thread, &op, 1, 0);

SIM_PAIR(cuStreamWaitValue32, _ptsz, (CUstream h, CUdeviceptr at, uint32_t v, unsigned int flags),
	 WAIT(32, value))
SIM_PAIR(cuStreamWaitValue32_v2, _ptsz, (CUstream h, CUdeviceptr at, uint32_t v, unsigned int flags),
	 WAIT(32, value))
SIM_PAIR(cuStreamWaitValue64, _ptsz, (CUstream h, CUdeviceptr at, uint64_t v, unsigned int flags),
	 WAIT(64, value64))
SIM_PAIR(cuStreamWaitValue64_v2, _ptsz, (CUstream h, CUdeviceptr at, uint64_t v, unsigned int flags),
	 WAIT(64, value64))
SIM_PAIR(cuStreamWriteValue32, _ptsz, (CUstream h, CUdeviceptr at, uint32_t v, unsigned int flags),
	 WRITE(32, value))
SIM_PAIR(cuStreamWriteValue32_v2, _ptsz, (CUstream h, CUdeviceptr at, uint32_t v, unsigned int flags),
	 WRITE(32, value))
SIM_PAIR(cuStreamWriteValue64, _ptsz, (CUstream h, CUdeviceptr at, uint64_t v, unsigned int flags),
	 WRITE(64, value64))
SIM_PAIR(cuStreamWriteValue64_v2, _ptsz, (CUstream h, CUdeviceptr at, uint64_t v, unsigned int flags),
	 WRITE(64, value64))
SIM_PAIR(cuStreamBatchMemOp, _ptsz,
	 (CUstream h, unsigned int n, CUstreamBatchMemOpParams *list, unsigned int flags),
	 return ops(h, per_thread, list, n, flags);)
SIM_PAIR(cuStreamBatchMemOp_v2, _ptsz,
	 (CUstream h, unsigned int n, CUstreamBatchMemOpParams *list, unsigned int flags),
	 return ops(h, per_thread, list, n, flags);)
