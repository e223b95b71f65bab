/* SPDX-License-Identifier: Apache-2.0 */
/* The gate's suite on an adapter of the scarcest API, as Ascend's: no timestamps, no notification, three marks, none from submit. */
#define SUITE_CAPS UINT32_C(0)
#define SUITE_MARKS 3
#include "gate_suite.h"

int main(void)
{
	const struct CMUnitTest tests[] = { SUITE_TESTS };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
