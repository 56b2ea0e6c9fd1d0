/* What the options say of channels: which becomes of messages for clients that lag. */
#ifndef FC_RULES_H
#define FC_RULES_H

#include "fastcast.h"

#include <stdbool.h>
#include <stdint.h>

/* The first rule that takes in the name; the last one takes in all. */
uint8_t fc_rules_find(const struct fc_rule *rules, unsigned count, const char *name, size_t length);

/* The rule for messages to the records of channels under that one: what is lost here can't be got again, so that who
 * lags is closed, and resumes. It stands beside that one. */
static inline uint8_t fc_rules_lossless(unsigned count, uint8_t rule)
{
    return (uint8_t)(rule + 1u == count ? rule - 1u : rule + 1u);
}

/* Whether channels under the rule have a history. */
static inline bool fc_rule_keeps(const struct fc_rule *rule)
{
    return rule->keep_messages > 0 || rule->keep_time > 0;
}

#endif
