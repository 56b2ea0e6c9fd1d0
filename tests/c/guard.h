/* Memory that ends where an unreadable page begins: reading one byte too far is a fault, with or without ASan. */
#ifndef GUARD_H
#define GUARD_H

#include <stddef.h>
#include <stdint.h>

struct guard {
    uint8_t *pages;
    size_t size; /* of the readable part */
};

/* Room for n bytes. */
void guard_open(struct guard *guard, size_t n);
void guard_close(struct guard *guard);

/* A place for n bytes, the last of them right before the unreadable page. */
uint8_t *guard_place(const struct guard *guard, size_t n);

/* The same with a copy of the bytes. */
const uint8_t *guard_copy(const struct guard *guard, const void *bytes, size_t n);

#endif
