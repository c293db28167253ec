/* Makes the n-th system call that asks for a resource fail, in a process that has this library preloaded (LD_PRELOAD).

   Counted are the calls that ask for a descriptor, a thread, a process or shared memory, as the C library's callers see
   them: libraries and programs that are linked dynamically, Python's own calls included. A process counts from the
   moment when fail_from() is called in it, through ctypes, or, with EXECNET_FAIL=FIRST:COUNT:CALL in its environment,
   from the first read of a socket on: that is the stream of a worker, before which there is only an interpreter.

   strace(1) can inject errors, too. A run of it takes as long (0.3 s, both on a busy machine). But it counts the calls of
   each thread apart, takes an interpreter of its own for each, and knows neither pthread_create nor the heap. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long seen;            /* calls, since it was armed */
static atomic_long failed;          /* of them */
static atomic_long first, last;     /* these fail, counted from 1 */
static atomic_int armed;
static atomic_int waits_for_stream; /* to be armed */
static const char *only;            /* the name of the one call that counts; NULL: all */
static char only_text[32];
static const char *log_path;        /* EXECNET_FAIL_LOG: gets the name of each that failed, of any process */

static int find_core(struct dl_phdr_info *object, size_t size, void *unused);

void fail_from(long from, long count, const char *which) {
  atomic_store(&armed, 0);
  atomic_store(&seen, 0);
  atomic_store(&failed, 0);
  atomic_store(&first, from);
  atomic_store(&last, from + count - 1);
  only = NULL;
  if (which != NULL && which[0] != '\0') {
    strncpy(only_text, which, sizeof only_text - 1);
    only = only_text;
  }
  dl_iterate_phdr(find_core, NULL);
  atomic_store(&armed, 1);
}

void fail_no_more(void) { atomic_store(&armed, 0); }
long calls_seen(void) { return atomic_load(&seen); }
long calls_failed(void) { return atomic_load(&failed); }

__attribute__((constructor)) static void from_environment(void) {
  const char *wanted = getenv("EXECNET_FAIL");
  log_path = getenv("EXECNET_FAIL_LOG");
  long from = 0, count = 0;
  static char which[32];
  if (wanted != NULL && sscanf(wanted, "%ld:%ld:%31s", &from, &count, which) >= 2) {
    fail_from(from, count, which);
    atomic_store(&armed, 0);
    atomic_store(&waits_for_stream, 1);
  }
}

static void on_read(int fd) {
  struct stat found;
  if (atomic_load(&waits_for_stream) && fstat(fd, &found) == 0 && S_ISSOCK(found.st_mode)) {
    atomic_store(&waits_for_stream, 0);
    dl_iterate_phdr(find_core, NULL);
    atomic_store(&armed, 1);
  }
}

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static void note(const char *name) {
  const int file = log_path == NULL ? -1 : REAL(open)(log_path, O_WRONLY | O_APPEND | O_CLOEXEC);
  char line[64];
  if (file >= 0) {
    const int size = snprintf(line, sizeof line, "%d %s\n", (int)getpid(), name);
    if (write(file, line, (size_t)size) != size) {
      abort();
    }
    close(file);
  }
}

/* Where the extension module is mapped. */
static atomic_uintptr_t core_begin, core_end;

static int find_core(struct dl_phdr_info *object, size_t size, void *unused) {
  (void)size, (void)unused;
  if (object->dlpi_name == NULL || strstr(object->dlpi_name, "/_core.") == NULL) {
    return 0;
  }
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr) *part = &object->dlpi_phdr[i];
    if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0) {
      atomic_store(&core_begin, object->dlpi_addr + part->p_vaddr);
      atomic_store(&core_end, object->dlpi_addr + part->p_vaddr + part->p_memsz);
    }
  }
  return 1;
}

static int fails(const char *name, int error) {
  if (!atomic_load(&armed) || (only != NULL && strcmp(name, only) != 0)) {
    return 0;
  }
  const long number = atomic_fetch_add(&seen, 1) + 1;
  if (number < atomic_load(&first) || number > atomic_load(&last)) {
    return 0;
  }
  atomic_fetch_add(&failed, 1);
  note(name);
  errno = error;
  return 1;
}

#define OPEN_AS(function, ...)                                        \
  mode_t mode = 0;                                                    \
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {                         \
    va_list list;                                                     \
    va_start(list, flags);                                            \
    mode = va_arg(list, mode_t);                                      \
    va_end(list);                                                     \
  }                                                                   \
  return fails("open", EMFILE) ? -1 : REAL(function)(__VA_ARGS__, flags, mode)

int open(const char *path, int flags, ...) { OPEN_AS(open, path); }
int open64(const char *path, int flags, ...) { OPEN_AS(open64, path); }
int openat(int at, const char *path, int flags, ...) { OPEN_AS(openat, at, path); }
int openat64(int at, const char *path, int flags, ...) { OPEN_AS(openat64, at, path); }
FILE *fopen(const char *path, const char *mode) { return fails("open", EMFILE) ? NULL : REAL(fopen)(path, mode); }
FILE *fopen64(const char *path, const char *mode) { return fails("open", EMFILE) ? NULL : REAL(fopen64)(path, mode); }
DIR *opendir(const char *path) { return fails("open", EMFILE) ? NULL : REAL(opendir)(path); }
int socket(int domain, int type, int protocol) {
  return fails("socket", EMFILE) ? -1 : REAL(socket)(domain, type, protocol);
}
int socketpair(int domain, int type, int protocol, int ends[2]) {
  return fails("socketpair", EMFILE) ? -1 : REAL(socketpair)(domain, type, protocol, ends);
}
int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
  return fails("accept", EMFILE) ? -1 : REAL(accept4)(fd, address, size, flags);
}
int pipe(int ends[2]) { return fails("pipe", EMFILE) ? -1 : REAL(pipe)(ends); }
int pipe2(int ends[2], int flags) { return fails("pipe", EMFILE) ? -1 : REAL(pipe2)(ends, flags); }
int eventfd(unsigned int begin, int flags) { return fails("eventfd", EMFILE) ? -1 : REAL(eventfd)(begin, flags); }
int epoll_create1(int flags) { return fails("epoll_create", EMFILE) ? -1 : REAL(epoll_create1)(flags); }
int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
  return operation == EPOLL_CTL_ADD && fails("epoll_ctl", ENOSPC) ? -1 : REAL(epoll_ctl)(epoll, operation, fd, event);
}
int memfd_create(const char *name, unsigned int flags) {
  return fails("memfd_create", EMFILE) ? -1 : REAL(memfd_create)(name, flags);
}
int dup(int fd) { return fails("dup", EMFILE) ? -1 : REAL(dup)(fd); }
int dup2(int fd, int to) { return fails("dup", EMFILE) ? -1 : REAL(dup2)(fd, to); }
int dup3(int fd, int to, int flags) { return fails("dup", EMFILE) ? -1 : REAL(dup3)(fd, to, flags); }

#define FCNTL_AS(function)                                                   \
  va_list list;                                                              \
  va_start(list, command);                                                   \
  void *argument = va_arg(list, void *);                                     \
  va_end(list);                                                              \
  const int makes_one = command == F_DUPFD || command == F_DUPFD_CLOEXEC;    \
  return makes_one && fails("dup", EMFILE) ? -1 : REAL(function)(fd, command, argument)

int fcntl(int fd, int command, ...) { FCNTL_AS(fcntl); }
int fcntl64(int fd, int command, ...) { FCNTL_AS(fcntl64); }

/* Memory from the heap, for the extension module: only with CALL "memory", since there are thousands of these. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static int lacks_memory(const void *caller) {
  if (!atomic_load(&armed) || only == NULL || strcmp(only, "memory") != 0) {
    return 0;
  }
  const uintptr_t at = (uintptr_t)caller;
  return at >= atomic_load(&core_begin) && at < atomic_load(&core_end) && fails("memory", ENOMEM);
}

void *malloc(size_t size) { return lacks_memory(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) {
  return lacks_memory(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}
void *realloc(void *old, size_t size) {
  return lacks_memory(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

/* Of shared memory only: what the allocators of the interpreter do with a failure is not our matter. */
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  const int is_shared = (flags & MAP_TYPE) == MAP_SHARED;
  return is_shared && fails("mmap", ENOMEM) ? MAP_FAILED : REAL(mmap)(at, size, protection, flags, fd, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
  return fails("thread", EAGAIN) ? EAGAIN : REAL(pthread_create)(thread, attributes, body, argument);
}

pid_t fork(void) { return fails("fork", EAGAIN) ? -1 : REAL(fork)(); }

static pid_t (*real_vfork)(void);
__attribute__((constructor)) static void find_vfork(void) { real_vfork = REAL(vfork); }
/* The call of the real one is a jump (-O2): else its return would find a stack that the child has written over. */
pid_t vfork(void) {
  if (fails("fork", EAGAIN)) {
    return -1;
  }
  return real_vfork();
}

long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a[6];
  for (int i = 0; i < 6; ++i) {
    a[i] = va_arg(list, long);
  }
  va_end(list);
  if (number == SYS_pidfd_open && fails("pidfd_open", EMFILE)) {
    return -1;
  }
  return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Descriptors that come with a message and find no room are lost, and the message says so. */
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  on_read(fd);
  const ssize_t size = REAL(recvmsg)(fd, message, flags);
  const int before = errno;
  struct cmsghdr *header = size > 0 && message->msg_control != NULL ? CMSG_FIRSTHDR(message) : NULL;
  if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      fails("recvmsg", EMFILE)) {
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int passed;
      memcpy(&passed, CMSG_DATA(header) + i * sizeof passed, sizeof passed);
      close(passed);
    }
    message->msg_controllen = 0;
    message->msg_flags |= MSG_CTRUNC;
  }
  errno = before;
  return size;
}

ssize_t read(int fd, void *space, size_t size) {
  on_read(fd);
  return REAL(read)(fd, space, size);
}

ssize_t recv(int fd, void *space, size_t size, int flags) {
  on_read(fd);
  return REAL(recv)(fd, space, size, flags);
}
