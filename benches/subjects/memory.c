/*
 * The job that the checkpoint bench measures: memory of a given size, half of it random and half of it text, and a
 * thread that wakes every millisecond and notes every gap in its own time.
 *
 * memory MIB        writes those bytes to standard output, for the baselines
 * memory MIB NOTES  keeps them, and appends lines "ready TIME" and "gap TIME LENGTH" to the file NOTES, nanoseconds of
 *                   CLOCK_REALTIME each: a clock that no restart changes
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Gaps from here on are noted: three times what an idle machine shows. */
#define GAP_NS 3000000

static uint64_t random_state = 0x9e3779b97f4a7c15;

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"). */
static uint64_t draw(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1d;
}

/* Text of 256 words, each as likely as any other. */
static void fill_with_text(char *at, size_t size)
{
	char words[256][16];
	size_t lengths[256];
	for (int i = 0; i < 256; i++)
		lengths[i] = snprintf(words[i], sizeof words[i], "%lx ", (unsigned long)(draw() >> (32 + draw() % 16)));
	size_t done = 0;
	while (done + sizeof words[0] <= size) {
		uint64_t random = draw();
		/* Eight words a draw; the next draw overwrites what was copied past a word's end. */
		for (int i = 0; i < 8 && done + sizeof words[0] <= size; i++, random >>= 8) {
			memcpy(at + done, words[random & 255], sizeof words[0]);
			done += lengths[random & 255];
		}
	}
	memset(at + done, '.', size - done);
}

static void fill(char *at, size_t size)
{
	for (size_t i = 0; i < size / 2; i += sizeof(uint64_t)) {
		uint64_t random = draw();
		memcpy(at + i, &random, sizeof random);
	}
	fill_with_text(at + size / 2, size - size / 2);
}

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_REALTIME, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* The file is not held open: an engine that minds open files that have grown has nothing to mind. */
static void note(const char *path, const char *what, int64_t time, int64_t length)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || dprintf(fd, "%s %lld %lld\n", what, (long long)time, (long long)length) < 0)
		_exit(1);
	close(fd);
}

static void *tick(void *path)
{
	const struct timespec millisecond = { .tv_nsec = 1000000 };
	int64_t last = now();
	note(path, "ready", last, 0);
	for (;;) {
		nanosleep(&millisecond, NULL);
		int64_t time = now();
		if (time - last >= GAP_NS)
			note(path, "gap", time, time - last);
		last = now();
	}
	return NULL;
}

int main(int argc, char **argv)
{
	size_t size = argc > 1 ? strtoul(argv[1], NULL, 10) << 20 : 0;
	if (size == 0 || argc > 3)
		return 2;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	/* Small pages are the harder case. */
	madvise(memory, size, MADV_NOHUGEPAGE);
	fill(memory, size);

	if (argc == 2) {
		for (size_t done = 0; done < size;) {
			ssize_t written = write(1, memory + done, size - done);
			if (written < 0)
				return 1;
			done += written;
		}
		return 0;
	}
	pthread_t ticker;
	if (pthread_create(&ticker, NULL, tick, argv[2]) != 0)
		return 1;
	pthread_join(ticker, NULL);
	return 1;
}
