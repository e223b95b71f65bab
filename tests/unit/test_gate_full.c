/* SPDX-License-Identifier: Apache-2.0 */
/* The gate's suite on an adapter with timestamps, notification and as many marks as it likes, as OpenCL has them. */
#define SUITE_CAPS (PEN_ADAPTER_TIMESTAMPS | PEN_ADAPTER_NOTIFY | PEN_ADAPTER_IN_SUBMIT)
#define SUITE_MARKS 1000000
#include "gate_suite.h"

int main(void)
{
	const struct CMUnitTest tests[] = { SUITE_TESTS };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
