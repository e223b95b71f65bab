/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_TESTPOINT_H
#define PEN_BOARD_TESTPOINT_H
/*
 * Marks in code that must survive a SIGKILL at any step. A product build has none of them. Built with
 * -DPEN_TEST_POINTS a mark calls pen_test_point with its name; the default looks at PEN_TEST_KILL=NAME[@N] in the environment
 * and kills its own process the Nth time the mark is passed.
 */
#ifdef PEN_TEST_POINTS
extern void (*pen_test_point)(const char *name);
void pen_test_point_env(const char *name);   /* the default */
#define PEN_TEST_POINT(name) pen_test_point(name)
#else
#define PEN_TEST_POINT(name) ((void)0)
#endif

#endif
