#include "mapping.h"

#include "../backend.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct sb_mapping {
  void *data;
  size_t bytes;
};

namespace {

int32_t failed(const char *path, const char *action) {
  return sb_fail("%s: %s failed: %s", path, action, strerror(errno));
}

/* Maps an open file; the mapping outlives the descriptor. */
int32_t map_descriptor(const char *path, int descriptor, sb_mapping *mapping) {
  struct stat status;
  if (fstat(descriptor, &status) != 0) return failed(path, "fstat");
  if (S_ISDIR(status.st_mode)) return sb_fail("%s: is a folder; expected a file", path);
  if (!S_ISREG(status.st_mode)) return sb_fail("%s: is no regular file", path);
  if (status.st_size == 0) return sb_fail("%s: the file is empty", path);
  mapping->bytes = static_cast<size_t>(status.st_size);
  mapping->data = mmap(nullptr, mapping->bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
  return mapping->data == MAP_FAILED ? failed(path, "mmap") : 0;
}

} // namespace

int32_t host_map(const char *path, sb_mapping **out, void **data, int64_t *bytes) noexcept {
  /* O_NONBLOCK: a named pipe is refused below instead of waited for. */
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return failed(path, "open");
  sb_mapping *mapping = new (std::nothrow) sb_mapping{};
  const int32_t status = mapping ? map_descriptor(path, descriptor, mapping) : sb_fail("%s: out of memory", path);
  close(descriptor);
  if (status != 0) {
    delete mapping;
    return status;
  }
  *out = mapping;
  *data = mapping->data;
  *bytes = static_cast<int64_t>(mapping->bytes);
  return 0;
}

int32_t host_unmap(sb_mapping *mapping) noexcept {
  const int status = munmap(mapping->data, mapping->bytes);
  delete mapping;
  return status == 0 ? 0 : sb_fail("sb_unmap: munmap failed: %s", strerror(errno));
}
