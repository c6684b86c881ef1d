/* What every workload program shares: ready and go files, clocks, and dying with a message.
 *
 * Owns: the protocol with the test: create the ready file once everything is set up, then wait for the go file.
 * Must not know: DNS, sockets. One header, so that a program is one compiler call.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define GO_POLL_US 2000
#define EXIT_USAGE 2
#define EXIT_NOT_POSSIBLE_HERE 3

__attribute__((noreturn, format(printf, 2, 3), unused)) static void die(int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(code);
}

__attribute__((unused)) static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((unused)) static double ms_since(uint64_t start_ns) { return (double)(now_ns() - start_ns) / 1e6; }

__attribute__((unused)) static void pause_us(long us) {
  struct timespec left = {us / 1000000, (us % 1000000) * 1000};
  while (us > 0 && nanosleep(&left, &left) != 0) {
  }
}

/* Tell the test that everything is in place; wait until it says go. Either path may be NULL. */
__attribute__((unused)) static void ready_then_go(const char *ready_file, const char *go_file) {
  if (ready_file) {
    int fd = open(ready_file, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0) die(EXIT_USAGE, "cannot create %s", ready_file);
    close(fd);
  }
  while (go_file && access(go_file, F_OK) != 0) pause_us(GO_POLL_US);
}

/* A whole number from the command line. */
__attribute__((unused)) static long number(const char *text) {
  char *end;
  long value = strtol(text, &end, 10);
  if (*text == '\0' || *end != '\0') die(EXIT_USAGE, "not a number: %s", text);
  return value;
}

#endif
