/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints what programs that were built before depend on; abi.txt has what it printed then. Lines may only
 * be added.
 */
#include <penstock/contract.h>
#include <penstock/penstock.h>

#include <stdio.h>

#define SIZE(type) printf("sizeof %s %zu\n", #type, sizeof(struct type))
#define AT(type, member) printf("offset %s.%s %zu\n", #type, #member, offsetof(struct type, member))
#define VALUE(name) printf("value %s %lld\n", #name, (long long)(name))

int main(void)
{
#define X(constant, value, name, text) VALUE(constant);
	PENSTOCK_ERRORS(X)
	VALUE(PENSTOCK_REQUESTS_MAX);
	VALUE(PENSTOCK_WORK_MAX);
	VALUE(PENSTOCK_INFO_ATTACHED);
	VALUE(PENSTOCK_INFO_DAEMON);
	VALUE(PENSTOCK_INFO_STOPPED);
	VALUE(PENSTOCK_INFO_NO_MEMORY);
	VALUE(PENSTOCK_INFO_EXCLUSIVE);
	VALUE(PENSTOCK_INFO_SIZE_1);
	VALUE(PENSTOCK_CLASS_LATENCY);
	VALUE(PENSTOCK_CLASS_NORMAL);
	VALUE(PENSTOCK_CLASS_BESTEFFORT);
	SIZE(penstock_info);
	AT(penstock_info, contract);
	AT(penstock_info, device);
	AT(penstock_info, model);
	AT(penstock_info, api);
	AT(penstock_info, epoch);
	AT(penstock_info, memory_limit_bytes);
	AT(penstock_info, memory_used_bytes);
	AT(penstock_info, memory_guaranteed_bytes);
	AT(penstock_info, memory_now_bytes);
	AT(penstock_info, device_memory_bytes);
	AT(penstock_info, target_ns);
	AT(penstock_info, bandwidth_cap_bytes_s);
	AT(penstock_info, compute_guaranteed_ppm);
	AT(penstock_info, compute_cap_ppm);
	AT(penstock_info, units);
	AT(penstock_info, units_total);
	AT(penstock_info, priority_class);
	AT(penstock_info, rank);
	AT(penstock_info, denials);
	SIZE(penstock_device_want);
	AT(penstock_device_want, units);
	AT(penstock_device_want, device);
	AT(penstock_device_want, model);
	AT(penstock_device_want, memory_bytes);
	SIZE(penstock_work_want);
	AT(penstock_work_want, kind);
	AT(penstock_work_want, amount);
	AT(penstock_work_want, estimate_ns);
	AT(penstock_work_want, bytes);
	SIZE(penstock_problem);
	AT(penstock_problem, line);
	AT(penstock_problem, file);
	AT(penstock_problem, field);
	AT(penstock_problem, text);
	return 0;
}
