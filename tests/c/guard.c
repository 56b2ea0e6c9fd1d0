/* Guarded memory: pages from mmap, the last of them without any access. Freed by guard_close. */
#include "guard.h"

#include "check.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void guard_open(struct guard *guard, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    guard->size = (n / page + 1) * page;
    guard->pages =
        mmap(NULL, guard->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(guard->pages != MAP_FAILED);
    CHECK(mprotect(guard->pages + guard->size, page, PROT_NONE) == 0);
}

void guard_close(struct guard *guard)
{
    munmap(guard->pages, guard->size + (size_t)sysconf(_SC_PAGESIZE));
}

uint8_t *guard_place(const struct guard *guard, size_t n)
{
    CHECK(n <= guard->size);
    return guard->pages + guard->size - n;
}

const uint8_t *guard_copy(const struct guard *guard, const void *bytes, size_t n)
{
    uint8_t *place = guard_place(guard, n);

    if (n > 0)
        memcpy(place, bytes, n);
    return place;
}
