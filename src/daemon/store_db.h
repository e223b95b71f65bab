/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_STORE_DB_H
#define PEN_DAEMON_STORE_DB_H
/*
 * The database itself: schema, transactions, what is read at the start. Blocks on the disk.
 * Threads: open and restore on main before the thread is started; afterwards the store's thread only.
 */
#include "daemon/store.h"

struct sqlite3;

struct pen_db {
	struct sqlite3 *sql;
	uint8_t boot[16];   /* processes of another boot are no processes */
	bool prepared;      /* its tables are there; false: the disk was full when it was opened */
	bool read_only;     /* on a read-only file system: what it holds can be read; each write tries to open it anew */
	char path[PEN_CONFIG_PATH_MAX + 32];
};

enum pen_store_op_kind { PEN_OP_TENANT, PEN_OP_GONE, PEN_OP_PLACE, PEN_OP_SEAT, PEN_OP_TOTALS, PEN_OP_NOTE, PEN_OP_DRAIN,
			 PEN_OP_EVENT, PEN_OP_USAGE };

struct pen_store_op {
	enum pen_store_op_kind kind;
	char tenant[PEN_NAME_MAX + 1], device[PEN_DEVKEY_MAX];
	union {
		struct {
			char contract[2048];
			uint8_t token[PEN_TOKEN_BYTES];
			uid_t uid;
			gid_t gid;
			bool ephemeral, from_config;
			uint64_t waiting;   /* its number in the queue: wall clocks are set back; 0 = in force */
			pid_t watch_pid;
			uint64_t watch_start;
			double created;
		} tenant;
		struct {
			char model[128], api[16];
			uint64_t mem_bytes;
			uint32_t units, slot;
			bool gone;
		} place;
		struct {
			struct pen_seat_row row;
			bool gone;
		} seat;
		struct {
			char owner[PEN_OWNER_MAX], key[PEN_NOTE_KEY_MAX], text[PEN_NOTE_TEXT_MAX];
			bool gone;
		} note;
		struct {
			double since;
			bool released, gone;
		} drain;   /* of op.device */
		char totals[1024];   /* JSON: a counter that is added later needs no new schema */
		struct pen_event_row event;
		struct pen_usage_row usage;
	} u;
	uint64_t seq;   /* the queue is in its order */
	struct pen_store_op *prev, *next;
};

/*
 * A file that was damaged is put aside, as @ret_aside ("" if none was). On a disk that is full or read-only it is opened all the same, what it
 * holds is there, and writes are tried again by whoever writes. Return: 0; negative errno.
 */
int pen_db_open(struct pen_db *db, const char *path, char *ret_aside, size_t n, struct pen_err *err);
void pen_db_close(struct pen_db *db);
void pen_db_restore(struct pen_db *db, struct pen_daemon *d);
int pen_db_write(struct pen_db *db, const struct pen_store_op *batch, struct pen_err *err);   /* one transaction */
void pen_db_trim(struct pen_db *db, uint32_t retention_days, uint64_t max_bytes);
json_t *pen_totals_to_json(const struct pen_totals *t);
void pen_totals_from_json(struct pen_totals *ret, const json_t *o);   /* what is missing or no number is 0 */
uint64_t pen_db_bytes(const struct pen_db *db);

#endif
