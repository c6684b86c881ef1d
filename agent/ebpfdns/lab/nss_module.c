/* A name source for glibc that takes its time and knows nothing: libnss_slow.so.2. */
#include <errno.h>
#include <netdb.h>
#include <nss.h>
#include <stdint.h>
#include <unistd.h>

#define SLEEPS_S 4

struct gaih_addrtuple;

static enum nss_status find_nothing(int *error, int *h_error) {
  sleep(SLEEPS_S);
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
