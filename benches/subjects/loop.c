/*
 * Loops of what a resident agent could make slower: system calls, the allocator, uncontended mutexes. glibc has faster
 * paths for each of them in a process with a single thread. And files that are opened, made and removed, which is noted.
 *
 * loop calls|malloc|mutex|open|append|truncate|create  runs one of them, in the working directory, and writes to standard
 *                          output the nanoseconds that it took, of time and of the processor
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int calls(void)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	char byte;
	for (int i = 0; i < 2000000; i++)
		if (getpid() < 1 || read(fd, &byte, 1) != 1)
			return 1;
	return close(fd);
}

static int allocations(void)
{
	static char *kept[64];
	for (unsigned i = 0; i < 40000000; i++) {
		char **slot = &kept[i % 64];
		free(*slot);
		*slot = malloc(16 + i * 7919 % 1009);
		if (!*slot)
			return 1;
		**slot = 1;
	}
	return 0;
}

static int mutexes(void)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	for (int i = 0; i < 100000000; i++)
		if (pthread_mutex_lock(&mutex) || pthread_mutex_unlock(&mutex))
			return 1;
	return 0;
}

static int opened(int flags, int count)
{
	for (int i = 0; i < count; i++) {
		int fd = open("loop.file", flags | O_CLOEXEC, 0600);
		if (fd < 0 || (flags & O_ACCMODE && write(fd, "line\n", 5) != 5) || close(fd))
			return 1;
	}
	return 0;
}

static int reads(void)
{
	return close(creat("loop.file", 0600)) || opened(O_RDONLY, 300000);
}

static int appends(void)
{
	return opened(O_WRONLY | O_CREAT | O_APPEND, 100000) || unlink("loop.file");
}

static int truncates(void)
{
	return opened(O_WRONLY | O_CREAT | O_TRUNC, 30000) || unlink("loop.file");
}

static int creations(void)
{
	for (int i = 0; i < 20000; i++) {
		char name[32];
		snprintf(name, sizeof name, "loop.%d", i);
		int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || write(fd, "line\n", 5) != 5 || close(fd) || unlink(name))
			return 1;
	}
	return 0;
}

static int64_t now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

int main(int argc, char **argv)
{
	const struct {
		const char *name;
		int (*run)(void);
	} loops[] = { { "calls", calls },     { "malloc", allocations },   { "mutex", mutexes },   { "open", reads },
		      { "append", appends }, { "truncate", truncates }, { "create", creations } };

	for (size_t i = 0; argc == 2 && i < sizeof loops / sizeof *loops; i++) {
		if (strcmp(argv[1], loops[i].name))
			continue;
		int64_t time = now(CLOCK_MONOTONIC), processor = now(CLOCK_PROCESS_CPUTIME_ID);
		int failed = loops[i].run();
		time = now(CLOCK_MONOTONIC) - time;
		processor = now(CLOCK_PROCESS_CPUTIME_ID) - processor;
		printf("%lld %lld\n", (long long)time, (long long)processor);
		return failed;
	}
	return 2;
}
