/* What the options say of channels: which becomes of messages for clients that lag. */
#ifndef FC_RULES_H
#define FC_RULES_H

#include "fastcast.h"

#include <stdint.h>

/* The first rule that takes in the name; the last one takes in all. */
uint8_t fc_rules_find(const struct fc_rule *rules, unsigned count, const char *name, size_t length);

#endif
