/* Preloaded into a service: its wall clock is off by the seconds (a 64 bit integer) in the file
 * that CRASH_CLOCK names, from one call to the next.  Monotonic clocks and waits are left alone,
 * which libfaketime 0.9.10 does not do: under it Python's sleep fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void) {
  static const int64_t none = 0;
  const char *path = getenv("CRASH_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *shared = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  offset = shared == MAP_FAILED ? &none : shared;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (!offset) start();
  int status = real_clock_gettime(clock, now);
  if (!status && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
  return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *seconds) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (seconds) *seconds = precise.tv_sec;
  return precise.tv_sec;
}
