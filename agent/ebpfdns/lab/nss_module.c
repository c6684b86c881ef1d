/* A name source for glibc that takes its time and knows nothing: libnss_slow.so.2.
 * It asks a daemon if there is one, and waits for its answer; without one it sleeps. */
#include <errno.h>
#include <netdb.h>
#include <nss.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SLEEPS_S 4
#define DAEMON "/run/slow/socket"

struct gaih_addrtuple;

static void wait_for_daemon(void) {
  struct sockaddr_un there = {.sun_family = AF_UNIX, .sun_path = DAEMON};
  char answer;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (struct sockaddr *)&there, sizeof there) != 0 || read(fd, &answer, 1) < 0) sleep(SLEEPS_S);
  close(fd);
}

static enum nss_status find_nothing(int *error, int *h_error) {
  wait_for_daemon();
  *error = ENOENT;
  *h_error = HOST_NOT_FOUND;
  return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_slow_gethostbyname4_r(const char *name, struct gaih_addrtuple **found, char *buffer, size_t size,
                                           int *error, int *h_error, int32_t *ttl) {
  (void)name, (void)found, (void)buffer, (void)size, (void)ttl;
  return find_nothing(error, h_error);
}

enum nss_status _nss_slow_gethostbyname2_r(const char *name, int family, struct hostent *found, char *buffer,
                                           size_t size, int *error, int *h_error) {
  (void)name, (void)family, (void)found, (void)buffer, (void)size;
  return find_nothing(error, h_error);
}
