/* SPDX-License-Identifier: Apache-2.0 */
/* Life of events and what can be asked about them. */
#include "nullicd.h"
#include <stdlib.h>

void nl_event_unpin(cl_event e)
{
	if (atomic_fetch_sub(&e->o.life, 1) != 1)
		return;
	if (e->queue)
		nl_queue_unpin(e->queue);
	e->o.magic = NL_MAGIC_DEAD;
	free(e);
}

cl_int nl_clRetainEvent(cl_event e)
{
	NL_ENTER(clRetainEvent);
	if (!NL_IS(e, NL_MAGIC_EVENT))
		return CL_INVALID_EVENT;
	atomic_fetch_add(&e->o.refs, 1);
	return CL_SUCCESS;
}

cl_int nl_clReleaseEvent(cl_event e)
{
	NL_ENTER(clReleaseEvent);
	if (!NL_IS(e, NL_MAGIC_EVENT))
		return CL_INVALID_EVENT;
	if (atomic_fetch_sub(&e->o.refs, 1) == 1)
		nl_event_unpin(e);
	return CL_SUCCESS;
}

cl_int nl_clGetEventInfo(cl_event e, cl_event_info name, size_t size, void *value, size_t *ret_size)
{
	NL_ENTER(clGetEventInfo);
	if (!NL_IS(e, NL_MAGIC_EVENT))
		return CL_INVALID_EVENT;
	switch (name) {
	case CL_EVENT_COMMAND_QUEUE:
		return NL_PUT(cl_command_queue, e->queue);
	case CL_EVENT_CONTEXT:
		return NL_PUT(cl_context, e->context);
	case CL_EVENT_COMMAND_TYPE:
		return NL_PUT(cl_command_type, e->type);
	case CL_EVENT_COMMAND_EXECUTION_STATUS:
		return NL_PUT(cl_int, atomic_load(&e->status));
	case CL_EVENT_REFERENCE_COUNT:
		return NL_PUT(cl_uint, atomic_load(&e->o.refs));
	default:
		return CL_INVALID_VALUE;
	}
}

cl_int nl_clGetEventProfilingInfo(cl_event e, cl_profiling_info name, size_t size, void *value,
				  size_t *ret_size)
{
	NL_ENTER(clGetEventProfilingInfo);
	if (!NL_IS(e, NL_MAGIC_EVENT))
		return CL_INVALID_EVENT;
	if (!e->queue || !(e->queue->properties & CL_QUEUE_PROFILING_ENABLE) ||
	    atomic_load(&e->status) != CL_COMPLETE)
		return CL_PROFILING_INFO_NOT_AVAILABLE;
	switch (name) {
	case CL_PROFILING_COMMAND_QUEUED:
		return NL_PUT(cl_ulong, e->t_queued);
	case CL_PROFILING_COMMAND_SUBMIT:
		return NL_PUT(cl_ulong, e->t_submit);
	case CL_PROFILING_COMMAND_START:
		return NL_PUT(cl_ulong, e->t_start);
	case CL_PROFILING_COMMAND_END:
	case CL_PROFILING_COMMAND_COMPLETE:
		return NL_PUT(cl_ulong, e->t_end);
	default:
		return CL_INVALID_VALUE;
	}
}
