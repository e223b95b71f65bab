/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PENSTOCK_CONTRACT_H
#define PENSTOCK_CONTRACT_H
/*
 * Contracts as text, for tools and language bindings: read, checked, changed and printed exactly as
 * `penstock config check` and the daemon do it (penstock-contract(5) has the fields). Nothing here makes a
 * contract valid anywhere: that is the daemon's, by its control API.
 *
 * In a library of its own, libpenstock-contract (pkg-config penstock-contract), since it needs libyaml:
 * what is loaded into a tenant's process for its marks needs nothing but the C library.
 *
 * Threads: a contract belongs to one thread at a time; different ones are independent. All text is UTF-8,
 * messages are English.
 */
#include <penstock/error.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct penstock_contract penstock_contract_t;

/* Why a text was refused. Set size before the call; fields are only ever appended. */
struct penstock_problem {
	uint32_t size;      /* sizeof(struct penstock_problem) */
	uint32_t line;      /* from 1; 0: it has none */
	char file[256];     /* as it was named in the call, cut if longer; "" */
	char field[32];     /* "memory"; "" if it is no field's */
	char text[512];     /* the whole line for a person: "FILE:LINE: FIELD: what is wrong; allowed: ..." */
};

/*
 * All of them: @problem may be NULL, and is written on failure only.
 * Return: 0; PENSTOCK_ERR_INVALID the text, a field or an argument; _NOT_FOUND the file; _FAILED reading
 * it, or memory.
 */

/* A contract with every field at its default: accounted, unlimited, class normal. */
int penstock_contract_new(penstock_contract_t **ret_contract);
/* Reads a YAML file with one contract, at most 1 MiB. */
int penstock_contract_load(const char *path, penstock_contract_t **ret_contract,
			   struct penstock_problem *problem);
/* The same from memory. @origin stands for the file's name in messages. */
int penstock_contract_parse(const char *origin, const char *text, size_t length,
			    penstock_contract_t **ret_contract, struct penstock_problem *problem);
void penstock_contract_free(penstock_contract_t *contract);   /* NULL is fine */

/*
 * One field, "memory" to "4G..8G". NULL takes it back to its default. The contract is unchanged on failure.
 */
int penstock_contract_set(penstock_contract_t *contract, const char *field, const char *value,
			  struct penstock_problem *problem);
/* Fields that contradict each other, which set() alone does not see. load() and parse() have looked. */
int penstock_contract_check(const penstock_contract_t *contract, struct penstock_problem *problem);

/*
 * Text of a field, which set() reads back exactly. @buf of 160 bytes is enough for any.
 * Return: 0; PENSTOCK_ERR_INVALID no such field, or @size is too small.
 */
int penstock_contract_get(const penstock_contract_t *contract, const char *field, char *buf, size_t size);
/* Names of the fields: 0, 1, ... until NULL. Constant. */
const char *penstock_contract_field(size_t index);
/*
 * YAML that load() reads back. @all: also fields that were not set, marked as defaults. @ret_text: to be
 * freed by free(3).
 * Return: 0; PENSTOCK_ERR_FAILED; _INVALID.
 */
int penstock_contract_print(const penstock_contract_t *contract, int all, char **ret_text);

#ifdef __cplusplus
}
#endif

#endif
