/* The rules of channels, in the order of the options. Immutable once the hub exists. */
#include "rules.h"

#include "topic.h"

uint8_t fc_rules_find(const struct fc_rule *rules, unsigned count, const char *name, size_t length)
{
    unsigned i = 0;

    while (i + 1 < count && !fc_topic_matches(rules[i].channels.bytes, rules[i].channels.length, name, length))
        i++;
    return (uint8_t)i;
}
