/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/store_db.h"

#include "base/auto.h"
#include "base/log.h"
#include "daemon/drain.h"

#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 * Programs of two versions open one database, in either direction: an upgrade can be taken back. So what exists stays as it is (a row has
 * no more columns: older programs insert by position), what is new is a table of its own, and the version rises only when an older
 * program must not open it; that one then puts it aside.
 */
#define SCHEMA_VERSION 1
#define BUSY_MS 1000

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS tenant(name TEXT PRIMARY KEY, contract TEXT NOT NULL, token BLOB NOT NULL, uid INT, gid INT,"
	" ephemeral INT, from_config INT, waiting INT, watch_pid INT, watch_start INT, created REAL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS place(tenant TEXT, device TEXT, model TEXT, api TEXT, mem_bytes INT, units INT, slot INT,"
	" PRIMARY KEY(tenant, device)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS seat(device TEXT, seat INT, tenant TEXT, generation INT, pid INT, start INT, bytes INT, boot BLOB,"
	" PRIMARY KEY(device, seat)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS totals(tenant TEXT, device TEXT, counters TEXT, PRIMARY KEY(tenant, device)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, time REAL, kind TEXT, tenant TEXT, device TEXT, text TEXT);"
	"CREATE TABLE IF NOT EXISTS usage(tenant TEXT, device TEXT, minute INT, device_ns INT, mem_peak_bytes INT, commands INT,"
	" held_ns INT, bytes INT, PRIMARY KEY(minute, tenant, device)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS note(owner TEXT, key TEXT, tenant TEXT, text TEXT, PRIMARY KEY(owner, key)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS drain(device TEXT PRIMARY KEY, since REAL, released INT) WITHOUT ROWID;";

static const char set_version[] = "PRAGMA user_version=1";   /* SCHEMA_VERSION */

static int sql_error(struct pen_db *db, int rc, struct pen_err *err, const char *what)
{
	int code = rc & 0xff, more = db->sql ? sqlite3_extended_errcode(db->sql) : rc;
	int r = code == SQLITE_FULL ? -ENOSPC : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? -EUCLEAN :
		code == SQLITE_CANTOPEN ? -EACCES : code == SQLITE_NOMEM ? -ENOMEM : -EIO;
	/* What cannot be read is damaged; what cannot be written, the index of its log included, is on a disk that is full, or fails. */
	if (code == SQLITE_IOERR && more != SQLITE_IOERR_READ && more != SQLITE_IOERR_SHORT_READ && more != SQLITE_IOERR_CORRUPTFS)
		r = -ENOSPC;
	return pen_err_x(err, r, "%s: %s", what, db->sql ? sqlite3_errmsg(db->sql) : sqlite3_errstr(rc));
}

static int run(struct pen_db *db, const char *sql, struct pen_err *err)
{
	int rc = sqlite3_exec(db->sql, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? 0 : sql_error(db, rc, err, db->path);
}

static int64_t get_number(struct pen_db *db, const char *sql)
{
	sqlite3_stmt *st = NULL;
	int64_t v = -1;
	if (sqlite3_prepare_v2(db->sql, sql, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
		v = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return v;
}

static bool is_whole(struct pen_db *db)
{
	sqlite3_stmt *st = NULL;
	bool ok = sqlite3_prepare_v2(db->sql, "PRAGMA quick_check(1)", -1, &st, NULL) == SQLITE_OK &&
		  sqlite3_step(st) == SQLITE_ROW && !strcmp((const char *)sqlite3_column_text(st, 0), "ok");
	sqlite3_finalize(st);
	return ok;
}

/* Writes nothing where everything is there already: it may be a full disk, or flash. */
static int prepare(struct pen_db *db, struct pen_err *err)
{
	int r = run(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=4194304;", err);
	if (r < 0)
		return r;
	int64_t version = get_number(db, "PRAGMA user_version");
	if (version > SCHEMA_VERSION)
		return pen_err_x(err, -EUCLEAN, "%s: of a newer version (%" PRId64 ")", db->path, version);
	r = run(db, schema, err);
	if (r == 0 && version != SCHEMA_VERSION)
		r = run(db, set_version, err);
	db->prepared = r == 0;
	return r;
}

static int open_handle(struct pen_db *db, struct pen_err *err)
{
	int rc = sqlite3_open_v2(db->path, &db->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc != SQLITE_OK)
		return sql_error(db, rc, err, db->path);
	sqlite3_busy_timeout(db->sql, BUSY_MS);
	db->read_only = sqlite3_db_readonly(db->sql, "main") == 1;   /* SQLite is content with less than it was asked for */
	chmod(db->path, 0600);   /* tokens lie in it */
	return 0;
}

/* @alone: nobody else may look into the file, and its log needs no index in a file, which a full disk has no room for. */
static int open_once(struct pen_db *db, bool alone, struct pen_err *err)
{
	int r = open_handle(db, err);
	if (r < 0)
		return r;
	r = alone ? run(db, "PRAGMA locking_mode=EXCLUSIVE", err) : 0;
	if (r == 0)
		r = prepare(db, err);
	if (r == 0 && !is_whole(db))
		r = pen_err_x(err, -EUCLEAN, "%s: damaged", db->path);
	return r;
}

/*
 * Without its log and that one's index, which a clean end removes, a database in this mode cannot be opened where they cannot be made; told that
 * nobody changes the file SQLite does without.
 */
static int open_read_only(struct pen_db *db, struct pen_err *err)
{
	char uri[3 * sizeof(db->path) + 32] = "file:";
	size_t n = strlen(uri);
	for (const char *p = db->path; *p; p++)
		n += (size_t)snprintf(uri + n, sizeof(uri) - n, strchr("?#%", *p) ? "%%%02X" : "%c", (unsigned)(unsigned char)*p);
	snprintf(uri + n, sizeof(uri) - n, "?immutable=1");
	int rc = sqlite3_open_v2(uri, &db->sql, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, NULL);
	if (rc != SQLITE_OK)
		return sql_error(db, rc, err, db->path);
	db->read_only = true;
	return is_whole(db) ? 0 : pen_err_x(err, -EACCES, "%s: cannot be read", db->path);
}

/* Return: 0 also on a disk that is full, or read-only. */
static int open_file(struct pen_db *db, struct pen_err *err)
{
	int r = open_once(db, false, err);
	if (r == -EACCES && access(db->path, R_OK) == 0 && access(db->path, W_OK) < 0 && errno == EROFS) {
		pen_db_close(db);
		pen_log(PEN_LOG_WARN, "store: %s: on a read-only file system", db->path);
		return open_read_only(db, err);
	}
	if (r != -ENOSPC)
		return r;
	pen_db_close(db);
	r = open_once(db, true, err);
	if (r != -ENOSPC)
		return r;
	pen_log(PEN_LOG_WARN, "store: %s", err ? err->text : "the disk is full");
	return 0;
}

void pen_db_close(struct pen_db *db)
{
	sqlite3_close(db->sql);
	db->sql = NULL;
	db->prepared = db->read_only = false;
}

static void put_aside(struct pen_db *db, char *aside, size_t n)
{
	static const char *const tails[] = { "-wal", "-shm" };
	snprintf(aside, n, "%s.damaged-%lld", db->path, (long long)time(NULL));
	if (rename(db->path, aside) < 0)
		unlink(db->path);
	for (size_t i = 0; i < 2; i++) {
		char from[sizeof(db->path) + 8], to[sizeof(db->path) + 48];
		snprintf(from, sizeof(from), "%s%s", db->path, tails[i]);
		snprintf(to, sizeof(to), "%s%s", aside, tails[i]);
		rename(from, to);
	}
}

int pen_db_open(struct pen_db *db, const char *path, char *ret_aside, size_t n, struct pen_err *err)
{
	snprintf(db->path, sizeof(db->path), "%s", path);
	ret_aside[0] = 0;
	int r = open_file(db, err);
	if (r == 0)
		return 0;
	pen_db_close(db);
	if (r != -EUCLEAN && r != -EIO)
		return r;
	put_aside(db, ret_aside, n);
	r = open_file(db, err);
	if (r < 0)
		pen_db_close(db);
	return r;
}

uint64_t pen_db_bytes(const struct pen_db *db)
{
	char wal[sizeof(db->path) + 8];
	struct stat st;
	uint64_t sum = 0;
	snprintf(wal, sizeof(wal), "%s-wal", db->path);
	if (stat(db->path, &st) == 0)
		sum += (uint64_t)st.st_size;
	if (stat(wal, &st) == 0)
		sum += (uint64_t)st.st_size;
	return sum;
}

/* ---- counters -------------------------------------------------------------------------------------------------------- */

static json_t *number(uint64_t v)
{
	return json_integer((json_int_t)PEN_MIN(v, (uint64_t)INT64_MAX));
}

json_t *pen_totals_to_json(const struct pen_totals *t)
{
	json_t *o = json_object(), *held = json_array();
#define X(name) json_object_set_new(o, #name, number(t->name));
	PEN_TOTALS(X)
#undef X
	json_object_set_new(o, "max_command_ns", number(t->max_command_ns));
	for (unsigned i = 0; i < PEN_HOLD_MAX_; i++)
		json_array_append_new(held, number(t->held_ns[i]));
	json_object_set_new(o, "held_ns", held);
	return o;
}

static uint64_t number_of(const json_t *v)
{
	json_int_t n = json_integer_value(v);   /* 0 if it is none, or not there */
	return n < 0 ? 0 : (uint64_t)n;
}

void pen_totals_from_json(struct pen_totals *ret, const json_t *o)
{
#define X(name) ret->name = number_of(json_object_get(o, #name));
	PEN_TOTALS(X)
#undef X
	ret->max_command_ns = number_of(json_object_get(o, "max_command_ns"));
	for (unsigned i = 0; i < PEN_HOLD_MAX_; i++)
		ret->held_ns[i] = number_of(json_array_get(json_object_get(o, "held_ns"), i));
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* One letter per value: s text, i integer, d real, b blob of PEN_TOKEN_BYTES, u of 16. */
static int exec_bound(struct pen_db *db, struct pen_err *err, const char *sql, const char *types, ...)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(db->sql, sql, -1, &st, NULL);
	if (rc != SQLITE_OK)
		return sql_error(db, rc, err, db->path);
	va_list ap;
	va_start(ap, types);
	for (int i = 1; types[i - 1]; i++) {
		switch (types[i - 1]) {
		case 's': sqlite3_bind_text(st, i, va_arg(ap, const char *), -1, SQLITE_TRANSIENT); break;
		case 'b': sqlite3_bind_blob(st, i, va_arg(ap, const void *), PEN_TOKEN_BYTES, SQLITE_TRANSIENT); break;
		case 'u': sqlite3_bind_blob(st, i, va_arg(ap, const void *), 16, SQLITE_TRANSIENT); break;
		case 'd': sqlite3_bind_double(st, i, va_arg(ap, double)); break;
		default: sqlite3_bind_int64(st, i, va_arg(ap, int64_t)); break;
		}
	}
	va_end(ap);
	rc = sqlite3_step(st);
	sqlite3_finalize(st);
	return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : sql_error(db, rc, err, db->path);
}

#define I(v) ((int64_t)(v))

static int write_tenant(struct pen_db *db, const struct pen_store_op *op, struct pen_err *err)
{
	return exec_bound(db, err, "INSERT OR REPLACE INTO tenant VALUES(?,?,?,?,?,?,?,?,?,?,?)", "ssbiiiiiiid", op->tenant,
			  op->u.tenant.contract, op->u.tenant.token, I(op->u.tenant.uid), I(op->u.tenant.gid),
			  I(op->u.tenant.ephemeral), I(op->u.tenant.from_config), I(op->u.tenant.waiting),
			  I(op->u.tenant.watch_pid), I(op->u.tenant.watch_start), op->u.tenant.created);
}

static int delete_tenant(struct pen_db *db, const char *name, struct pen_err *err)
{
	static const char *const sql[] = { "DELETE FROM seat WHERE tenant=?", "DELETE FROM totals WHERE tenant=?",
					   "DELETE FROM place WHERE tenant=?", "DELETE FROM tenant WHERE name=?",
					   "DELETE FROM note WHERE tenant=?" };
	int r = 0;
	for (size_t i = 0; i < PEN_ARRAY_LEN(sql) && r == 0; i++)
		r = exec_bound(db, err, sql[i], "s", name);
	return r;
}

static int write_seat(struct pen_db *db, const struct pen_store_op *op, struct pen_err *err)
{
	const struct pen_seat_row *s = &op->u.seat.row;
	if (op->u.seat.gone)
		return exec_bound(db, err, "DELETE FROM seat WHERE device=? AND seat=? AND generation=?", "sii", op->device,
				  I(s->seat), I(s->generation));
	return exec_bound(db, err, "INSERT OR REPLACE INTO seat VALUES(?,?,?,?,?,?,?,?)", "sisiiiiu", op->device, I(s->seat),
			  op->tenant, I(s->generation), I(s->pid), I(s->start_time), I(s->bytes), db->boot);
}

static int write_place(struct pen_db *db, const struct pen_store_op *op, struct pen_err *err)
{
	if (!op->u.place.gone)
		return exec_bound(db, err, "INSERT OR REPLACE INTO place VALUES(?,?,?,?,?,?,?)", "ssssiii", op->tenant,
				  op->device, op->u.place.model, op->u.place.api, I(op->u.place.mem_bytes),
				  I(op->u.place.units), I(op->u.place.slot));
	int r = exec_bound(db, err, "DELETE FROM totals WHERE tenant=? AND device=?", "ss", op->tenant, op->device);
	return r < 0 ? r : exec_bound(db, err, "DELETE FROM place WHERE tenant=? AND device=?", "ss", op->tenant, op->device);
}

static int write_note(struct pen_db *db, const struct pen_store_op *op, struct pen_err *err)
{
	if (op->u.note.gone)
		return exec_bound(db, err, "DELETE FROM note WHERE owner=? AND key=?", "ss", op->u.note.owner, op->u.note.key);
	return exec_bound(db, err, "INSERT OR REPLACE INTO note VALUES(?,?,?,?)", "ssss", op->u.note.owner, op->u.note.key, op->tenant,
			  op->u.note.text);
}

static int write_drain(struct pen_db *db, const struct pen_store_op *op, struct pen_err *err)
{
	if (op->u.drain.gone)
		return exec_bound(db, err, "DELETE FROM drain WHERE device=?", "s", op->device);
	return exec_bound(db, err, "INSERT OR REPLACE INTO drain VALUES(?,?,?)", "sdi", op->device, op->u.drain.since,
			  I(op->u.drain.released));
}

/* A minute may come twice: the clock was set back, or the daemon was started again within it. */
static const char add_usage[] =
	"INSERT INTO usage VALUES(?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET device_ns=device_ns+excluded.device_ns,"
	" mem_peak_bytes=max(mem_peak_bytes,excluded.mem_peak_bytes), commands=commands+excluded.commands,"
	" held_ns=held_ns+excluded.held_ns, bytes=bytes+excluded.bytes";

static int write_op(struct pen_db *db, const struct pen_store_op *op, struct pen_err *err)
{
	const struct pen_event_row *e = &op->u.event;
	const struct pen_usage_row *u = &op->u.usage;
	switch (op->kind) {
	case PEN_OP_TENANT:
		return write_tenant(db, op, err);
	case PEN_OP_GONE:
		return delete_tenant(db, op->tenant, err);
	case PEN_OP_SEAT:
		return write_seat(db, op, err);
	case PEN_OP_TOTALS:
		return exec_bound(db, err, "INSERT OR REPLACE INTO totals VALUES(?,?,?)", "sss", op->tenant, op->device,
				  op->u.totals);
	case PEN_OP_PLACE:
		return write_place(db, op, err);
	case PEN_OP_NOTE:
		return write_note(db, op, err);
	case PEN_OP_DRAIN:
		return write_drain(db, op, err);
	case PEN_OP_EVENT:
		return exec_bound(db, err, "INSERT OR REPLACE INTO event VALUES(?,?,?,?,?,?)", "idssss", I(e->id), e->time,
				  e->kind, e->tenant, e->device, e->text);
	default:
		return exec_bound(db, err, add_usage, "ssiiiiii", u->tenant, u->device, I(u->minute), I(u->device_ns),
				  I(u->mem_peak_bytes), I(u->commands), I(u->held_ns), I(u->bytes));
	}
}

int pen_db_write(struct pen_db *db, const struct pen_store_op *batch, struct pen_err *err)
{
	/* What was ordered survives a power cut once it is written; events and usage only a crash: fewer flushes wear flash less. */
	bool durable = false;
	for (const struct pen_store_op *op = batch; op; op = op->next)
		durable |= op->kind == PEN_OP_TENANT || op->kind == PEN_OP_GONE || op->kind == PEN_OP_DRAIN;
	int r = 0;
	if (db->read_only || !db->sql) {   /* it may be writable now */
		pen_db_close(db);
		r = open_handle(db, err);
		if (r == 0 && db->read_only)
			r = pen_err_x(err, -EROFS, "%s: it is read-only", db->path);
		if (r < 0) {
			pen_db_close(db);
			return r;
		}
	}
	r = db->prepared ? 0 : prepare(db, err);
	if (r == 0)
		r = run(db, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", err);
	if (r == 0)
		r = run(db, "BEGIN IMMEDIATE", err);
	if (r < 0)
		return r;
	for (const struct pen_store_op *op = batch; op && r == 0; op = op->next)
		r = write_op(db, op, err);
	if (r == 0)
		r = run(db, "COMMIT", err);
	if (r < 0)
		sqlite3_exec(db->sql, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

void pen_db_trim(struct pen_db *db, uint32_t retention_days, uint64_t max_bytes)
{
	struct pen_err err = PEN_ERR_INIT;
	if (!db->sql || db->read_only)
		return;
	int64_t oldest = (int64_t)time(NULL) - (int64_t)retention_days * 86400;
	int r = exec_bound(db, &err, "DELETE FROM event WHERE time<?", "d", (double)oldest);
	if (r == 0)
		r = exec_bound(db, &err, "DELETE FROM usage WHERE minute<?", "i", oldest / 60);
	/* Above the cap a tenth of the oldest rows goes, until it fits; pages are re-used, and given back by a vacuum. */
	for (int i = 0; i < 10 && r == 0; i++) {
		int64_t pages = get_number(db, "PRAGMA page_count"), unused = get_number(db, "PRAGMA freelist_count");
		int64_t size = get_number(db, "PRAGMA page_size");
		if ((uint64_t)((pages - unused) * size) <= max_bytes) {
			if ((uint64_t)(pages * size) > max_bytes)
				r = run(db, "VACUUM", &err);
			break;
		}
		r = run(db, "DELETE FROM usage WHERE minute<=(SELECT minute FROM usage ORDER BY minute LIMIT 1 OFFSET"
			    " (SELECT count(*)/10 FROM usage));"
			    "DELETE FROM event WHERE id<=(SELECT id FROM event ORDER BY id LIMIT 1 OFFSET"
			    " (SELECT count(*)/10 FROM event));", &err);
	}
	if (r < 0)
		pen_log(PEN_LOG_WARN, "store: %s", err.text);
}

/* ---- reading, once -------------------------------------------------------------------------------------------------- */

static const char *column_text(sqlite3_stmt *st, int i)
{
	const char *s = (const char *)sqlite3_column_text(st, i);
	return s ? s : "";
}

static int read_contract(const char *text, struct pen_contract *ret, struct pen_err *err)
{
	json_error_t je;
	json_t *o = json_loads(text, 0, &je);
	if (!o)
		return pen_err_x(err, -EINVAL, "%s", je.text);
	pen_contract_init(ret);
	pen_contract_json_prune(o);
	int r = pen_contract_from_json(ret, o, err);
	json_decref(o);
	return r;
}

/* The watched process, if it still is the one that was watched. */
static pid_t still_there(pid_t pid, uint64_t start)
{
	uint64_t now;
	return pid > 0 && pen_peer_start_time(pid, &now) == 0 && now == start ? pid : 0;
}

static void restore_tenant(struct pen_daemon *d, sqlite3_stmt *st)
{
	struct pen_tenant_new n = { .uid = (uid_t)sqlite3_column_int64(st, 3), .gid = (gid_t)sqlite3_column_int64(st, 4),
				    .ephemeral = sqlite3_column_int(st, 5), .from_config = sqlite3_column_int(st, 6),
				    .wait = true, .created = sqlite3_column_double(st, 10) };
	struct pen_err err = PEN_ERR_INIT;
	struct pen_tenant *t;
	int r = sqlite3_column_bytes(st, 2) == PEN_TOKEN_BYTES ? 0 : -EINVAL;
	uint8_t token[PEN_TOKEN_BYTES];
	if (r == 0) {
		memcpy(token, sqlite3_column_blob(st, 2), sizeof(token));
		n.token = token;
		r = read_contract(column_text(st, 1), &n.contract, &err);
	}
	pid_t watched = (pid_t)sqlite3_column_int64(st, 8);
	n.watch_pid = still_there(watched, (uint64_t)sqlite3_column_int64(st, 9));
	/* Its watched process is gone, but clients may live: it ends when none has come back. */
	n.ephemeral |= watched && !n.watch_pid;
	uint64_t queue_nr = (uint64_t)sqlite3_column_int64(st, 7);
	n.waited = queue_nr;
	if (queue_nr)   /* the same number again, and those that come later are behind it */
		d->queue_nr = PEN_MAX(d->queue_nr, queue_nr - 1);
	pen_owner_restore(d, column_text(st, 0), &n);
	if (r == 0)
		r = pen_tenant_create(d, &n, &t, &err);
	if (r < 0 && n.owner && !n.lapsed) {   /* its token must stay good: it may fit again when somebody comes with it */
		n.lapsed = true;
		r = pen_tenant_create(d, &n, &t, &err);
	}
	if (r == 0)
		t->seen_client |= n.ephemeral && !n.watch_pid;
	else
		pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "tenant %s is not restored: %s", column_text(st, 0), err.text);
}

static void restore_place(struct pen_daemon *d, sqlite3_stmt *st)
{
	struct pen_tenant *t = pen_tenant_find(d, column_text(st, 0));
	struct pen_device_facts f = { .key = column_text(st, 1), .model = column_text(st, 2), .api = column_text(st, 3),
				      .mem_bytes = (uint64_t)sqlite3_column_int64(st, 4),
				      .units = (uint32_t)sqlite3_column_int64(st, 5) };
	struct pen_device *dev;
	struct pen_place *p;
	if (!t || t->state == PEN_TENANT_WAITING || t->lapsed || strlen(f.key) >= PEN_DEVKEY_MAX ||
	    pen_device_learn(d, &f, PEN_DEVICE_UNPROBED, &dev) < 0)
		return;
	if (pen_tenant_cover(d, t, dev, NULL) == 0)
		pen_place_get(d, t, dev, sqlite3_column_int(st, 6), &p);
}

static void restore_totals(struct pen_daemon *d, sqlite3_stmt *st)
{
	struct pen_tenant *t = pen_tenant_find(d, column_text(st, 0));
	struct pen_device *dev = pen_device_find(d, column_text(st, 1));
	struct pen_place *p = t && dev ? t->place[dev->index] : NULL;
	json_t *o = p ? json_loads(column_text(st, 2), 0, NULL) : NULL;
	if (!o)
		return;
	pen_totals_from_json(&p->retired, o);
	p->minute = p->retired;   /* no use of this minute */
	p->sample_device_ns = p->retired.device_ns;
	json_decref(o);
}

static void restore_seat(struct pen_daemon *d, sqlite3_stmt *st)
{
	struct pen_seat_row row = { .seat = (uint32_t)sqlite3_column_int64(st, 1),
				    .generation = (uint32_t)sqlite3_column_int64(st, 3),
				    .pid = (pid_t)sqlite3_column_int64(st, 4),
				    .start_time = (uint64_t)sqlite3_column_int64(st, 5),
				    .bytes = (uint64_t)sqlite3_column_int64(st, 6) };
	if (sqlite3_column_bytes(st, 7) != sizeof(d->boot) || memcmp(sqlite3_column_blob(st, 7), d->boot, sizeof(d->boot)) != 0)
		return;
	snprintf(row.tenant, sizeof(row.tenant), "%s", column_text(st, 2));
	snprintf(row.device, sizeof(row.device), "%s", column_text(st, 0));
	pen_absent_restore(d, &row);
}

static void restore_event(struct pen_daemon *d, sqlite3_stmt *st)
{
	struct pen_event_row row = { .id = (uint64_t)sqlite3_column_int64(st, 0), .time = sqlite3_column_double(st, 1) };
	snprintf(row.kind, sizeof(row.kind), "%s", column_text(st, 2));
	snprintf(row.tenant, sizeof(row.tenant), "%s", column_text(st, 3));
	snprintf(row.device, sizeof(row.device), "%s", column_text(st, 4));
	snprintf(row.text, sizeof(row.text), "%s", column_text(st, 5));
	pen_events_restore(d, &row);
}

static void restore_usage(struct pen_daemon *d, sqlite3_stmt *st)
{
	struct pen_tenant *t = pen_tenant_find(d, column_text(st, 0));
	struct pen_device *dev = pen_device_find(d, column_text(st, 1));
	struct pen_place *p = t && dev ? t->place[dev->index] : NULL;
	if (!p)
		return;
	if (!p->usage)
		p->usage = calloc(PEN_USAGE_MINUTES, sizeof(*p->usage));
	if (!p->usage)
		return;
	struct pen_usage_row *u = &p->usage[p->usage_n++ % PEN_USAGE_MINUTES];
	*u = (struct pen_usage_row){ .minute = (uint64_t)sqlite3_column_int64(st, 2),
				     .device_ns = (uint64_t)sqlite3_column_int64(st, 3),
				     .mem_peak_bytes = (uint64_t)sqlite3_column_int64(st, 4),
				     .commands = (uint64_t)sqlite3_column_int64(st, 5),
				     .held_ns = (uint64_t)sqlite3_column_int64(st, 6),
				     .bytes = (uint64_t)sqlite3_column_int64(st, 7) };
	snprintf(u->tenant, sizeof(u->tenant), "%s", t->name);
	snprintf(u->device, sizeof(u->device), "%s", dev->key);
}

static void restore_note(struct pen_daemon *d, sqlite3_stmt *st)
{
	pen_note_restore(d, column_text(st, 0), column_text(st, 1), column_text(st, 2));
}

static void restore_drain(struct pen_daemon *d, sqlite3_stmt *st)
{
	pen_drain_restore(d, column_text(st, 0), sqlite3_column_double(st, 1), sqlite3_column_int(st, 2));
}

static void each_row(struct pen_db *db, struct pen_daemon *d, const char *sql,
		     void (*fn)(struct pen_daemon *d, sqlite3_stmt *st))
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db->sql, sql, -1, &st, NULL);
	while (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
		fn(d, st);
	sqlite3_finalize(st);
}

void pen_db_restore(struct pen_db *db, struct pen_daemon *d)
{
	each_row(db, d, "SELECT * FROM (SELECT * FROM event ORDER BY id DESC LIMIT 1000) ORDER BY id", restore_event);
	each_row(db, d, "SELECT device, since, released FROM drain", restore_drain);
	each_row(db, d, "SELECT owner, key, text FROM note", restore_note);
	each_row(db, d, "SELECT * FROM tenant ORDER BY waiting, created", restore_tenant);
	each_row(db, d, "SELECT * FROM place", restore_place);
	each_row(db, d, "SELECT * FROM totals", restore_totals);
	each_row(db, d, "SELECT * FROM seat", restore_seat);
	each_row(db, d, "SELECT * FROM usage WHERE minute > strftime('%s','now')/60 - 180 ORDER BY minute", restore_usage);
}
