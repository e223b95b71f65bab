/* SPDX-License-Identifier: Apache-2.0 */
/* One helper thread for what integrations have to wait for: files that may lie on a disk that stalls, answers of a socket. */
#include "base/auto.h"
#include "daemon/service_internal.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <utlist.h>

#define WAITING_MAX 256
#define STOP_LIMIT_S 2

struct job {
	void (*work)(void *arg);
	void (*done)(void *arg);
	void (*drop)(void *arg);
	void *arg;
	struct job *prev, *next;
};

struct pen_work {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct job *todo, *finished;   /* under the lock, as all below */
	unsigned n_todo;
	bool stop, ended;
	int wake_fd;                   /* eventfd: something has finished */
	struct event *ev;
};

static void *work_main(void *arg)
{
	struct pen_work *w = arg;
	pthread_setname_np(pthread_self(), "work");
	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		struct job *job = w->todo;
		if (!job) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		DL_DELETE(w->todo, job);
		w->n_todo--;
		pthread_mutex_unlock(&w->lock);
		job->work(job->arg);
		pthread_mutex_lock(&w->lock);
		DL_APPEND(w->finished, job);
		eventfd_write(w->wake_fd, 1);
	}
	w->ended = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static struct job *take_finished(struct pen_work *w)
{
	pthread_mutex_lock(&w->lock);
	struct job *job = w->finished;
	if (job)
		DL_DELETE(w->finished, job);
	pthread_mutex_unlock(&w->lock);
	return job;
}

static void on_finished(evutil_socket_t fd, short what, void *arg)
{
	struct pen_work *w = arg;
	eventfd_t n;
	struct job *job;
	(void)what;
	eventfd_read(fd, &n);
	while ((job = take_finished(w))) {
		job->done(job->arg);
		free(job);
	}
}

static int start(struct pen_services *all, struct event_base *base)
{
	struct pen_work *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->ev = w->wake_fd < 0 ? NULL : event_new(base, w->wake_fd, EV_READ | EV_PERSIST, on_finished, w);
	int r = w->ev && event_add(w->ev, NULL) == 0 ? 0 : -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wake, &attr);
	pthread_condattr_destroy(&attr);
	sigset_t every, old;
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &old);   /* signals are the main thread's */
	if (r == 0)
		r = -pthread_create(&w->thread, NULL, work_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0) {
		all->work = w;
		return 0;
	}
	if (w->ev)
		event_free(w->ev);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->wake);
	free(w);
	return r;
}

int pen_service_work(struct pen_service *s, void (*work)(void *arg), void (*done)(void *arg), void (*drop)(void *arg), void *arg)
{
	struct pen_services *all = s->d->services;
	int r = all->work ? 0 : start(all, s->d->base);
	struct job *job = r == 0 ? calloc(1, sizeof(*job)) : NULL;
	if (!job)
		return r < 0 ? r : -ENOMEM;
	*job = (struct job){ .work = work, .done = done, .drop = drop, .arg = arg };
	struct pen_work *w = all->work;
	pthread_mutex_lock(&w->lock);
	r = w->n_todo < WAITING_MAX && !w->stop ? 0 : -EAGAIN;
	if (r == 0) {
		DL_APPEND(w->todo, job);
		w->n_todo++;
		pthread_cond_signal(&w->wake);
	}
	pthread_mutex_unlock(&w->lock);
	if (r < 0)
		free(job);
	return r;
}

static void drop_all(struct job *list)
{
	struct job *job, *next;
	DL_FOREACH_SAFE(list, job, next) {
		job->drop(job->arg);
		free(job);
	}
}

void pen_work_stop(struct pen_services *all)
{
	struct pen_work *w = all->work;
	if (!w)
		return;
	all->work = NULL;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += STOP_LIMIT_S;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->wake);
	while (!w->ended)
		if (pthread_cond_timedwait(&w->wake, &w->lock, &until) == ETIMEDOUT)
			break;
	bool ended = w->ended;
	pthread_mutex_unlock(&w->lock);
	event_free(w->ev);
	if (!ended)
		return;   /* it waits for a disk: what it holds is left to the end of the process */
	pthread_join(w->thread, NULL);
	drop_all(w->todo);
	drop_all(w->finished);
	close(w->wake_fd);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->wake);
	free(w);
}
