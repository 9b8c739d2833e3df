#include "../backend.h"
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
struct sb_mapping { void *p; int64_t n; };
extern "C" int32_t sb_map(const char *path, sb_mapping **out, void **data, int64_t *bytes) noexcept {
  int fd = open(path, O_RDONLY); if (fd < 0) return sb_fail("%s: %s", path, strerror(errno));
  struct stat s; fstat(fd, &s); void *p = mmap(nullptr, s.st_size, PROT_READ, MAP_PRIVATE, fd, 0); close(fd);
  if (p == MAP_FAILED) return sb_fail("%s: %s", path, strerror(errno));
  *out = new sb_mapping{p, s.st_size}; *data = p; *bytes = s.st_size; return 0; }
extern "C" int32_t sb_unmap(sb_mapping *m) noexcept { munmap(m->p, m->n); delete m; return 0; }
