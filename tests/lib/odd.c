/* SPDX-License-Identifier: Apache-2.0 */
/* A library of somebody else's, of which the test makes one with notes that lie nowhere. */
extern int odd;
int odd = 1;
